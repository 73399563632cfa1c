"""From discovery to tokens: provider metadata, authorization requests, client authentication, and token requests.

The `build_` functions return a form's fields and raise `UsageError` if the resource is not an absolute URI. If a
`parse_` or `read_` function rejects its input, the error does not reveal any of the input, not even in a traceback
with variables.
"""

import base64
import hmac
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TypeAlias
from urllib.parse import parse_qsl, quote, quote_plus

from micromegas_jupyter.config.client import PROTECTED_PARAMETERS
from micromegas_jupyter.core.system import Randomness, Secret, SecretObject, secret_object
from micromegas_jupyter.core.text import as_issuer, check_endpoint_url, is_loopback_url
from micromegas_jupyter.errors import (
    AuthenticationError,
    ConfigurationError,
    LoginFailed,
    LoginRefused,
    LoginRequired,
    ProviderMisbehaved,
    ProviderUnavailable,
    UsageError,
)
from micromegas_jupyter.oidc.jwt import names_issuer
from micromegas_jupyter.oidc.private_key import PrivateKey, sign_jwt

MAX_CALLBACK_PARAMETERS = 50
MAX_SHOWN_CHARACTERS = 200

_ERROR_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# Codes and tokens are long runs without spaces, unlike ordinary words.
_LONG_RUN = re.compile(r"[^\s]{32,}")
METADATA_PATH = "/.well-known/openid-configuration"
_MAX_RESOURCE_CHARACTERS = 2048
_MAX_CODE_CHARACTERS = 4096
_MAX_TOKEN_CHARACTERS = 64 * 1024
_MAX_LIFETIME_SECONDS = 10 * 365 * 24 * 3600
_RANDOM_BYTES = 32
_ASSERTION_ID_BYTES = 24
# A call takes ten seconds at most; the rest allows for clock differences.
_ASSERTION_LIFETIME_SECONDS = 120

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
TOKEN_EXCHANGE_GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - a grant's name
JWT_BEARER_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
ID_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 - a type's name
ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a type's name
# The token types that can be sent to a server as bearer tokens: RFC 8693 section 3.
_BEARER_TYPES = (ACCESS_TOKEN_TYPE, ID_TOKEN_TYPE, JWT_TYPE)

_ANSWER = "token answer"
_DIGITS = re.compile(r"[0-9]{1,10}")
# An absolute URI without a fragment (loose match): RFC 8707 section 2. URNs match, too.
_ABSOLUTE_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21\x24-\x3b\x3d\x3f-\x5b\x5d\x5f\x61-\x7a\x7e]+")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*")
_OWN_PARAMETERS = PROTECTED_PARAMETERS - {"client_secret"} | {"scope"}
_CLIENT_ERRORS = frozenset({"invalid_client", "unauthorized_client"})
_PASSING_ERRORS = frozenset({"server_error", "temporarily_unavailable", "slow_down"})

Fields: TypeAlias = dict[str, str | Secret]
# An application's credential; None for a public client.
ClientCredential: TypeAlias = Secret | PrivateKey | None


def clean_provider_text(text: str, *, secrets: Collection[Secret] = ()) -> str:
    """Return `text` without control characters, markup, long runs that could be tokens, and the given secrets.

    Source: RFC 6749 section 5.2 allows printable ASCII only; RFC 8628 section 5.3; SECURITY A23.
    """
    for written in _written(secrets):
        text = text.replace(written, "…")
    printable = "".join(c if c.isprintable() and c not in "<>&" else " " for c in text[: 10 * MAX_SHOWN_CHARACTERS])
    words = " ".join(_LONG_RUN.sub("…", printable).split())
    return words if len(words) <= MAX_SHOWN_CHARACTERS else words[:MAX_SHOWN_CHARACTERS] + "…"


def describe_provider_error(code: object, description: object, *, secrets: Collection[Secret] = ()) -> str:
    """Return an OAuth error code with its description as a short phrase. Source: RFC 6749 sections 4.1.2.1 and 5.2."""
    shown = "an unreadable error code"
    if isinstance(code, str) and _ERROR_CODE.fullmatch(code) and not any(map(code.__contains__, _written(secrets))):
        shown = code
    detail = clean_provider_text(description, secrets=secrets) if isinstance(description, str) else ""
    return f"{shown}: {detail}" if detail else shown


def _written(secrets: Collection[Secret]) -> list[str]:
    """Return the secrets, also form-encoded and URL-encoded, longest first."""
    texts = [secret.reveal() for secret in secrets if secret.reveal()]
    found = {written for text in texts for written in (text, quote_plus(text), quote(text, safe=""))}
    return sorted(found, key=len, reverse=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderMetadata:
    """A provider's metadata; every endpoint uses https, or http on loopback."""

    issuer: str
    jwks_uri: str
    authorization_endpoint: str | None = None
    token_endpoint: str | None = None
    userinfo_endpoint: str | None = None
    revocation_endpoint: str | None = None
    device_authorization_endpoint: str | None = None
    end_session_endpoint: str | None = None
    sends_issuer_in_callback: bool = False
    token_endpoint_auth_methods: tuple[str, ...] | None = None
    pkce_methods: tuple[str, ...] | None = None

    def require_token_endpoint(self) -> str:
        """Return the token endpoint, or raise if there isn't one."""
        if self.token_endpoint is None:
            raise ProviderMisbehaved(f"The identity provider {self.issuer} doesn't have a token endpoint.")
        return self.token_endpoint


def build_metadata_url(issuer: str) -> str:
    """Return the URL of an issuer's discovery document. Source: OpenID Connect Discovery 1.0 section 4.1."""
    return issuer.removesuffix("/") + METADATA_PATH  # the only place that drops a trailing slash


def parse_metadata(document: object, *, issuer: str) -> ProviderMetadata:
    """Parse a discovery document. Source: OpenID Connect Discovery 1.0 sections 3 and 4.3; RFC 8414 section 2."""
    members = _members_for(document, issuer)
    return ProviderMetadata(
        issuer=issuer,
        jwks_uri=_jwks_uri(members, issuer, read_from=issuer),
        authorization_endpoint=_endpoint(members, "authorization_endpoint", issuer),
        token_endpoint=_endpoint(members, "token_endpoint", issuer),
        userinfo_endpoint=_endpoint(members, "userinfo_endpoint", issuer),
        revocation_endpoint=_endpoint(members, "revocation_endpoint", issuer),
        device_authorization_endpoint=_endpoint(members, "device_authorization_endpoint", issuer),
        end_session_endpoint=_endpoint(members, "end_session_endpoint", issuer),
        sends_issuer_in_callback=members.get("authorization_response_iss_parameter_supported") is True,
        token_endpoint_auth_methods=_texts(members, "token_endpoint_auth_methods_supported", issuer),
        pkce_methods=_texts(members, "code_challenge_methods_supported", issuer),
    )


def parse_jwks_uri(document: object, *, issuer: str, tenant: str | None = None, read_from: str | None = None) -> str:
    """Return only the URL of the keys from a discovery document."""
    return _jwks_uri(_members_for(document, issuer, tenant), issuer, read_from=read_from or issuer)


def _members_for(document: object, issuer: str, tenant: str | None = None) -> Mapping[str, object]:
    if not isinstance(document, dict):
        raise ProviderMisbehaved(f"The discovery document of {issuer} is not a JSON object.")
    stated = document.get("issuer")
    if not names_issuer(stated, issuer=issuer, tenant=tenant):
        raise _other_issuer(stated, issuer=issuer)
    return document


def _other_issuer(stated: object, *, issuer: str) -> ProviderMisbehaved:
    remedy = "Set the issuer exactly as the provider specifies it, including any trailing slash."
    if not isinstance(stated, str):
        other = "no issuer"
    elif _may_be_set(stated, configured=issuer):
        other = stated
        # A server at that address could claim any issuer, so a user must confirm it.
        remedy = (
            f"If {stated} is your provider, set the issuer to exactly that. If you don't recognize it, don't sign in."
        )
    else:
        other = clean_provider_text(stated)
    return ProviderMisbehaved(f"The discovery document of {issuer} is for a different issuer ({other}).", remedy=remedy)


def _may_be_set(stated: str, *, configured: str) -> bool:
    """Whether a discovery document's issuer can be shown verbatim and is valid as a setting."""
    if len(stated) > MAX_SHOWN_CHARACTERS or set(stated) & set("{}&'`"):
        return False
    try:
        as_issuer(stated, "issuer")
    except ConfigurationError:
        return False
    return stated.startswith("https://") or is_loopback_url(configured)


def _jwks_uri(document: Mapping[str, object], issuer: str, *, read_from: str) -> str:
    jwks_uri = _endpoint(document, "jwks_uri", issuer, read_from=read_from)
    if jwks_uri is None:
        raise ProviderMisbehaved(f"The discovery document of {issuer} does not contain the URL of the provider's keys.")
    return jwks_uri


def _endpoint(document: Mapping[str, object], name: str, issuer: str, *, read_from: str | None = None) -> str | None:
    url = document.get(name)
    if url is None:
        return None
    if not isinstance(url, str):
        raise ProviderMisbehaved(f"The discovery document of {issuer} has a {name} that is not a string.")
    check_endpoint_url(url)
    if url.lower().startswith("http:") and not is_loopback_url(read_from or issuer):
        # A remote provider must not be able to have codes and tokens sent to this machine's own services.
        raise ProviderMisbehaved(f"The discovery document of {issuer} has a {name} that does not use https.")
    return url


def _texts(document: Mapping[str, object], name: str, issuer: str) -> tuple[str, ...] | None:
    listed = document.get(name)
    if listed is None:
        return None
    if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed):
        raise ProviderMisbehaved(f"The discovery document of {issuer} has a {name} that is not a list of strings.")
    return tuple(listed)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationRequest:
    """An authorization request, with the values that its callback and tokens are checked against."""

    url: str = field(repr=False)
    redirect_uri: str
    scope: str
    state: Secret
    nonce: Secret
    code_verifier: Secret
    resource: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSet:
    """The tokens of a sign-in; times are aware UTC, based on the provider's clock if it is known."""

    access_token: Secret
    token_type: str = "Bearer"  # noqa: S105 - a type's name, not a password
    id_token: Secret | None = None
    refresh_token: Secret | None = None
    obtained_at: datetime | None = None
    expires_at: datetime | None = None
    scope: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAuthentication:
    """The form fields and headers that authenticate a client."""

    fields: Mapping[str, str | Secret]
    headers: Mapping[str, str | Secret] = field(default_factory=dict)


def resource_fields(resource: str | None) -> dict[str, str]:
    """Return the parameters for `resource`, if it is set."""
    if not resource:
        return {}
    if len(resource) > _MAX_RESOURCE_CHARACTERS or not _ABSOLUTE_URI.fullmatch(resource):
        raise UsageError("The resource must be an absolute URI without a fragment, such as https://lake.example.com.")
    return {"resource": resource}


def complete_scope(scope: str) -> str:
    """Return `scope` with `openid` included (RFC 6749 section 3.3; OpenID Connect Core 1.0 section 3.1.2.1)."""
    if not _SCOPE.fullmatch(scope):
        raise UsageError("The scope must be a list of names separated by single spaces.")
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
    """Build a code request with a new PKCE S256 verifier, state, and nonce; the state starts with `state_prefix`.

    Source: RFC 6749 section 4.1.1; RFC 7636 section 4; OpenID Connect Core 1.0 sections 3.1.2.1 and 11 (a provider may
    ignore `offline_access` unless the request prompts for consent); RFC 8707 section 2.1.

    Raises:
        ProviderMisbehaved: The provider has no authorization or token endpoint, or lists PKCE methods without S256.
        UsageError: Scope or resource is malformed, or an extra parameter would replace a protocol parameter.
    """
    metadata.require_token_endpoint()
    if metadata.authorization_endpoint is None:
        raise ProviderMisbehaved(f"The identity provider {metadata.issuer} doesn't have an authorization endpoint.")
    if metadata.pkce_methods is not None and "S256" not in metadata.pkce_methods:
        raise ProviderMisbehaved(f"The identity provider {metadata.issuer} does not support PKCE with S256.")
    if not _OWN_PARAMETERS.isdisjoint(extra_parameters):
        raise UsageError(f"These authorization parameters cannot be set: {', '.join(sorted(_OWN_PARAMETERS))}.")
    requested_scope = complete_scope(scope)
    prefixes = (state_prefix, "", "")
    state, nonce, verifier = (Secret(prefix + randomness.token_urlsafe(_RANDOM_BYTES)) for prefix in prefixes)
    parameters = {"prompt": "consent"} if "offline_access" in requested_scope.split() else {}
    asked_resource = resource_fields(resource)
    if asked_resource.keys() & extra_parameters.keys():
        raise UsageError("The resource is set twice: directly and in the authorization parameters.")
    parameters |= {**_without_empty(audience=audience), **asked_resource, **extra_parameters}
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
    """Whether a callback's query string contains this sign-in's state exactly once; compared in constant time."""
    states = [value for name, value in _parameters(query) if name == "state"]
    expected = request.state.reveal().encode()
    return len(states) == 1 and hmac.compare_digest(states[0].encode("utf-8", "surrogatepass"), expected)


def parse_callback(query: str | Secret, *, request: AuthorizationRequest, metadata: ProviderMetadata) -> Secret:
    """Return the authorization code from a callback's query.

    Source: RFC 6749 sections 4.1.2 and 4.1.2.1; RFC 9207 section 2.4 (`iss` is also checked in error responses).

    Raises:
        ProviderMisbehaved: The state is not this sign-in's, a parameter is repeated, `iss` is wrong or missing
            although the provider announced it, or there is neither a code nor an error.
        ProviderUnavailable: The provider reports that it is temporarily unavailable.
        LoginRefused: The provider reports an error, such as a user's denial.
    """
    query = query if isinstance(query, Secret) else Secret(query)  # keeps it out of tracebacks
    found = _callback_parameters(query.reveal(), request)
    if found is None:
        raise ProviderMisbehaved("The redirect has parameters that don't match this sign-in.")
    issuer = found.get("iss")
    if issuer != metadata.issuer and (issuer is not None or metadata.sends_issuer_in_callback):
        raise ProviderMisbehaved("The redirect is from a different identity provider than the sign-in.")
    if "error" in found:
        _raise_callback_error(found)
    code = usable_token(found.get("code"))
    if code is None or not 0 < len(code.reveal()) <= _MAX_CODE_CHARACTERS:
        raise ProviderMisbehaved("The redirect does not contain a usable code.")
    return code


def _callback_parameters(query: str, request: AuthorizationRequest) -> SecretObject | None:
    """Return a callback's parameters, or None if one is repeated or the state doesn't belong to this sign-in."""
    pairs = _parameters(query)
    found = SecretObject(pairs)
    return found if len(found) == len(pairs) and is_callback_of(query, request) else None


def _raise_callback_error(found: Mapping[str, object]) -> None:
    described = describe_provider_error(found["error"], found.get("error_description"))
    if found["error"] in _PASSING_ERRORS:
        raise ProviderUnavailable(f"The identity provider can't sign you in right now ({described}).")
    if found["error"] == "access_denied":
        raise LoginRefused(f"The sign-in was denied ({described}).")
    raise LoginRefused(
        f"The identity provider denied the sign-in ({described}).",
        remedy="Check the client ID, redirect URI, and scope with the identity provider's administrator.",
    )


def _parameters(query: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_CALLBACK_PARAMETERS)
    except ValueError:
        return []


def build_client_authentication(  # noqa: PLR0913 - the contents of an assertion
    supported: Collection[str] | None,
    *,
    client_id: str,
    client_credential: ClientCredential,
    assertion_audience: str,
    now: datetime,
    randomness: Randomness,
) -> ClientAuthentication:
    """Return the fields and headers that authenticate a client with a `supported` method; None means any method.

    A client without a credential is never authenticated, because many providers accept public clients without listing
    `none`. With a secret, the default is Basic (RFC 8414 section 2). The audience of an assertion is
    `assertion_audience`, regardless of the provider's endpoint that receives it. `now` is the provider's time.

    Source: RFC 6749 section 2.3.1 (Basic credentials are form-encoded before they are joined); RFC 7523 sections 2.2
    and 3; OpenID Connect Core 1.0 section 9.
    """
    if client_credential is None:
        return ClientAuthentication(fields={"client_id": client_id})
    if isinstance(client_credential, PrivateKey):
        if supported is not None and "private_key_jwt" not in supported:
            raise ConfigurationError(
                "The identity provider doesn't accept private keys.",
                key="MICROMEGAS_OIDC_PRIVATE_KEY_FILE",
                remedy="Use a client secret instead of the private key.",
            )
        who = {"iss": client_id, "sub": client_id, "aud": assertion_audience}
        claims = {**who, "jti": randomness.token_urlsafe(_ASSERTION_ID_BYTES)}
        assertion = build_assertion(client_credential, claims, now=now, lifetime_seconds=_ASSERTION_LIFETIME_SECONDS)
        return ClientAuthentication(fields={"client_id": client_id, **_assertion_fields(assertion)})
    if supported is None or "client_secret_basic" in supported:
        pair = f"{quote_plus(client_id)}:{quote_plus(client_credential.reveal())}"
        credentials = base64.b64encode(pair.encode("ascii")).decode("ascii")
        return ClientAuthentication(fields={}, headers={"Authorization": Secret(f"Basic {credentials}")})
    if "client_secret_post" in supported:
        return ClientAuthentication(fields={"client_id": client_id, "client_secret": client_credential})
    raise ConfigurationError(
        "The identity provider doesn't accept client secrets.",
        key="MICROMEGAS_OIDC_CLIENT_SECRET",
        remedy="Unset the client secret, or register the application with one.",
    )


def _assertion_fields(assertion: Secret) -> Fields:
    return {"client_assertion_type": _ASSERTION_TYPE, "client_assertion": assertion}


def build_assertion(key: PrivateKey, claims: Mapping[str, str], *, now: datetime, lifetime_seconds: int) -> Secret:
    """Sign `claims` after adding the assertion's validity period. Source: RFC 7523 section 3."""
    issued_at = int(now.timestamp())
    return sign_jwt(key, {**claims, "iat": issued_at, "exp": issued_at + lifetime_seconds})


def build_code_request(request: AuthorizationRequest, code: Secret) -> Fields:
    """Exchange a code. Source: RFC 6749 section 4.1.3; RFC 7636 section 4.5; RFC 8707 section 2.2."""
    return {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": request.redirect_uri,
        "code_verifier": request.code_verifier,
        **resource_fields(request.resource),
    }


def build_refresh_request(refresh_token: Secret, *, granted_scope: str | None, resource: str | None = None) -> Fields:
    """Request the next tokens, never with more scope than was granted.

    The scope is sent if the granted scope contains `openid`. Otherwise the provider lists only the API's own scopes
    (Entra ID), and omitting the scope requests all that was granted. Source: RFC 6749 section 6; RFC 8707 section 2.2.
    """
    scope = granted_scope if granted_scope is not None and "openid" in granted_scope.split() else None
    return {
        "grant_type": "refresh_token",
        "refresh_token": refresh_token,
        **resource_fields(resource),
        **_without_empty(scope=scope),
    }


def build_client_credentials_request(*, scope: str | None, audience: str | None, resource: str | None = None) -> Fields:
    """Request a service account's token. Source: RFC 6749 section 4.4.2; RFC 8707 section 2.2; Auth0 (`audience`)."""
    return {
        "grant_type": "client_credentials",
        **resource_fields(resource),
        **_without_empty(scope=scope, audience=audience),
    }


def build_client_assertion_request(
    assertion: Secret, *, scope: str | None, audience: str | None, resource: str | None
) -> Fields:
    """Request a service account's token with a different issuer's assertion. Source: RFC 7523 section 2.2."""
    fields = build_client_credentials_request(scope=scope, audience=audience, resource=resource)
    return {**fields, **_assertion_fields(assertion)}


def build_jwt_bearer_request(assertion: Secret) -> Fields:
    """Exchange an assertion for a token. Source: RFC 7523 section 2.1."""
    return {"grant_type": JWT_BEARER_GRANT, "assertion": assertion}


def build_token_exchange_request(
    subject_token: Secret,
    *,
    audience: str | None,
    resource: str | None,
    scope: str | None,
    subject_token_type: str = JWT_TYPE,
) -> Fields:
    """Exchange one issuer's token, which identifies the caller, for another's. Source: RFC 8693 section 2.1."""
    return {
        "grant_type": TOKEN_EXCHANGE_GRANT,
        "subject_token": subject_token,
        "subject_token_type": subject_token_type,
        **resource_fields(resource),
        **_without_empty(audience=audience, scope=scope),
    }


def build_revocation_request(token: Secret, *, kind: str) -> Fields:
    """Revoke a token; `kind` is its type hint. Source: RFC 7009 section 2.1."""
    return {"token": token, "token_type_hint": kind}


def _without_empty(**fields: str | None) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value}


def parse_token_answer(body: object, *, now: datetime, requested_scope: str | None) -> TokenSet:
    """Parse a success response received at `now`; a missing scope means the requested one (RFC 6749 section 5.1)."""
    body = secret_object(body)
    if body is None:
        raise ProviderMisbehaved("The identity provider's token response is not a JSON object.")
    access_token = read_token(body, "access_token")
    if access_token is None:
        raise ProviderMisbehaved("The identity provider's token response does not contain an access token.")
    token_type = body.get("token_type")
    if not isinstance(token_type, str) or token_type.lower() != "bearer":
        raise ProviderMisbehaved("The identity provider returned a token that isn't a bearer token.")
    scope = body.get("scope")
    if scope is not None and not isinstance(scope, str):
        raise ProviderMisbehaved("The identity provider's token response has a scope that is not a string.")
    lifetime = read_lifetime(body.get("expires_in"))
    return TokenSet(
        access_token=access_token,
        token_type=token_type,
        id_token=read_token(body, "id_token"),
        refresh_token=read_token(body, "refresh_token"),
        obtained_at=now,
        expires_at=None if lifetime is None else now + timedelta(seconds=lifetime),
        scope=scope or requested_scope,
    )


def parse_token_exchange_answer(body: object, *, now: datetime, requested_scope: str | None) -> TokenSet:
    """Parse a successful response; the issued token becomes the access token, whatever its type.

    `token_type` may be `N_A` for a token that is not an access token; `issued_token_type` must then specify its type.
    Some providers omit that type, although it is required, so only a wrong one is rejected. Source: RFC 8693 section
    2.2.1.
    """
    body = secret_object(body)
    if body is None:
        raise ProviderMisbehaved("The identity provider's token exchange response is not a JSON object.")
    issued_type, token_type = body.get("issued_token_type"), body.get("token_type")
    is_other_type = isinstance(token_type, str) and token_type.lower() == "n_a"
    if (issued_type is not None or is_other_type) and issued_type not in _BEARER_TYPES:
        raise ProviderMisbehaved(
            "The identity provider exchanged the token for one that cannot be sent to a server.",
            remedy="Set MICROMEGAS_OIDC_AUDIENCE or MICROMEGAS_OIDC_SCOPE to the audience or scope of the server's "
            "tokens.",
        )
    if is_other_type:
        body["token_type"] = "Bearer"  # noqa: S105 - a type's name, not a password
    return parse_token_answer(body, now=now, requested_scope=requested_scope)


def build_token_error(
    body: object, *, is_refresh: bool, secrets: Collection[Secret] = ()
) -> AuthenticationError | ProviderUnavailable:
    """Return the error for a rejected token request (4xx).

    After a rejected refresh, the user has to sign in again, unless the error is temporary or about the application.
    Source: RFC 6749 section 5.2.
    """
    code = body.get("error") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(code, str):
        return ProviderMisbehaved("The identity provider rejected a token request without giving a reason.")
    described = describe_provider_error(code, body.get("error_description"), secrets=secrets)
    if code in _PASSING_ERRORS:
        return ProviderUnavailable(f"The identity provider can't issue tokens right now ({described}).")
    remedy = "Check the client ID and the client secret or private key." if code in _CLIENT_ERRORS else None
    # A program that was started without the application's secret must not destroy the user's sign-in.
    if is_refresh and code not in _CLIENT_ERRORS:
        return LoginRequired(f"The sign-in has expired ({described}).")
    failed = LoginFailed(f"The identity provider didn't return a token ({described}).", remedy=remedy)
    failed.provider_code = code
    return failed


def merge_refreshed(old: TokenSet, new: TokenSet) -> TokenSet:
    """Return the new token set, completed from the old: RFC 6749 section 6; OpenID Connect Core 1.0 section 12.2."""
    return replace(
        new,
        refresh_token=new.refresh_token or old.refresh_token,
        id_token=new.id_token or old.id_token,
        scope=new.scope or old.scope,
    )


def read_token(body: SecretObject, name: str, *, answer: str = _ANSWER) -> Secret | None:
    """Return the token or code in a provider's response under `name`, or None if it is absent or empty."""
    if body.get(name) in (None, ""):
        return None
    token = usable_token(body[name])
    if token is None:
        raise ProviderMisbehaved(f"The identity provider's {answer} has a malformed {name}.")
    return token


def usable_token(value: object) -> Secret | None:
    """Return a token as a secret, or None if it is not a string, is too long, or cannot be sent in a request."""
    if not isinstance(value, str) or len(value) > _MAX_TOKEN_CHARACTERS or not value.isascii():
        return None
    return Secret(value) if value.isprintable() else None


def read_lifetime(value: object, *, answer: str = _ANSWER, name: str = "expires_in") -> float | None:
    """Return a number of seconds from a provider's response, or None."""
    if value is None:
        return None
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)  # some providers encode the number as a string
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ProviderMisbehaved(f"The identity provider's {answer} has a malformed {name}.")
    return min(float(value), _MAX_LIFETIME_SECONDS)
