"""The demo's identity provider: a small OpenID provider on Authlib's server, for one machine only.

It is real in protocol (code with PKCE, rotation, devices, service accounts) and worthless as protection: everybody
knows the password. Who may do what in the lake is decided by the server that reads its tokens.
"""

from micromegas_jupyter.demo.provider.provider import DEFAULT_LAKE_AUDIENCE, DemoProvider
from micromegas_jupyter.demo.provider.state import Counters

__all__ = ["DEFAULT_LAKE_AUDIENCE", "Counters", "DemoProvider"]
