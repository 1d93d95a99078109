"""Measurements of the package, one kind a file. Importing this package measures nothing."""
