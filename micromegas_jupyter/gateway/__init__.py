"""Selects the statements to forward to another engine behind this server, and translates them to its dialect."""
