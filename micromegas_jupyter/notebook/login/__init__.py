"""Signing in from a notebook: the pending sign-in, its state, and how both are displayed."""
