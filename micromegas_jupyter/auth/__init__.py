"""The client half: get me a valid bearer token.

Who may do what with it is the server's side (`access`); which provider a program uses is decided in `assembly`.
"""

from micromegas_jupyter.auth.client_credentials import OidcClientCredentialsProvider
from micromegas_jupyter.auth.identity import Identity, LogoutReport
from micromegas_jupyter.auth.oidc_provider import OidcAuthProvider, PendingLogin
from micromegas_jupyter.auth.static_token import StaticTokenAuthProvider
from micromegas_jupyter.contracts import AuthProvider

__all__ = [
    "AuthProvider",
    "Identity",
    "LogoutReport",
    "OidcAuthProvider",
    "OidcClientCredentialsProvider",
    "PendingLogin",
    "StaticTokenAuthProvider",
]
