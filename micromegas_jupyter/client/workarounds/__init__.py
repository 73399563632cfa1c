"""Workarounds for how other libraries recognize a connection, each with a test that fails once it is obsolete."""
