"""The tokens of a sign-in: their text format, their storage, and their renewal."""
