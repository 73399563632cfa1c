"""Prepared statements: made for a caller, found by their handles, with the parameters bound to them.

A handle is the SQL with a comment at its end, marked for the caller who prepared it: upstream's client shows it to
people as the statement's text, and runs it as an ordinary statement. Parameters are the client's own messages, never
read here. They travel with the handle when they are few; they are also kept here, for clients that use a statement's
first handle throughout.
"""

import base64
import binascii
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Final

from micromegas_jupyter.core.system import Clock, Randomness
from micromegas_jupyter.errors import ResourcesExhausted, UsageError
from micromegas_jupyter.executors.scheduling import CallerKey
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import parse_message
from micromegas_jupyter.server.tickets import MARK_BYTES, Seals, join_parts

_PURPOSE: Final = b"prepared"
# The line break ends a comment that the SQL may end with.
_COMMENT: Final = b"\n-- prepared "
_MAX_BYTES_PER_CALLER: Final = 64 * 1024 * 1024
_MAX_TRAVELLING_BYTES: Final = 64 * 1024
_MAX_ENDED: Final = 16 * 1024
_ID_BYTES: Final = 16


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedStatement:
    """A prepared statement as it can be run."""

    sql: str = field(repr=False)
    parameters: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """What is kept of a statement; `last_used` is monotonic seconds."""

    caller: CallerKey
    parameters: tuple[bytes, ...] = field(default=(), repr=False)
    last_used: float

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.parameters))


class PreparedStatements:
    """Makes prepared statements and finds them, each for the caller who made it. Belongs to one event loop."""

    def __init__(  # noqa: PLR0913 - limits, and what they are measured with
        self,
        seals: Seals,
        *,
        max_statements: int,
        max_per_caller: int,
        idle_seconds: float,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._seals = seals
        self._max_statements = max_statements
        self._max_per_caller = max_per_caller
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._randomness = randomness
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()  # by id, the longest unused first
        self._ended: OrderedDict[bytes, None] = OrderedDict()  # ids, the oldest first

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, sql: str, caller: CallerKey) -> bytes:
        """Make a statement and return its handle."""
        statement_id = self._randomness.token_urlsafe(_ID_BYTES).encode()
        self._take_up(statement_id, caller)
        expires_at = int(self._clock.now().timestamp() + self._idle_seconds)
        return _write_handle(Handle(id=statement_id, sql=sql, expires_at=expires_at), self._seals, caller)

    def get(self, handle: bytes, caller: CallerKey) -> PreparedStatement:
        """Return a caller's own statement."""
        found, kept = self._find(handle, caller)
        parameters = unpack_frames(found.parameters) if found.parameters else kept.parameters
        if not parameters and found.has_kept_parameters:
            raise UsageError(
                "The statement's parameters were bound before the server was started again.", remedy="Bind them again."
            )
        return PreparedStatement(sql=found.sql, parameters=parameters)

    def bind(self, handle: bytes, parameters: tuple[bytes, ...], caller: CallerKey) -> bytes:
        """Bind parameters to a caller's own statement, in place of those bound before.

        Returns:
            The handle that stands for the statement with these parameters.
        """
        found, kept = self._find(handle, caller)
        bound = replace(kept, parameters=parameters)
        others = sum(
            other.size_bytes for key, other in self._kept.items() if other.caller == caller and key != found.id
        )
        if others + bound.size_bytes > _MAX_BYTES_PER_CALLER:
            raise ResourcesExhausted(
                "Your prepared statements hold too many parameters.", remedy="Close those that you no longer need."
            )
        self._kept[found.id] = bound
        packed = pack_frames(parameters)
        renewed = replace(found, parameters=packed or b"", has_kept_parameters=packed is None)
        return _write_handle(renewed, self._seals, caller)

    def close(self, handle: bytes, caller: CallerKey) -> None:
        """Forget a caller's own statement; one that is not there is as good as closed."""
        try:
            found = _read_handle(handle, self._seals, caller)
        except UsageError:
            return
        self._end(found.id)

    def _find(self, handle: bytes, caller: CallerKey) -> tuple[Handle, _Kept]:
        """Return what a handle says and what is kept of its statement, taking up one that is not known."""
        self._expire()
        found = _read_handle(handle, self._seals, caller)
        kept = self._kept.get(found.id)
        if kept is None:
            if found.id in self._ended or self._clock.now().timestamp() >= found.expires_at:
                raise _unknown_statement()
            return found, self._take_up(found.id, caller)
        used = self._kept[found.id] = replace(kept, last_used=self._clock.monotonic())
        self._kept.move_to_end(found.id)
        return found, used

    def _take_up(self, statement_id: bytes, caller: CallerKey) -> _Kept:
        self._expire()
        own = [key for key, kept in self._kept.items() if kept.caller == caller]
        if len(own) >= self._max_per_caller:
            self._end(own[0])
        elif len(self._kept) >= self._max_statements:
            raise ResourcesExhausted(
                "The server keeps as many prepared statements as it may.", remedy="Try later.", limit="prepared"
            )
        kept = self._kept[statement_id] = _Kept(caller=caller, last_used=self._clock.monotonic())
        return kept

    def _end(self, statement_id: bytes) -> None:
        self._kept.pop(statement_id, None)
        self._ended[statement_id] = None
        if len(self._ended) > _MAX_ENDED:
            self._ended.popitem(last=False)

    def _expire(self) -> None:
        oldest_allowed = self._clock.monotonic() - self._idle_seconds
        while self._kept:
            statement_id, kept = next(iter(self._kept.items()))
            if kept.last_used >= oldest_allowed:
                return
            self._end(statement_id)


def pack_frames(frames: tuple[bytes, ...]) -> bytes | None:
    """Return messages as bytes that travel with a handle or a ticket; None when they are too large for that."""
    packed = b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)
    return packed if len(packed) <= _MAX_TRAVELLING_BYTES else None


def unpack_frames(packed: bytes) -> tuple[bytes, ...]:
    """Return what `pack_frames` packed; the bytes are the server's own, under its mark."""
    frames, start = [], 0
    while start < len(packed):
        end = start + 4 + int.from_bytes(packed[start : start + 4], "big")
        frames.append(packed[start + 4 : end])
        start = end
    return tuple(frames)


def _write_handle(handle: Handle, seals: Seals, caller: CallerKey) -> bytes:
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


def _read_handle(data: bytes, seals: Seals, caller: CallerKey) -> Handle:
    """Read a handle that was written for this caller."""
    sql, _, token = data.rpartition(_COMMENT)
    try:
        sealed = base64.b64decode(token + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise _unknown_statement() from None
    if _encode(sealed) != token:  # the last character has bits that decoding drops
        raise _unknown_statement()
    mark, inner = sealed[:MARK_BYTES], sealed[MARK_BYTES:]
    if not seals.is_mark(mark, _PURPOSE, caller, join_parts(sql, inner)):
        raise _unknown_statement()
    found = parse_message(messages.IssuedStatement, inner)
    return Handle(
        id=found.id,
        sql=sql.decode(),
        expires_at=found.expires_at,
        parameters=found.parameters,
        has_kept_parameters=found.has_kept_parameters,
    )


def _unknown_statement() -> UsageError:
    """Return the error for a handle that stands for nothing."""
    return UsageError(
        "The prepared statement is not known: it was closed, or was not used for too long.",
        remedy="Prepare the statement again.",
    )


def _encode(sealed: bytes) -> bytes:
    return base64.urlsafe_b64encode(sealed).rstrip(b"=")
