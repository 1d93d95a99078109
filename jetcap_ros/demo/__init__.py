"""The demonstration: a camera of photographs, the node beside it, and a page of its captions."""
