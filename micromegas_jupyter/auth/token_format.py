"""Upstream's token file as text, and the values in it.

Reading and writing files safely is `private_files`'s job; when to do so is `token_store`'s.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from micromegas_jupyter.auth.sign_in_entry import SignInEntry
from micromegas_jupyter.core.json import JsonError, decode_strict_json
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.secrets import SecretObject, secret_object
from micromegas_jupyter.errors import LoginRequired
from micromegas_jupyter.oidc.tokens import TokenSet

_MAX_EPOCH_SECONDS = 253_000_000_000  # the year 9987: what a datetime can hold, with room for sums
_MAX_OFFSET_SECONDS = 86_400.0  # a clock that is further off than a day is not allowed for, but set right


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLogin:
    """One sign-in as it is kept.

    Attributes:
        issuer: The provider that it was made at, and the only one its tokens may be sent to.
        client_id: The application that it was made for.
        tokens: The tokens.
        audience: What was asked for.
        scope: What was asked for; kept beside the token file, because upstream drops names it does not know.
        resource: What was asked for in place of an audience (RFC 8707); kept beside the token file.
        clock_offset_seconds: How far the provider's clock was ahead of this machine's when the tokens came; kept
            beside the token file.
    """

    issuer: str
    client_id: str
    tokens: TokenSet
    audience: str | None = None
    scope: str | None = None
    resource: str | None = None
    clock_offset_seconds: float = 0.0

    def matches(
        self,
        *,
        issuer: str,
        client_id: str,
        audience: str | None,
        scope: str | None,
        resource: str | None = None,
    ) -> bool:
        """Whether this is the sign-in that one would get by asking for the same.

        A scope that is not known, as upstream leaves it, fits any.
        """
        asked = SignInEntry(issuer=issuer, client_id=client_id, audience=audience, scope=scope, resource=resource)
        return self.entry.answers(asked)

    @property
    def entry(self) -> SignInEntry:
        """What it was asked for."""
        return SignInEntry(
            issuer=self.issuer,
            client_id=self.client_id,
            audience=self.audience,
            scope=self.scope,
            resource=self.resource,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What the file beside the token file adds to a sign-in."""

    scope: str | None = None
    resource: str | None = None
    clock_offset_seconds: float = 0.0


def build_token_file(login: StoredLogin) -> str:
    """Return the text of the token file: upstream's names, indented by two, without any client secret."""
    document: dict[str, object] = {
        "issuer": login.issuer,
        "client_id": login.client_id,
        "token": build_token(login.tokens),
    }
    if login.audience:
        document["audience"] = login.audience
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
    """Read a token file; names that are not known are left out.

    Raises:
        LoginRequired: It is not a token file.
    """
    document = _object(text)
    entry, token = _entry(document), secret_object(document.get("token"))
    if token is None:
        raise LoginRequired("The stored sign-in cannot be read.")
    return StoredLogin(
        issuer=entry.issuer, client_id=entry.client_id, tokens=parse_token(token), audience=entry.audience
    )


def parse_entry(text: str) -> SignInEntry:
    """Read whose sign-in a token file holds, whatever its tokens are worth.

    Raises:
        LoginRequired: It is not a token file.
    """
    return _entry(_object(text))


def parse_token(token: Mapping[str, object]) -> TokenSet:
    """Read upstream's dictionary of tokens.

    Raises:
        LoginRequired: It holds no access token, or a token that is not text.
    """
    access_token = _secret(token, "access_token")
    if access_token is None:
        raise LoginRequired("The stored sign-in holds no token.")
    token_type, scope = token.get("token_type"), token.get("scope")
    expires_at = _moment(token.get("expires_at"))
    lifetime_seconds = _number(token.get("expires_in"))
    obtained_at = None
    if expires_at is not None and lifetime_seconds is not None:
        obtained_at = expires_at - timedelta(seconds=min(lifetime_seconds, expires_at.timestamp()))
    return TokenSet(
        access_token=access_token,
        token_type=token_type if isinstance(token_type, str) else "Bearer",
        id_token=_secret(token, "id_token"),
        refresh_token=_secret(token, "refresh_token"),
        obtained_at=obtained_at,
        expires_at=expires_at,
        scope=scope if isinstance(scope, str) and scope else None,
    )


def extras_of(login: StoredLogin) -> Extras:
    """Return what upstream's format has no place for."""
    return Extras(scope=login.scope, resource=login.resource, clock_offset_seconds=login.clock_offset_seconds)


def with_extras(login: StoredLogin, extras: Extras) -> StoredLogin:
    """Return the sign-in with what is kept beside it."""
    return replace(
        login,
        scope=extras.scope,
        resource=extras.resource,
        clock_offset_seconds=extras.clock_offset_seconds,
    )


def build_extras(login: StoredLogin) -> str:
    """Return the text of the file beside the token file: what upstream's format has no place for."""
    document = {
        "issuer": login.issuer,
        "client_id": login.client_id,
        "audience": login.audience,
        "scope": login.scope,
        "resource": login.resource,
        "clock_offset_seconds": login.clock_offset_seconds,
    }
    return json.dumps(document, indent=2)


def parse_extras(text: str, *, entry: SignInEntry) -> Extras:
    """Read the file beside the token file; nothing is taken from one that is about another sign-in or damaged.

    The tokens are not compared: what was asked for stays true when upstream renews them.
    """
    try:
        document = _object(text)
        about = _entry(document)
    except LoginRequired:
        return Extras()
    if (about.issuer, about.client_id) != (entry.issuer, entry.client_id):
        return Extras()
    if "audience" in document and about.audience != entry.audience:
        return Extras()
    return Extras(
        scope=_text(document.get("scope")),
        resource=_text(document.get("resource")),
        clock_offset_seconds=_offset(document.get("clock_offset_seconds")),
    )


def _entry(document: Mapping[str, object]) -> SignInEntry:
    issuer, client_id = document.get("issuer"), document.get("client_id")
    if not isinstance(issuer, str) or not isinstance(client_id, str):
        raise LoginRequired("The stored sign-in cannot be read.")
    return SignInEntry(issuer=issuer, client_id=client_id, audience=_text(document.get("audience")))


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


def _offset(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return 0.0
    return float(value) if abs(value) <= _MAX_OFFSET_SECONDS else 0.0


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and 0 <= number < _MAX_EPOCH_SECONDS else None


def _moment(value: object) -> datetime | None:
    seconds = _number(value)
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
