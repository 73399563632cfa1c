"""Another engine behind this server: selects the statements to forward, and translates them to its dialect."""
