"""The two applications that the demo provider knows, and where each may be sent back to.

Written for Authlib, which asks a client object these questions by these names; what is done with the answers
is Authlib's.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from micromegas_jupyter.contracts import Secret
    from micromegas_jupyter.demo.provider.behind_jupyter import BehindJupyter

CLIENT_ID = "micromegas-demo"
SERVICE_CLIENT_ID = "micromegas-demo-service"
AUTHORIZATION_CODE = "authorization_code"
REFRESH_TOKEN = "refresh_token"  # noqa: S105 - the name of a grant, RFC 6749 section 6
CLIENT_CREDENTIALS = "client_credentials"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
PERSON_SCOPES = ("openid", "profile", "email", "offline_access")

# RFC 8252 section 7.3: any port, decided by the application at the time of the request; nothing else may vary, but for
# the base URL of a Jupyter server, which is what the demo's reader chose.
_LOOPBACK_CALLBACK = re.compile(
    r"http://(127\.0\.0\.1|\[::1\]|localhost)(:[1-9]\d{0,4})?(?:(?:/[\w~-]+)*/micromegas)?/callback", re.ASCII
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoClient:
    """One registered application.

    Attributes:
        client_id: Its name on the wire.
        display_name: Its name on the consent page.
        grant_types: What it may use at the token endpoint.
        auth_methods: How it authenticates at the token endpoint; `none` for a public client.
        scopes: What it may ask for.
        secret: Its secret, None for a public client.
        loopback_callback: Whether `/callback` on this machine, at any port, is a redirect URI of it, and that of any
            Jupyter server there.
        redirect_uris: Further redirect URIs, compared byte for byte (RFC 9700 section 2.1).
        behind: The Jupyter server whose redirect URI is one of it, too.
    """

    client_id: str
    display_name: str
    grant_types: tuple[str, ...]
    auth_methods: tuple[str, ...]
    scopes: tuple[str, ...] = ()
    secret: Secret | None = None
    loopback_callback: bool = False
    redirect_uris: tuple[str, ...] = ()
    behind: BehindJupyter | None = None

    def get_client_id(self) -> str:
        """Return the client's name on the wire."""
        return self.client_id

    def get_default_redirect_uri(self) -> None:
        """Answer that there is no default: every request states its redirect URI."""

    def get_allowed_scope(self, scope: str | None) -> str:
        """Return those of the requested scopes that this client may have; the rest is left out."""
        return " ".join(name for name in dict.fromkeys((scope or "").split()) if name in self.scopes)

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        """Whether an answer may be sent there."""
        if redirect_uri in self.redirect_uris:
            return True
        if self.behind is not None and self.behind.is_callback(redirect_uri):
            return True
        return self.loopback_callback and _LOOPBACK_CALLBACK.fullmatch(redirect_uri) is not None

    def check_client_secret(self, client_secret: str) -> bool:
        """Whether this is the client's secret."""
        if self.secret is None:
            return False
        return hmac.compare_digest(client_secret.encode(), self.secret.reveal().encode())

    def check_endpoint_auth_method(self, method: str, _endpoint: str) -> bool:
        """Whether the client authenticates this way; the same at every endpoint."""
        return method in self.auth_methods

    def check_response_type(self, response_type: str) -> bool:
        """Whether the client may ask for this kind of answer: codes only."""
        return response_type == "code" and AUTHORIZATION_CODE in self.grant_types

    def check_grant_type(self, grant_type: str) -> bool:
        """Whether the client may use this grant."""
        return grant_type in self.grant_types


def build_clients(
    *, service_secret: Secret, extra_redirect_uris: tuple[str, ...], behind: BehindJupyter | None = None
) -> dict[str, DemoClient]:
    """Return the registered applications by their client id."""
    person_client = DemoClient(
        client_id=CLIENT_ID,
        display_name="Micromegas notebooks",
        grant_types=(AUTHORIZATION_CODE, REFRESH_TOKEN, DEVICE_CODE),
        auth_methods=("none",),
        scopes=PERSON_SCOPES,
        loopback_callback=True,
        redirect_uris=extra_redirect_uris,
        behind=behind,
    )
    service_client = DemoClient(
        client_id=SERVICE_CLIENT_ID,
        display_name="Micromegas service account",
        grant_types=(CLIENT_CREDENTIALS,),
        auth_methods=("client_secret_basic", "client_secret_post"),
        secret=service_secret,
    )
    return {client.client_id: client for client in (person_client, service_client)}
