"""Assertions as grants: a signed statement about a program in, a token out (RFC 7523).

Sending the requests is left to others; a client's own key is `private_key`'s, authenticating with it
`client_authentication`'s.
"""

from collections.abc import Mapping
from datetime import datetime

from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.oidc.client_authentication import ASSERTION_TYPE
from micromegas_jupyter.oidc.private_key import PrivateKey, sign_jwt
from micromegas_jupyter.oidc.resource import resource_fields

JWT_BEARER_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


def build_assertion(key: PrivateKey, claims: Mapping[str, str], *, now: datetime, lifetime_seconds: int) -> Secret:
    """Sign `claims` (who says what to whom), with the times at which the assertion begins and ends added.

    Source: RFC 7523 section 3.
    """
    issued_at = int(now.timestamp())
    return sign_jwt(key, {**claims, "iat": issued_at, "exp": issued_at + lifetime_seconds})


def build_jwt_bearer_request(assertion: Secret) -> dict[str, str | Secret]:
    """Return the fields that exchange an assertion for a token. Source: RFC 7523 section 2.1."""
    return {"grant_type": JWT_BEARER_GRANT, "assertion": assertion}


def build_client_assertion_request(
    assertion: Secret, *, scope: str | None, audience: str | None, resource: str | None
) -> dict[str, str | Secret]:
    """Return the fields of a client credentials request that somebody else's statement about the client authenticates.

    Source: RFC 7523 section 2.2; RFC 6749 section 4.4.2; RFC 8707 section 2; `audience` as Auth0 has it.

    Raises:
        UsageError: The resource is not an absolute URI.
    """
    wanted = {"scope": scope, "audience": audience}
    return {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": assertion,
        **{name: value for name, value in wanted.items() if value},
        **resource_fields(resource),
    }
