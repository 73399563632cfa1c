"""Completion of SQL in cells."""
