"""Checks everything that a sign-in needs, one check per line, with remedies for problems."""
