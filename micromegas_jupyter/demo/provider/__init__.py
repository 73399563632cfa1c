"""The demo's identity provider: a real protocol without real protection, because the password is public."""

from micromegas_jupyter.demo.provider.provider import DemoProvider

__all__ = ["DemoProvider"]
