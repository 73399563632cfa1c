"""The Jupyter server's part in a sign-in by redirect."""
