"""Captioning recorded bags: reading them, running the captioner, reporting and comparing."""
