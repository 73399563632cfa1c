"""Charts of rows in Python."""
