"""The demo's identity provider: real in protocol, worthless as protection, as everybody knows the password."""

from micromegas_jupyter.demo.provider.provider import DemoProvider

__all__ = ["DemoProvider"]
