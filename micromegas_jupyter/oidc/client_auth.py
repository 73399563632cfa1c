"""How a client proves itself at the token, device and revocation endpoints."""

import base64
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias, assert_never
from urllib.parse import quote_plus

from micromegas_jupyter.core.system import Randomness, Secret
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.oidc.private_key import PrivateKey, sign_jwt

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
# One call takes ten seconds at most; the rest is for clocks that differ.
ASSERTION_LIFETIME_SECONDS = 120
ASSERTION_ID_BYTES = 24


class ClientAuthenticationMethod(enum.StrEnum):
    """The methods that this client knows, by their registered names (OpenID Connect Core 1.0 section 9)."""

    NONE = "none"
    BASIC = "client_secret_basic"
    POST = "client_secret_post"
    PRIVATE_KEY_JWT = "private_key_jwt"


# What an application proves itself with; None for a public client.
ClientProof: TypeAlias = Secret | PrivateKey | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAuthentication:
    """What is added to a request: form fields and headers."""

    fields: Mapping[str, str | Secret]
    headers: Mapping[str, str | Secret] = field(default_factory=dict)


def choose_authentication_method(
    supported: tuple[str, ...] | None, *, proof: ClientProof
) -> ClientAuthenticationMethod:
    """Choose from what the provider's metadata lists; None means that it lists nothing.

    A client without a proof always goes unauthenticated: many providers accept public clients without listing
    `none`. With a secret the default is Basic (RFC 8414 section 2).

    Raises:
        ConfigurationError: There is a secret or a key and the provider takes none.
    """
    match proof:
        case None:
            return ClientAuthenticationMethod.NONE
        case PrivateKey():
            if supported is None or ClientAuthenticationMethod.PRIVATE_KEY_JWT in supported:
                return ClientAuthenticationMethod.PRIVATE_KEY_JWT
            raise ConfigurationError(
                "The identity provider does not let applications sign in with a private key.",
                key="MICROMEGAS_OIDC_PRIVATE_KEY_FILE",
                remedy="Use a client secret in place of the private key.",
            )
        case Secret():
            if supported is None or ClientAuthenticationMethod.BASIC in supported:
                return ClientAuthenticationMethod.BASIC
            if ClientAuthenticationMethod.POST in supported:
                return ClientAuthenticationMethod.POST
            raise ConfigurationError(
                "The identity provider accepts no client secret.",
                key="MICROMEGAS_OIDC_CLIENT_SECRET",
                remedy="Unset the client secret, or register the application with one.",
            )
        case _:
            assert_never(proof)


def build_client_authentication(  # noqa: PLR0913 - what an assertion says
    method: ClientAuthenticationMethod,
    *,
    client_id: str,
    proof: ClientProof,
    assertion_audience: str,
    now: datetime,
    randomness: Randomness,
) -> ClientAuthentication:
    """Return the fields and headers of `method`.

    An assertion is made out to `assertion_audience`, whichever of the provider's endpoints it goes to; `now` is the
    provider's time.

    Source: RFC 6749 section 2.3.1 (Basic credentials are form-encoded before they are joined); RFC 7523 sections 2.2
    and 3; OpenID Connect Core 1.0 section 9.

    Raises:
        ConfigurationError: The method needs a secret or a key, and there is none.
    """
    match method, proof:
        case ClientAuthenticationMethod.NONE, _:
            return ClientAuthentication(fields={"client_id": client_id})
        case ClientAuthenticationMethod.POST, Secret():
            return ClientAuthentication(fields={"client_id": client_id, "client_secret": proof})
        case ClientAuthenticationMethod.BASIC, Secret():
            pair = f"{quote_plus(client_id)}:{quote_plus(proof.reveal())}"
            credentials = base64.b64encode(pair.encode("ascii")).decode("ascii")
            return ClientAuthentication(fields={}, headers={"Authorization": Secret(f"Basic {credentials}")})
        case ClientAuthenticationMethod.PRIVATE_KEY_JWT, PrivateKey():
            issued_at = int(now.timestamp())
            claims = {
                "iss": client_id,
                "sub": client_id,
                "aud": assertion_audience,
                "jti": randomness.token_urlsafe(ASSERTION_ID_BYTES),
                "iat": issued_at,
                "exp": issued_at + ASSERTION_LIFETIME_SECONDS,
            }
            return ClientAuthentication(
                fields={
                    "client_id": client_id,
                    "client_assertion_type": ASSERTION_TYPE,
                    "client_assertion": sign_jwt(proof, claims),
                }
            )
        case ClientAuthenticationMethod.PRIVATE_KEY_JWT, _:
            raise ConfigurationError(
                "The identity provider asks for a private key.", key="MICROMEGAS_OIDC_PRIVATE_KEY_FILE"
            )
        case _:
            raise ConfigurationError(
                "The identity provider asks for a client secret.", key="MICROMEGAS_OIDC_CLIENT_SECRET"
            )
