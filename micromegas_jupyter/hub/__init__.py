"""The JupyterHub service: every kernel on a Hub gets its own user's bearer token, and no other secret.

`configure` is for `jupyterhub_config.py`. The Hub starts the service itself as `python -m micromegas_jupyter.hub`. The
kernel side is in `auth`.
"""

from micromegas_jupyter.hub.configuration import configure

__all__ = ["configure"]
