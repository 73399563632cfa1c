"""Shared by all packages: protocols, the system's clock and randomness, strict JSON, private files, HTTP."""
