"""The tokens of a sign-in: their text format, where they are stored, and how they are kept valid."""
