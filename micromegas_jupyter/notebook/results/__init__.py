"""Rows of a query: how they arrive, what they become, and how they are shown."""
