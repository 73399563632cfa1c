"""A real JupyterHub with a system user for each person, at a certified provider of other make."""
