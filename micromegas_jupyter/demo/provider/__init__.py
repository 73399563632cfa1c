"""The demo's identity provider: a small OpenID provider for one machine only.

It is real in protocol (code with PKCE, rotation, devices, service accounts) and worthless as protection: everybody
knows the password. Who may do what in the lake is decided by the server that reads its tokens.
"""

from micromegas_jupyter.demo.provider.provider import DemoProvider

__all__ = ["DemoProvider"]
