"""Whom a server takes the caller for, as its answer to the action `MicromegasWhoAmI` says."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from micromegas_jupyter.core.json import JsonError, decode_strict_json
from micromegas_jupyter.errors import InternalError
from micromegas_jupyter.flightsql.error_details import printable_text

WHO_AM_I_ACTION: Final = "MicromegasWhoAmI"
_MAX_ANSWER_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerIdentity:
    """The caller as the server sees them.

    Attributes:
        subject: The issuer's own name of the caller, or the API key's name.
        name: A name for people, when the credential has one.
        email: The caller's address, when the credential has one.
        issuer: Who vouches for the caller.
        auth_type: How the caller proved who they are: `oidc`, `api_key` or `none`.
        is_admin: Whether the server's administrator list names the caller.
        expires_at: When the credential ends (aware), None when it does not.
        groups: The caller's groups, as many as fit into the answer.
        group_count: How many the server counts.
        reads_nothing: Whether no role lets the caller read any table.
    """

    subject: str
    issuer: str
    auth_type: str
    is_admin: bool
    name: str | None = None
    email: str | None = None
    expires_at: datetime | None = None
    groups: tuple[str, ...] = ()
    group_count: int = 0
    reads_nothing: bool = False


def parse_server_identity(data: bytes) -> ServerIdentity:
    """Read the server's answer."""
    try:
        answer = _decode(data)
        groups = _texts(answer.get("groups"))
        return ServerIdentity(
            subject=_text(answer["subject"]),
            issuer=_text(answer["issuer"]),
            auth_type=_text(answer["auth_type"]),
            is_admin=answer["is_admin"] is True,
            name=_optional_text(answer.get("name")),
            email=_optional_text(answer.get("email")),
            expires_at=_time(answer.get("expires_at")),
            groups=groups,
            group_count=max(_count(answer.get("group_count")), len(groups)),
            reads_nothing=answer.get("reads_nothing") is True,
        )
    except (ValueError, TypeError, KeyError, JsonError) as error:
        raise InternalError("The server's answer to who you are cannot be read.") from error


def _decode(data: bytes) -> dict[str, object]:
    if len(data) > _MAX_ANSWER_BYTES:
        raise ValueError("too large")
    answer = decode_strict_json(data.decode("utf-8"))
    if not isinstance(answer, dict):
        raise TypeError("not an object")
    return answer


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return " ".join(printable_text(value).split())  # one line, whatever a server says


def _optional_text(value: object) -> str | None:
    return None if value is None else _text(value)


def _texts(value: object) -> tuple[str, ...]:
    if value is None:
        return ()  # a server that does not tell
    if not isinstance(value, list):
        raise TypeError("not a list")
    return tuple(_text(entry) for entry in value)


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _time(value: object) -> datetime | None:
    text = _optional_text(value)
    if text is None:
        return None
    at = datetime.fromisoformat(text)
    if at.utcoffset() is None:
        raise ValueError("no offset")
    return at
