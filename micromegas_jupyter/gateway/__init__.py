"""Another engine behind this server: what a caller may ask it, in its dialect."""
