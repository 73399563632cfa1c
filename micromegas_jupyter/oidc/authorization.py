"""The authorization request that a browser is sent with, and the callback that it comes back with."""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import parse_qsl

from micromegas_jupyter.core.system import Randomness, Secret, SecretObject
from micromegas_jupyter.errors import LoginRefused, ProviderMisbehaved, ProviderUnavailable, UsageError
from micromegas_jupyter.oidc.discovery import ProviderMetadata, describe_provider_error

MAX_RESOURCE_CHARACTERS = 2048

# An absolute URI without a fragment, loosely: RFC 8707 section 2. A URN is one, too.
_ABSOLUTE_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21\x24-\x3b\x3d\x3f-\x5b\x5d\x5f\x61-\x7a\x7e]+")


def resource_fields(resource: str | None) -> dict[str, str]:
    """Return the parameters that ask for `resource`, none when it is None or empty.

    Raises:
        UsageError: It is not an absolute URI, or has a fragment.
    """
    if not resource:
        return {}
    if len(resource) > MAX_RESOURCE_CHARACTERS or not _ABSOLUTE_URI.fullmatch(resource):
        raise UsageError("The resource is not an absolute URI without a fragment, as https://lake.example.com is.")
    return {"resource": resource}


RANDOM_BYTES = 32
MAX_CODE_CHARACTERS = 4096
MAX_CALLBACK_PARAMETERS = 50

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*")
_OWN_PARAMETERS = frozenset(
    {
        "response_type",
        "response_mode",
        "client_id",
        "redirect_uri",
        "scope",
        "state",
        "nonce",
        "code_challenge",
        "code_challenge_method",
        "request",
        "request_uri",
    }
)
_PASSING_ERRORS = frozenset({"server_error", "temporarily_unavailable"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationRequest:
    """One started sign-in: what its callback and tokens will be held against.

    Attributes:
        url: Where the browser is sent; it holds state, nonce and challenge.
        redirect_uri: Where the provider sends the browser back to.
        scope: What was asked for.
        state: Ties the callback to this sign-in.
        nonce: Ties the ID token to this sign-in.
        code_verifier: Proves at the token endpoint that the code is ours (RFC 7636).
        resource: The API that was asked for (RFC 8707).
    """

    url: str = field(repr=False)
    redirect_uri: str
    scope: str
    state: Secret
    nonce: Secret
    code_verifier: Secret
    resource: str | None = None


def complete_scope(scope: str) -> str:
    """Return `scope` with `openid` in it, without which there would be no ID token.

    Source: RFC 6749 section 3.3; OpenID Connect Core 1.0 section 3.1.2.1.

    Raises:
        UsageError: It is not a list of scope names separated by single spaces.
    """
    if not _SCOPE.fullmatch(scope):
        raise UsageError("The scope is not a list of names separated by single spaces.")
    return scope if "openid" in scope.split() else f"openid {scope}"


def build_authorization_request(  # noqa: PLR0913 - the request's parameters
    metadata: ProviderMetadata,
    *,
    client_id: str,
    redirect_uri: str,
    scope: str,
    randomness: Randomness,
    audience: str | None = None,
    resource: str | None = None,
    extra_parameters: Mapping[str, str] = MappingProxyType({}),
    state_prefix: str = "",
) -> AuthorizationRequest:
    """Build a code request with PKCE S256, state and nonce, all new; the state begins with `state_prefix`.

    Source: RFC 6749 section 4.1.1; RFC 7636 section 4; OpenID Connect Core 1.0 sections 3.1.2.1 and 11 (a provider
    may ignore `offline_access` unless consent is asked for); RFC 8707 section 2.1.

    Raises:
        ProviderMisbehaved: The provider has no authorization or token endpoint, or lists PKCE methods without S256.
        UsageError: Scope or resource are malformed, or an extra parameter would replace one of the protocol's own.
    """
    metadata.require_token_endpoint()
    if metadata.authorization_endpoint is None:
        raise ProviderMisbehaved(f"The identity provider {metadata.issuer} names no authorization endpoint.")
    if metadata.pkce_methods is not None and "S256" not in metadata.pkce_methods:
        raise ProviderMisbehaved(f"The identity provider {metadata.issuer} does not support PKCE with S256.")
    if not _OWN_PARAMETERS.isdisjoint(extra_parameters):
        raise UsageError(f"These authorization parameters cannot be set: {', '.join(sorted(_OWN_PARAMETERS))}.")
    requested_scope = complete_scope(scope)
    prefixes = (state_prefix, "", "")
    state, nonce, verifier = (Secret(prefix + randomness.token_urlsafe(RANDOM_BYTES)) for prefix in prefixes)
    parameters = {"prompt": "consent"} if "offline_access" in requested_scope.split() else {}
    if audience:
        parameters["audience"] = audience
    asked_resource = resource_fields(resource)
    if asked_resource.keys() & extra_parameters.keys():
        raise UsageError("The resource is given twice: as itself and among the authorization parameters.")
    parameters.update(asked_resource)
    parameters.update(extra_parameters)
    from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
    from authlib.oauth2.rfc7636 import create_s256_code_challenge

    url = prepare_grant_uri(
        metadata.authorization_endpoint,
        client_id,
        "code",
        redirect_uri=redirect_uri,
        scope=requested_scope,
        state=state.reveal(),
        nonce=nonce.reveal(),
        code_challenge=create_s256_code_challenge(verifier.reveal()),
        code_challenge_method="S256",
        **parameters,
    )
    return AuthorizationRequest(
        url=str(url),
        redirect_uri=redirect_uri,
        scope=requested_scope,
        state=state,
        nonce=nonce,
        code_verifier=verifier,
        resource=resource or None,
    )


def is_callback_of(query: str, request: AuthorizationRequest) -> bool:
    """Whether a callback's query string carries this sign-in's state, exactly once; compared in constant time."""
    states = [value for name, value in _parameters(query) if name == "state"]
    expected = request.state.reveal().encode()
    return len(states) == 1 and hmac.compare_digest(states[0].encode("utf-8", "surrogatepass"), expected)


def parse_callback(query: str | Secret, *, request: AuthorizationRequest, metadata: ProviderMetadata) -> Secret:
    """Return the authorization code that a callback carries.

    Source: RFC 6749 sections 4.1.2 and 4.1.2.1; RFC 9207 section 2.4 (`iss` is checked for errors too).

    Raises:
        ProviderMisbehaved: The state is not this sign-in's, a parameter is repeated, `iss` is wrong or missing
            where the provider announced it, or there is neither a code nor an error.
        ProviderUnavailable: The provider says that it cannot answer now.
        LoginRefused: The provider reports an error, a person's refusal among them.
    """
    query = query if isinstance(query, Secret) else Secret(query)  # or a traceback would show it
    found = _callback_parameters(query.reveal(), request)
    if found is None:
        raise ProviderMisbehaved("The sign-in came back with parameters that do not fit it.")
    issuer = found.get("iss")
    if issuer != metadata.issuer and (issuer is not None or metadata.sends_issuer_in_callback):
        raise ProviderMisbehaved("The sign-in came back from another identity provider than it was sent to.")
    if "error" in found:
        _raise_callback_error(found)
    code = Secret(str(found.get("code", "")))
    if not _is_code(code.reveal()):
        raise ProviderMisbehaved("The sign-in came back without a usable code.")
    return code


def _callback_parameters(query: str, request: AuthorizationRequest) -> SecretObject | None:
    """Return a callback's parameters; None when one is repeated or the state is not this sign-in's."""
    pairs = _parameters(query)
    found = SecretObject(pairs)
    return found if len(found) == len(pairs) and is_callback_of(query, request) else None


def _is_code(text: str) -> bool:
    return 0 < len(text) <= MAX_CODE_CHARACTERS and text.isascii() and text.isprintable()


def _raise_callback_error(found: Mapping[str, object]) -> None:
    described = describe_provider_error(found["error"], found.get("error_description"))
    if found["error"] in _PASSING_ERRORS:
        raise ProviderUnavailable(f"The identity provider could not sign you in now ({described}).")
    if found["error"] == "access_denied":
        raise LoginRefused(f"The sign-in was refused ({described}).")
    raise LoginRefused(
        f"The identity provider refused the sign-in ({described}).",
        remedy="Check client id, redirect address and scope with whoever runs the identity provider.",
    )


def _parameters(query: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_CALLBACK_PARAMETERS)
    except ValueError:
        return []
