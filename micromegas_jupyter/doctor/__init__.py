"""Looks at everything that a sign-in needs, one check a line, and says what to do where something is wrong."""
