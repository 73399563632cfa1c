"""The credential of a call: fetched before the call is made, checked, renewed at most once; what a refused one says.

A provider that fails stops the call here: asked from inside the Flight library its exception would be swallowed and the
call would go out without a credential.
"""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeVar

from micromegas_jupyter.client.address import ServerAddress
from micromegas_jupyter.client.headers import MAX_HEADER_VALUE_BYTES, Header, build_header
from micromegas_jupyter.core.json import JsonError, decode_strict_json
from micromegas_jupyter.core.protocols import AuthProvider, Secret
from micromegas_jupyter.errors import LoginRequired, MicromegasError, ProviderUnavailable, UsageError
from micromegas_jupyter.flightsql.error_details import printable_text
from micromegas_jupyter.oidc.claims import expiry_of
from micromegas_jupyter.oidc.jws import TokenProblem

_AUTHORIZATION: Final = b"authorization"
_SCHEME: Final = "Bearer "
_SECRET_NAME: Final = re.compile(rb"auth|cookie|key|token|secret|password|credential|session")
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What one call carries to say who makes it; empty when there is nothing to say."""

    headers: tuple[Header, ...] = field(default=(), repr=False)
    token: Secret | None = None

    @property
    def is_given(self) -> bool:
        """Whether the call carries an `authorization` header."""
        return any(key == _AUTHORIZATION for key, _ in self.headers)


class CredentialSource:
    """Gives the credential of each call: a token of the provider, or static headers where there is no provider."""

    def __init__(self, provider: AuthProvider | None, static_headers: tuple[Header, ...] = ()) -> None:
        self._provider = provider
        self._static = Credential(headers=static_headers)

    @property
    def carries_secret(self) -> bool:
        """Whether calls carry a credential, or a header whose name says that it may be one."""
        return self._provider is not None or any(_SECRET_NAME.search(key) for key, _ in self._static.headers)

    def fetch(self) -> Credential:
        """Return the credential of the call that is about to be made."""
        if self._provider is None:
            return self._static
        token = _check_token(_ask(self._provider.get_token))
        return Credential(headers=(build_header(_AUTHORIZATION, _SCHEME + token),), token=Secret(token))

    def renew(self, refused: Credential) -> Credential | None:
        """Return a fresh credential in place of one that a server refused, or None when there is no other."""
        invalidate: Callable[[str], object] | None = getattr(self._provider, "invalidate", None)
        token = refused.token
        if token is None or invalidate is None:
            return None
        _ask(lambda: invalidate(token.reveal()))
        renewed = self.fetch()
        return None if renewed.token == token else renewed


def check_plaintext(address: ServerAddress, source: CredentialSource, *, allow_plaintext: bool) -> None:
    """Refuse to send credentials over plain text to another machine."""
    if address.is_encrypted or address.is_loopback or not source.carries_secret or allow_plaintext:
        return
    raise UsageError(
        f"The connection to {address.name} is not encrypted: anybody on the way could read the token.",
        remedy="Use grpc+tls://, or pass allow_plaintext=True where the way is safe.",
    )


def check_provider(provider: object) -> AuthProvider | None:
    """Return the provider when it can give tokens."""
    if provider is None or isinstance(provider, AuthProvider):
        return provider
    raise UsageError("The auth_provider has no get_token method.", remedy="Pass a provider of micromegas_jupyter.auth.")


def _ask(question: Callable[[], _T]) -> _T:
    try:
        return question()
    except MicromegasError:
        raise
    except OSError as error:  # what requests, sockets and files raise
        raise ProviderUnavailable("The auth provider could not reach what it needs.") from error
    except Exception as error:
        raise LoginRequired(f"The auth provider gave no token ({type(error).__name__}).") from error


def _check_token(token: object) -> str:
    if isinstance(token, str) and 0 < len(token) <= MAX_HEADER_VALUE_BYTES - len(_SCHEME) and _TOKEN.fullmatch(token):
        return token
    raise UsageError(
        "What the auth provider gave is not a bearer token.",
        remedy="A token is printable ASCII without blanks, of at most 16 kB.",
    )


_MAX_FIELD_CHARACTERS: Final = 200
_JWT_PARTS: Final = 3


def read_claims(token: str) -> Mapping[str, object] | None:
    """Return what a JWT says about itself, for the person who holds it: nothing is verified. None when it is none.

    The header is not looked at: a token of a kind that no server accepts is what a person wants to know about.
    """
    parts = token.split(".")
    if len(parts) != _JWT_PARTS:
        return None
    try:
        claims = decode_strict_json(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)).decode("utf-8"))
    except (ValueError, JsonError):  # the first is what base64 and UTF-8 raise, too
        return None
    return claims if isinstance(claims, dict) else None


def claimed_end(claims: Mapping[str, object] | None) -> datetime | None:
    """Return when a token says that it ends (aware UTC); None when it does not say."""
    try:
        return None if claims is None else expiry_of(claims)
    except TokenProblem:
        return None


def describe_token(token: Secret, *, now: datetime) -> str:
    """Return sentences on a JWT's audience, issuer and end; empty when it is none."""
    claims = read_claims(token.reveal()) or {}
    audience, issuer, ends = claims.get("aud"), claims.get("iss"), claimed_end(claims)
    if isinstance(audience, list):
        audience = ", ".join(str(entry) for entry in audience)
    facts = []
    if isinstance(audience, str) and isinstance(issuer, str):
        facts.append(f'The token is for audience "{_short(audience)}", from {_short(issuer)}.')
    if ends is not None and ends <= now:
        facts.append(f"It ended at {ends:%Y-%m-%d %H:%M} UTC.")
    return " ".join(facts)


def has_ended(token: Secret, *, now: datetime) -> bool:
    """Whether a JWT says that it ended; False when it is none."""
    ends = claimed_end(read_claims(token.reveal()))
    return ends is not None and ends <= now


def _short(text: str) -> str:
    return printable_text(text)[:_MAX_FIELD_CHARACTERS]
