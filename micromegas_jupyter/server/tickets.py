"""What the server signs for a caller and accepts again: query ids, tickets and prepared statements.

A prepared statement's handle is the SQL with a signed comment at its end: upstream's client shows it to people as the
statement's text, and runs it as an ordinary statement. Parameters are the client's own messages, never decoded here.
"""

import base64
import binascii
import hashlib
import hmac
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from micromegas_jupyter.core.system import Clock, Randomness
from micromegas_jupyter.errors import ResourcesExhausted, UsageError
from micromegas_jupyter.executors.limits import CallerKey
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import issued_ticket, parse_message

MARK_BYTES: Final = hashlib.sha256().digest_size
SHORTEST_KEY: Final = 32
_UUID_BYTES: Final = 16
_ASK_AGAIN: Final = "Ask for a new ticket with GetFlightInfo."
_TICKET: Final = b"ticket"
_ID_BYTES: Final = 16
_PREPARED: Final = b"prepared"
# The line break ends a comment that the SQL may end with.
_COMMENT: Final = b"\n-- prepared "
_MAX_BYTES_PER_CALLER: Final = 64 * 1024 * 1024
_MAX_TRAVELLING_BYTES: Final = 64 * 1024
_MAX_ENDED: Final = 16 * 1024


def new_query_id(randomness: Randomness) -> str:
    """Return a random UUID, the form that upstream's query ids have."""
    drawn = bytearray(base64.urlsafe_b64decode(randomness.token_urlsafe(_UUID_BYTES) + "=="))
    # Version and variant of RFC 9562, section 5.4; `uuid.UUID` takes several times as long for each call.
    drawn[6] = drawn[6] & 0x0F | 0x40
    drawn[8] = drawn[8] & 0x3F | 0x80
    digits = drawn.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class Seals:
    """Marks data for callers, and checks marks.

    The mark is an HMAC-SHA256 (RFC 2104) over a purpose, the caller and the data, with a key that only the server has.
    What is marked can be read by anybody; it cannot be made, changed or used by anybody else.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < SHORTEST_KEY:
            raise ValueError(f"a ticket key has at least {SHORTEST_KEY} bytes")
        self._key = key

    def mark(self, purpose: bytes, caller: CallerKey, data: bytes) -> bytes:
        """Return the mark of `data` for this purpose and caller (issuer, subject)."""
        return hmac.digest(self._key, join_parts(purpose, *map(str.encode, caller), data), hashlib.sha256)

    def is_mark(self, mark: bytes, purpose: bytes, caller: CallerKey, data: bytes) -> bool:
        """Tell whether `mark` is the one of `data`; takes the same time for every wrong mark."""
        return hmac.compare_digest(mark, self.mark(purpose, caller, data))


def join_parts(*parts: bytes) -> bytes:
    """Join byte strings so that other parts cannot give the same whole."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """A ticket as it goes to the client, and its id; `expires_at` is aware, in UTC."""

    id: bytes
    data: bytes = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketContent:
    """What a ticket stands for; `id` is the same after a renewal, `parameters` are packed values, empty for none."""

    id: bytes
    sql: str = field(repr=False)
    expires_at: datetime
    parameters: bytes = field(default=b"", repr=False)


class Tickets:
    """Issues tickets and reads them again."""

    def __init__(self, seals: Seals, *, life_seconds: float, clock: Clock, randomness: Randomness) -> None:
        self._seals = seals
        self._life = timedelta(seconds=life_seconds)
        self._clock = clock
        self._randomness = randomness

    def issue(self, sql: str, caller: CallerKey, parameters: bytes = b"") -> Ticket:
        """Return a new ticket for a statement with packed values."""
        flight_id = self._randomness.token_urlsafe(_ID_BYTES).encode()
        return self._write(messages.IssuedStatement(id=flight_id, sql=sql, parameters=parameters), caller)

    def renew(self, sealed: bytes, caller: CallerKey) -> Ticket:
        """Return a ticket for the same flight with a full life."""
        found = self.read(sealed, caller)
        return self._write(messages.IssuedStatement(id=found.id, sql=found.sql, parameters=found.parameters), caller)

    def read(self, sealed: bytes, caller: CallerKey, *, or_expired: bool = False) -> TicketContent:
        """Return what a caller's own ticket stands for."""
        mark, data = sealed[:MARK_BYTES], sealed[MARK_BYTES:]
        if not self._seals.is_mark(mark, _TICKET, caller, data):
            raise UsageError(
                "The ticket was not issued to you, or the server has been started again since.", remedy=_ASK_AGAIN
            )
        found = parse_message(messages.IssuedStatement, data)
        expires_at = datetime.fromtimestamp(found.expires_at, UTC)
        if self._clock.now() >= expires_at and not or_expired:
            raise UsageError("The ticket has expired.", remedy=_ASK_AGAIN)
        return TicketContent(id=found.id, sql=found.sql, expires_at=expires_at, parameters=found.parameters)

    def _write(self, found: Any, caller: CallerKey) -> Ticket:
        expires_at = (self._clock.now() + self._life).replace(microsecond=0)
        found.expires_at = int(expires_at.timestamp())
        data: bytes = found.SerializeToString()
        return Ticket(
            id=found.id, data=issued_ticket(self._seals.mark(_TICKET, caller, data) + data), expires_at=expires_at
        )


def write_endpoint(ticket: Ticket) -> Any:
    """Return the endpoint of a flight with this ticket; it may be read several times until the ticket expires."""
    endpoint = messages.FlightEndpoint(ticket=messages.Ticket(ticket=ticket.data))
    endpoint.expiration_time.seconds = int(ticket.expires_at.timestamp())
    return endpoint


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
    mark = seals.mark(_PREPARED, caller, join_parts(sql, data))
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
    if not seals.is_mark(mark, _PREPARED, caller, join_parts(sql, inner)):
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
