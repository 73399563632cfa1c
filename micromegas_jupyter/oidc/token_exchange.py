"""Token exchange (RFC 8693): one issuer's token in, the configured provider's token out.

Where the first token comes from and sending the request is left to others.
"""

from datetime import datetime

from micromegas_jupyter.core.secrets import Secret, secret_object
from micromegas_jupyter.errors import ProviderMisbehaved
from micromegas_jupyter.oidc.resource import resource_fields
from micromegas_jupyter.oidc.token import TokenSet, parse_token_answer

TOKEN_EXCHANGE_GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - a grant's name
_TYPE_PREFIX = "urn:ietf:params:oauth:token-type:"
JWT_TYPE = f"{_TYPE_PREFIX}jwt"
ID_TOKEN_TYPE = f"{_TYPE_PREFIX}id_token"
ACCESS_TOKEN_TYPE = f"{_TYPE_PREFIX}access_token"

# What can be sent to a server as a bearer token: RFC 8693 section 3.
_BEARER_TYPES = (ACCESS_TOKEN_TYPE, ID_TOKEN_TYPE, JWT_TYPE)


def build_token_exchange_request(
    subject_token: Secret,
    *,
    audience: str | None,
    resource: str | None,
    scope: str | None,
    subject_token_type: str = JWT_TYPE,
) -> dict[str, str | Secret]:
    """Return the fields that exchange a token.

    Args:
        subject_token: The token; it says who asks.
        audience: The name, at the provider, of what the new token is for.
        resource: The same as an address.
        scope: What the new token may do.
        subject_token_type: What `subject_token` is: a platform's JWT when left out.

    Source: RFC 8693 section 2.1.

    Raises:
        UsageError: The resource is not an absolute URI.
    """
    wanted = {"audience": audience, "scope": scope}
    return {
        "grant_type": TOKEN_EXCHANGE_GRANT,
        "subject_token": subject_token,
        "subject_token_type": subject_token_type,
        **{name: value for name, value in wanted.items() if value},
        **resource_fields(resource),
    }


def parse_token_exchange_answer(body: object, *, now: datetime, asked_scope: str | None) -> TokenSet:
    """Read a successful answer; whatever the issued token's kind, it stands as the access token.

    `token_type` may be `N_A` for a token that is not an access token; then `issued_token_type` has to say what it is.
    Not every provider names that type, although it is required, so only a wrong one is refused.
    Source: RFC 8693 section 2.2.1.

    Raises:
        ProviderMisbehaved: A member is missing or malformed, or the token cannot be used as a bearer token.
    """
    body = secret_object(body)
    if body is None:
        raise ProviderMisbehaved("The identity provider's token exchange answer is not a JSON object.")
    issued_type = body.get("issued_token_type")
    token_type = body.get("token_type")
    is_typed_otherwise = isinstance(token_type, str) and token_type.lower() == "n_a"
    if (issued_type is not None or is_typed_otherwise) and issued_type not in _BEARER_TYPES:
        raise ProviderMisbehaved(
            "The identity provider exchanged the token for one that cannot be sent to a server.",
            remedy="Set MICROMEGAS_OIDC_AUDIENCE or MICROMEGAS_OIDC_SCOPE to what the server's tokens are for.",
        )
    if is_typed_otherwise:
        body["token_type"] = "Bearer"  # noqa: S105 - a type's name, not a password
    return parse_token_answer(body, now=now, asked_scope=asked_scope)
