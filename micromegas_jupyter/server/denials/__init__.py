"""Whose calls a server rejects and ends: users whom an administrator has cut off."""
