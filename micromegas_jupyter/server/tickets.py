"""What the server hands to a caller and knows again: query ids, and tickets for one statement and a short time.

Tickets that clients make themselves, with SQL in them, are read by `flightsql.commands`; they give no more than the
caller could ask for anyway.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from micromegas_jupyter.core.system import Clock, Randomness
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.executors.scheduling import CallerKey
from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import issued_ticket, parse_message

MARK_BYTES: Final = hashlib.sha256().digest_size
SHORTEST_KEY: Final = 32
_UUID_BYTES: Final = 16
_ASK_AGAIN: Final = "Ask for a new ticket with GetFlightInfo."
_PURPOSE: Final = b"ticket"
_ID_BYTES: Final = 16


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
        if not self._seals.is_mark(mark, _PURPOSE, caller, data):
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
            id=found.id, data=issued_ticket(self._seals.mark(_PURPOSE, caller, data) + data), expires_at=expires_at
        )


def write_endpoint(ticket: Ticket) -> Any:
    """Return the endpoint of a flight with this ticket; it may be read several times until the ticket expires."""
    endpoint = messages.FlightEndpoint(ticket=messages.Ticket(ticket=ticket.data))
    endpoint.expiration_time.seconds = int(ticket.expires_at.timestamp())
    return endpoint
