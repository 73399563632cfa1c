"""Another engine behind this server: which statements are forwarded to it, in its dialect."""
