"""The sign-in flows: loopback, device, paste, Jupyter redirect, and JupyterHub."""
