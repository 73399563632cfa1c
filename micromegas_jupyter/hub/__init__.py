"""The JupyterHub service: every kernel of a Hub gets its own person's bearer token, and no other secret.

`configure` is for `jupyterhub_config.py`; the service itself is `python -m micromegas_jupyter.hub`, which the Hub
starts. The kernel's half is `auth`'s.
"""

from micromegas_jupyter.hub.configuration import configure

__all__ = ["configure"]
