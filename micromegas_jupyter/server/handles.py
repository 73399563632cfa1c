"""The handles of prepared statements: the statement itself, marked for the caller who prepared it.

It is the SQL with a comment at its end: upstream's client shows a
handle to people as the statement's text, and runs it as an ordinary statement.
"""

import base64
import binascii
from dataclasses import dataclass, field
from typing import Final

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.executors.limits import CallerKey
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import parse_message
from micromegas_jupyter.server.seals import MARK_BYTES, Seals, join_parts

_PURPOSE: Final = b"prepared"
# The line break ends a comment that the SQL may end with.
_COMMENT: Final = b"\n-- prepared "


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """What a handle says.

    Attributes:
        id: Tells statements apart; the same for all handles of one.
        sql: The statement.
        expires_at: Seconds since 1970 until which a server that has started since takes the statement up.
        parameters: The values bound to it, packed; empty for none, or for too many to travel.
        has_kept_parameters: Whether there are too many, so that only the server process that took them has them.
    """

    id: bytes
    sql: str = field(repr=False)
    expires_at: int
    parameters: bytes = field(default=b"", repr=False)
    has_kept_parameters: bool = False


def write_handle(handle: Handle, seals: Seals, caller: CallerKey) -> bytes:
    """Return the handle as it goes to the client."""
    found = messages.IssuedStatement(
        id=handle.id,
        expires_at=handle.expires_at,
        parameters=handle.parameters,
        has_kept_parameters=handle.has_kept_parameters,
    )
    sql, data = handle.sql.encode(), found.SerializeToString()
    mark = seals.mark(_PURPOSE, caller, join_parts(sql, data))
    return sql + _COMMENT + _encode(mark + data)


def read_handle(data: bytes, seals: Seals, caller: CallerKey) -> Handle:
    """Read a handle that was written for this caller.

    Raises:
        UsageError: It was not.
    """
    sql, _, token = data.rpartition(_COMMENT)
    try:
        sealed = base64.b64decode(token + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise unknown_statement() from None
    if _encode(sealed) != token:  # the last character has bits that decoding drops
        raise unknown_statement()
    mark, inner = sealed[:MARK_BYTES], sealed[MARK_BYTES:]
    if not seals.is_mark(mark, _PURPOSE, caller, join_parts(sql, inner)):
        raise unknown_statement()
    found = parse_message(messages.IssuedStatement, inner)
    return Handle(
        id=found.id,
        sql=sql.decode(),
        expires_at=found.expires_at,
        parameters=found.parameters,
        has_kept_parameters=found.has_kept_parameters,
    )


def unknown_statement() -> UsageError:
    """Return the error for a handle that stands for nothing."""
    return UsageError(
        "The prepared statement is not known: it was closed, or was not used for too long.",
        remedy="Prepare the statement again.",
    )


def _encode(sealed: bytes) -> bytes:
    return base64.urlsafe_b64encode(sealed).rstrip(b"=")
