"""The token file in upstream's format, and the values in it."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from micromegas_jupyter.core.json import JsonError, decode_strict_json
from micromegas_jupyter.core.system import Secret, SecretObject, secret_object
from micromegas_jupyter.errors import LoginRequired
from micromegas_jupyter.oidc.authorization import TokenSet

_MAX_EPOCH_SECONDS = 253_000_000_000  # the year 9987: what a datetime can hold, with room for sums


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginKey:
    """What a sign-in is requested with; sign-ins with different keys never replace each other.

    Attributes:
        issuer: The provider.
        client_id: The application.
        audience: The API, at providers that want it named (Auth0).
        scope: The requested scope; None when unknown.
        resource: The API, at providers that follow RFC 8707.
    """

    issuer: str
    client_id: str
    audience: str | None = None
    scope: str | None = None
    resource: str | None = None

    @property
    def digest(self) -> str:
        """Twelve hex digits that differ between keys; part of file names, so it never changes."""
        scope = " ".join(sorted((self.scope or "").split()))
        parts = [self.issuer, self.client_id, self.audience or "", scope]
        if self.resource:
            parts.append(self.resource)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]

    def satisfies(self, requested: "LoginKey") -> bool:
        """Whether a stored sign-in with this key is what a sign-in with `requested` would get.

        An unknown stored scope, as upstream leaves it, satisfies any. The order of a scope's words says nothing
        (RFC 6749 section 3.3).
        """
        same = ("issuer", "client_id", "audience")
        if any((getattr(self, name) or None) != (getattr(requested, name) or None) for name in same):
            return False
        if self.scope is None and self.resource is None:
            return True
        if self.resource != (requested.resource or None):
            return False
        return self.scope is None or requested.scope is None or set(self.scope.split()) == set(requested.scope.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLogin:
    """One sign-in as it is stored.

    Attributes:
        key: What it was requested with. Its tokens may be sent to this issuer only.
        tokens: The tokens.
    """

    key: LoginKey
    tokens: TokenSet


def build_token_file(login: StoredLogin) -> str:
    """Return the text of the token file: upstream's names, indented by two, without any client secret."""
    document: dict[str, object] = {
        "issuer": login.key.issuer,
        "client_id": login.key.client_id,
        "token": build_token(login.tokens),
    }
    if login.key.audience:
        document["audience"] = login.key.audience
    return json.dumps(document, indent=2)


def build_token(tokens: TokenSet) -> dict[str, object]:
    """Return the tokens as upstream's dictionary; times are whole seconds, as Authlib writes them."""
    found: dict[str, object] = {"access_token": tokens.access_token.reveal(), "token_type": tokens.token_type}
    if tokens.id_token is not None:
        found["id_token"] = tokens.id_token.reveal()
    if tokens.refresh_token is not None:
        found["refresh_token"] = tokens.refresh_token.reveal()
    if tokens.scope is not None:
        found["scope"] = tokens.scope
    if tokens.expires_at is not None:
        found["expires_at"] = int(tokens.expires_at.timestamp())
        if tokens.obtained_at is not None:
            found["expires_in"] = int((tokens.expires_at - tokens.obtained_at).total_seconds())
    return found


def parse_token_file(text: str) -> StoredLogin:
    """Read a token file; unknown members are ignored."""
    document = _object(text)
    key, token = _key(document), secret_object(document.get("token"))
    if token is None:
        raise LoginRequired("The stored sign-in cannot be read.")
    return StoredLogin(key=key, tokens=parse_token(token))


def parse_token(token: Mapping[str, object]) -> TokenSet:
    """Read upstream's dictionary of tokens."""
    access_token = _secret(token, "access_token")
    if access_token is None:
        raise LoginRequired("The stored sign-in holds no token.")
    token_type = token.get("token_type")
    expires_in, expires_at_seconds = _number(token.get("expires_in")), _number(token.get("expires_at"))
    expires_at = obtained_at = None
    if expires_at_seconds is not None:
        expires_at = datetime.fromtimestamp(expires_at_seconds, UTC)
        if expires_in is not None:
            obtained_at = expires_at - timedelta(seconds=min(expires_in, expires_at_seconds))
    return TokenSet(
        access_token=access_token,
        token_type=token_type if isinstance(token_type, str) else "Bearer",
        id_token=_secret(token, "id_token"),
        refresh_token=_secret(token, "refresh_token"),
        obtained_at=obtained_at,
        expires_at=expires_at,
        scope=_text(token.get("scope")),
    )


def build_key(key: LoginKey) -> dict[str, object]:
    """Return a sign-in's key as a document: the file beside the token file, or in place of it for a keyring."""
    return {
        "issuer": key.issuer,
        "client_id": key.client_id,
        "audience": key.audience,
        "scope": key.scope,
        "resource": key.resource,
    }


def parse_key(text: str) -> LoginKey:
    """Read the key in a token file (whatever its tokens are worth) or in a document of `build_key`."""
    return _key(_object(text))


def add_extras(key: LoginKey, extras: str | None) -> LoginKey:
    """Return the key of a token file with scope and resource, which upstream's format has no place for.

    They come from the file beside it, unless that is damaged or about another sign-in. The tokens are not compared:
    what was requested stays true when upstream refreshes them.
    """
    bare = replace(key, scope=None, resource=None)
    try:
        found = parse_key(extras or "")
    except LoginRequired:
        return bare
    return found if replace(found, scope=None, resource=None) == bare else bare


def _key(document: Mapping[str, object]) -> LoginKey:
    issuer, client_id = document.get("issuer"), document.get("client_id")
    if not isinstance(issuer, str) or not isinstance(client_id, str):
        raise LoginRequired("The stored sign-in cannot be read.")
    return LoginKey(
        issuer=issuer,
        client_id=client_id,
        audience=_text(document.get("audience")),
        scope=_text(document.get("scope")),
        resource=_text(document.get("resource")),
    )


def _object(text: str) -> SecretObject:
    try:
        document = secret_object(decode_strict_json(text))
    except JsonError:
        raise LoginRequired("The stored sign-in is damaged.") from None
    if document is None:
        raise LoginRequired("The stored sign-in cannot be read.")
    return document


def _secret(token: Mapping[str, object], name: str) -> Secret | None:
    if token.get(name) is None or token[name] == "":
        return None
    if not _is_token(token[name]):
        raise LoginRequired("The stored sign-in holds a damaged token.")
    return Secret(str(token[name]))


def _is_token(value: object) -> bool:
    return isinstance(value, str) and value.isascii() and value.isprintable()


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and 0 <= number < _MAX_EPOCH_SECONDS else None
