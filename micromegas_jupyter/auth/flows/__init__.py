"""The flows by which a person signs in: loopback, device, paste, Jupyter redirect, JupyterHub; and which one to use."""
