"""The client side of authentication: obtain a valid bearer token. `wiring` decides which provider a program uses."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from micromegas_jupyter.auth.client_credentials import OidcClientCredentialsProvider
    from micromegas_jupyter.auth.logout import LogoutReport
    from micromegas_jupyter.auth.provider import OidcAuthProvider, PendingLogin
    from micromegas_jupyter.auth.static import StaticTokenAuthProvider
    from micromegas_jupyter.auth.tokens.source import Identity
    from micromegas_jupyter.core.protocols import AuthProvider

_HOME = {
    "AuthProvider": "core.protocols",
    "Identity": "auth.tokens.source",
    "LogoutReport": "auth.logout",
    "OidcAuthProvider": "auth.provider",
    "OidcClientCredentialsProvider": "auth.client_credentials",
    "PendingLogin": "auth.provider",
    "StaticTokenAuthProvider": "auth.static",
}

__all__ = [
    "AuthProvider",
    "Identity",
    "LogoutReport",
    "OidcAuthProvider",
    "OidcClientCredentialsProvider",
    "PendingLogin",
    "StaticTokenAuthProvider",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"micromegas_jupyter.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
