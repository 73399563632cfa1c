"""The Jupyter server's part of a redirect sign-in."""
