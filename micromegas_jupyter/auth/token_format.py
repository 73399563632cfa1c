"""Upstream's token file as text, and the values in it.

Reading and writing files safely is `private_files`'s job; when to do so is `token_store`'s.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.errors import LoginRequired
from micromegas_jupyter.oidc.token import TokenSet
from micromegas_jupyter.strict_json import JsonError, decode_strict_json

_MAX_EPOCH_SECONDS = 253_000_000_000  # the year 9987: what a datetime can hold, with room for sums


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLogin:
    """One sign-in as it is kept.

    Attributes:
        issuer: The provider that it was made at, and the only one its tokens may be sent to.
        client_id: The application that it was made for.
        tokens: The tokens.
        audience: What was asked for.
        scope: What was asked for; kept beside the token file, because upstream drops names it does not know.
    """

    issuer: str
    client_id: str
    tokens: TokenSet
    audience: str | None = None
    scope: str | None = None


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
    issuer, client_id, token = document.get("issuer"), document.get("client_id"), document.get("token")
    audience = document.get("audience")
    if not isinstance(issuer, str) or not isinstance(client_id, str) or not isinstance(token, dict):
        raise LoginRequired("The stored sign-in cannot be read.")
    return StoredLogin(
        issuer=issuer,
        client_id=client_id,
        tokens=parse_token(token),
        audience=audience if isinstance(audience, str) and audience else None,
    )


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


def build_extras(login: StoredLogin) -> str:
    """Return the text of the file beside the token file: what upstream's format has no place for."""
    return json.dumps({"issuer": login.issuer, "client_id": login.client_id, "scope": login.scope}, indent=2)


def parse_extras_scope(text: str, *, login: StoredLogin) -> str | None:
    """Return the scope that was asked for, None when the text is not about this sign-in."""
    try:
        document = _object(text)
    except LoginRequired:
        return None
    if (document.get("issuer"), document.get("client_id")) != (login.issuer, login.client_id):
        return None
    scope = document.get("scope")
    return scope if isinstance(scope, str) and scope else None


def _object(text: str) -> dict[str, object]:
    try:
        document = decode_strict_json(text)
    except JsonError:
        raise LoginRequired("The stored sign-in is damaged.") from None
    if not isinstance(document, dict):
        raise LoginRequired("The stored sign-in cannot be read.")
    return document


def _secret(token: Mapping[str, object], name: str) -> Secret | None:
    text = token.get(name)
    if text is None or text == "":
        return None
    if not isinstance(text, str) or not text.isascii() or not text.isprintable():
        raise LoginRequired("The stored sign-in holds a damaged token.")
    return Secret(text)


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
