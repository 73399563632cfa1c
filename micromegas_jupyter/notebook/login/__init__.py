"""Signing in from a notebook: the sign-in that is under way, its state, and how both are shown."""
