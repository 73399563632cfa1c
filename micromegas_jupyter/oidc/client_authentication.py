"""How a client proves itself at the token and revocation endpoints.

Sending the result is `http`'s job.
"""

import base64
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote_plus

from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.errors import ConfigurationError


class ClientAuthenticationMethod(enum.StrEnum):
    """The methods that this client knows, by their registered names (OpenID Connect Core 1.0 section 9)."""

    NONE = "none"
    BASIC = "client_secret_basic"
    POST = "client_secret_post"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAuthentication:
    """What is added to a request: form fields and headers."""

    fields: Mapping[str, str | Secret]
    headers: Mapping[str, str | Secret] = field(default_factory=dict)


def choose_authentication_method(supported: tuple[str, ...] | None, *, has_secret: bool) -> ClientAuthenticationMethod:
    """Choose from what the provider's metadata lists; None means that it lists nothing.

    A client without a secret always goes unauthenticated: many providers accept public clients without listing
    `none`. The default is Basic (RFC 8414 section 2).

    Raises:
        ConfigurationError: There is a secret and the provider takes none.
    """
    if not has_secret:
        return ClientAuthenticationMethod.NONE
    if supported is None or ClientAuthenticationMethod.BASIC in supported:
        return ClientAuthenticationMethod.BASIC
    if ClientAuthenticationMethod.POST in supported:
        return ClientAuthenticationMethod.POST
    raise ConfigurationError(
        "The identity provider accepts no client secret.",
        key="MICROMEGAS_OIDC_CLIENT_SECRET",
        remedy="Unset the client secret, or register the application with one.",
    )


def build_client_authentication(
    method: ClientAuthenticationMethod, *, client_id: str, client_secret: Secret | None
) -> ClientAuthentication:
    """Return the fields and headers of `method`.

    Basic credentials are form-encoded before they are joined, as RFC 6749 section 2.3.1 asks.

    Raises:
        ConfigurationError: The method needs a secret and there is none.
    """
    if method is ClientAuthenticationMethod.NONE:
        return ClientAuthentication(fields={"client_id": client_id})
    if client_secret is None:
        raise ConfigurationError("The identity provider asks for a client secret.", key="MICROMEGAS_OIDC_CLIENT_SECRET")
    if method is ClientAuthenticationMethod.POST:
        return ClientAuthentication(fields={"client_id": client_id, "client_secret": client_secret})
    pair = f"{quote_plus(client_id)}:{quote_plus(client_secret.reveal())}"
    credentials = base64.b64encode(pair.encode("ascii")).decode("ascii")
    return ClientAuthentication(fields={}, headers={"Authorization": Secret(f"Basic {credentials}")})
