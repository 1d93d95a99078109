"""The captioning models. Importing this package imports no framework."""
