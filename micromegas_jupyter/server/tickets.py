"""Signed data that callers return later: tickets and prepared statements.

A handle is the SQL with a signed comment at its end, because upstream's client displays it as the statement and runs
it. Small parameters are part of it; all are stored here, too, for clients that reuse a statement's first handle.
"""

import base64
import binascii
import hashlib
import hmac
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from secrets import token_urlsafe
from typing import Any, Final

from cachetools import LRUCache, TTLCache

from micromegas_jupyter.core.files import FileWatch, read_secret_file
from micromegas_jupyter.core.system import Clock, HiddenBytes, start_thread
from micromegas_jupyter.errors import ConfigurationError, ResourcesExhausted, UsageError
from micromegas_jupyter.executors.scheduling import CallerKey
from micromegas_jupyter.flightsql.commands import issued_ticket, messages, parse_message
from micromegas_jupyter.server.settings import FlightServerSettings

MIN_KEY_BYTES: Final = 32
_WATCH_SECONDS: Final = 1.0
_MAX_KEYS: Final = 2
_MAX_KEY_BYTES: Final = 1024
_KEY_FILE_SETTING: Final = "--ticket-key-file"
_KEY_FILE_REMEDY: Final = "Write one key a line, the newest first, each as `openssl rand -hex 32` makes it."
_LOG: Final = logging.getLogger("micromegas_jupyter.server")
_SIGNATURE_BYTES: Final = hashlib.sha256().digest_size
_ID_BYTES: Final = 16
_REQUEST_AGAIN: Final = "Ask for a new ticket with GetFlightInfo."
_TICKET: Final = b"ticket"
_PREPARED: Final = b"prepared"
# The line break ends a comment at the end of the SQL.
_COMMENT: Final = b"\n-- prepared "
_MAX_BYTES_PER_CALLER: Final = 64 * 1024 * 1024
_MAX_BYTES: Final = 256 * 1024 * 1024
_MAX_TRAVELLING_BYTES: Final = 64 * 1024
_MAX_ENDED: Final = 16 * 1024


def join_parts(*parts: bytes) -> bytes:
    """Join byte strings unambiguously."""
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


class Signer:
    """Signs and verifies callers' data: an HMAC-SHA256 (RFC 2104) over purpose, caller, and data.

    `keys` returns the current keys: the first signs, and each verifies.
    """

    def __init__(self, keys: Callable[[], Sequence[bytes]]) -> None:
        self._keys = keys

    def sign(self, purpose: bytes, caller: CallerKey, data: bytes) -> bytes:
        """Return the signature of `data` for this purpose and caller (issuer, subject)."""
        return _sign(self._keys()[0], purpose, caller, data)

    def is_valid(self, signature: bytes, purpose: bytes, caller: CallerKey, data: bytes) -> bool:
        """Whether `signature` is valid for `data`; takes the same time for all invalid signatures."""
        return any(hmac.compare_digest(signature, _sign(key, purpose, caller, data)) for key in self._keys())


def _sign(key: bytes, purpose: bytes, caller: CallerKey, data: bytes) -> bytes:
    return hmac.digest(key, join_parts(purpose, *map(str.encode, caller), data), hashlib.sha256)


class TicketKeyFile:
    """Reads a key file and rereads it when it changes; an unusable file leaves the previous keys in effect."""

    def __init__(self, path: Path) -> None:
        self._path = path.expanduser()
        self._watch = FileWatch((self._path,), follows_links=True)
        self._refused_marks: object = None
        #: Newest first; the newest key signs, and both verify.
        self.keys = read_ticket_keys(self._path)
        self._stopping = threading.Event()

    def start(self) -> None:
        """Watch for changes from now on, on a separate thread."""
        start_thread(self._run, name="micromegas-ticket-keys")

    def stop(self) -> None:
        """Stop watching; repeated calls do nothing."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(_WATCH_SECONDS):
            self.look_for_changes()

    def look_for_changes(self) -> None:
        """Reread the file if it has changed; use on one thread only."""
        if not self._watch.has_changed():
            return
        try:
            found = read_ticket_keys(self._path)
        except ConfigurationError as error:
            if self._watch.marks != self._refused_marks:  # logged once per state of the file
                self._refused_marks = self._watch.marks
                _LOG.error("The changed ticket keys cannot be used; the former stay.", extra={"why": error.what})
            return
        self._refused_marks = None
        if found != self.keys:
            self.keys = found
            _LOG.info("The ticket keys were read again.", extra={"keys": len(found)})


def read_ticket_keys(path: Path) -> tuple[bytes, ...]:
    """Read a file's one or two keys; raise ConfigurationError if it is unusable or others can read it."""
    text = read_secret_file(path, setting=_KEY_FILE_SETTING)
    keys = tuple(HiddenBytes(line.strip().encode()) for line in text.reveal().splitlines() if line.strip())
    if not 1 <= len(keys) <= _MAX_KEYS:
        raise ConfigurationError(
            f"The file that {_KEY_FILE_SETTING} specifies contains {len(keys)} keys instead of one or two.",
            key=_KEY_FILE_SETTING,
            remedy=_KEY_FILE_REMEDY,
        )
    if not all(MIN_KEY_BYTES <= len(key) <= _MAX_KEY_BYTES for key in keys):
        raise ConfigurationError(
            f"Each key in the file that {_KEY_FILE_SETTING} specifies must have {MIN_KEY_BYTES} to "
            f"{_MAX_KEY_BYTES} bytes.",
            key=_KEY_FILE_SETTING,
            remedy=_KEY_FILE_REMEDY,
        )
    return keys


class Tickets:
    """Issues and reads tickets, each valid for one statement and a short time."""

    def __init__(self, signer: Signer, *, life_seconds: float, clock: Clock) -> None:
        self._signer = signer
        self._life = timedelta(seconds=life_seconds)
        self._clock = clock

    def issue(self, sql: str, caller: CallerKey, parameters: tuple[bytes, ...] = ()) -> Any:
        """Return an endpoint with a new ticket for a statement and its values; it can be read more than once."""
        flight_id = token_urlsafe(_ID_BYTES).encode()
        return self._build_endpoint(messages.IssuedStatement(id=flight_id, sql=sql, parameters=parameters), caller)

    def renew(self, signed: bytes, caller: CallerKey) -> Any:
        """Return an endpoint with a ticket for the same flight and a new lifetime."""
        return self._build_endpoint(self.read(signed, caller), caller)

    def read(self, signed: bytes, caller: CallerKey, *, accepts_expired: bool = False) -> Any:
        """Return the `IssuedStatement` of a caller's own ticket; a renewal keeps its `id`."""
        signature, data = signed[:_SIGNATURE_BYTES], signed[_SIGNATURE_BYTES:]
        if not self._signer.is_valid(signature, _TICKET, caller, data):
            raise UsageError(
                "The ticket was not issued to you, or was issued by a server with a different key, "
                "for example before a restart.",
                remedy=_REQUEST_AGAIN,
            )
        found = parse_message(messages.IssuedStatement, data)
        if self._clock.now().timestamp() >= found.expires_at and not accepts_expired:
            raise UsageError("The ticket has expired.", remedy=_REQUEST_AGAIN)
        return found

    def _build_endpoint(self, statement: Any, caller: CallerKey) -> Any:
        statement.expires_at = int((self._clock.now() + self._life).timestamp())
        data: bytes = statement.SerializeToString()
        ticket = issued_ticket(self._signer.sign(_TICKET, caller, data) + data)
        endpoint = messages.FlightEndpoint(ticket=messages.Ticket(ticket=ticket))
        endpoint.expiration_time.seconds = statement.expires_at
        return endpoint


class PreparedStatements:
    """Creates and finds prepared statements, each usable only by its own caller. Belongs to one event loop.

    A server with the same key accepts a handle until `idle_seconds` after its creation.
    """

    def __init__(self, signer: Signer, *, settings: FlightServerSettings, clock: Clock) -> None:
        max_statements, idle_seconds = settings.max_prepared, settings.prepared_idle_seconds
        self._signer = signer
        self._max_per_caller = settings.max_prepared_per_caller
        self._idle_seconds = idle_seconds
        self._clock = clock
        # The bound values, by statement ID.
        self._stored: TTLCache[bytes, tuple[bytes, ...]] = TTLCache(max_statements, idle_seconds, clock.monotonic)
        # Each caller's IDs, least recently used first; some may have expired.
        self._ids: LRUCache[CallerKey, list[bytes]] = LRUCache(max_statements)
        # Closed statements; otherwise, their handles would be accepted until they expire.
        self._closed: TTLCache[bytes, bool] = TTLCache(_MAX_ENDED, idle_seconds, clock.monotonic)

    def __len__(self) -> int:
        return len(self._stored)

    def add(self, sql: str, caller: CallerKey) -> bytes:
        """Create a statement and return its handle."""
        statement_id = token_urlsafe(_ID_BYTES).encode()
        self._store(statement_id, (), caller)
        expires_at = int(self._clock.now().timestamp() + self._idle_seconds)
        return self._write_handle(messages.IssuedStatement(id=statement_id, sql=sql, expires_at=expires_at), caller)

    def get(self, handle: bytes, caller: CallerKey) -> tuple[str, tuple[bytes, ...]]:
        """Return a caller's own statement and the values bound to it."""
        found = self._find(handle, caller)
        parameters = tuple(found.parameters) or self._stored.get(found.id, ())
        if not parameters and found.has_stored_parameters:
            raise UsageError(
                "The statement's parameters exceed 64 KiB and are not on this server: a different server received "
                "them, or this one was restarted.",
                remedy="Bind them again. Behind a load balancer that distributes individual calls, bind less data, or "
                "send the rows to a table and join it.",
            )
        return found.sql, parameters

    def bind(self, handle: bytes, parameters: tuple[bytes, ...], caller: CallerKey) -> bytes:
        """Bind parameters to a caller's own statement, replacing earlier ones, and return its new handle."""
        found = self._find(handle, caller)
        own = sum(_size(self._stored.get(one, ())) for one in self._own_ids(caller) if one != found.id)
        of_all = sum(_size(self._stored.get(one, ())) for one in self._stored)
        # Half of the remaining space, so that several callers together can't lock out others.
        left = (_MAX_BYTES - of_all + own + _size(self._stored.get(found.id, ()))) // 2
        if own + _size(parameters) > min(_MAX_BYTES_PER_CALLER, left):
            raise ResourcesExhausted(
                "Your prepared statements, or those of all callers, contain too many parameters.",
                remedy="Close those that you no longer need.",
                limit="prepared",
            )
        self._store(found.id, parameters, caller)
        found.has_stored_parameters = not can_travel(parameters)
        found.parameters[:] = parameters if can_travel(parameters) else ()
        return self._write_handle(found, caller)

    def close(self, handle: bytes, caller: CallerKey) -> None:
        """Drop a caller's own statement; does nothing if it doesn't exist."""
        with suppress(UsageError):
            self._forget(self._read_handle(handle, caller).id)

    def _find(self, handle: bytes, caller: CallerKey) -> Any:
        """Return the `IssuedStatement` of a handle, and store it if it is unknown here."""
        found = self._read_handle(handle, caller)
        values = self._stored.get(found.id)
        if values is None and (found.id in self._closed or self._clock.now().timestamp() >= found.expires_at):
            raise _unknown_statement()
        self._store(found.id, values or (), caller)
        return found

    def _store(self, statement_id: bytes, values: tuple[bytes, ...], caller: CallerKey) -> None:
        """Store a statement, or restart its lifetime; without space, one without values exists only in its handle."""
        own = self._own_ids(caller)
        if statement_id in own:
            own.remove(statement_id)
        elif len(own) >= self._max_per_caller:
            replaced = own.pop(0)
            if self._stored.pop(replaced):
                self._closed[replaced] = True  # its handle might not show that it had values
        elif len(self._stored) >= self._stored.maxsize:
            if not values:
                return
            raise ResourcesExhausted(
                "The server has the maximum number of prepared statements.", remedy="Try again later.", limit="prepared"
            )
        self._stored[statement_id] = values
        self._ids[caller] = [*own, statement_id]

    def _own_ids(self, caller: CallerKey) -> list[bytes]:
        return [one for one in self._ids.get(caller, ()) if one in self._stored]

    def _forget(self, statement_id: bytes) -> None:
        self._stored.pop(statement_id, None)
        self._closed[statement_id] = True

    def _write_handle(self, statement: Any, caller: CallerKey) -> bytes:
        """Return the handle for `statement`, an `IssuedStatement` with its SQL."""
        sql = statement.sql.encode()
        statement.ClearField("sql")
        data = statement.SerializeToString()
        signature = self._signer.sign(_PREPARED, caller, join_parts(sql, data))
        return bytes(sql + _COMMENT + _encode(signature + data))

    def _read_handle(self, handle: bytes, caller: CallerKey) -> Any:
        """Return the `IssuedStatement` from a handle for this caller."""
        sql, _, token = handle.rpartition(_COMMENT)
        try:
            signed = base64.b64decode(token + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except binascii.Error:
            raise _unknown_statement() from None
        signature, data = signed[:_SIGNATURE_BYTES], signed[_SIGNATURE_BYTES:]
        # Decoding drops some bits of the last character, hence the first comparison.
        if _encode(signed) != token or not self._signer.is_valid(signature, _PREPARED, caller, join_parts(sql, data)):
            raise _unknown_statement()
        found = parse_message(messages.IssuedStatement, data)
        found.sql = sql.decode()
        return found


def can_travel(parameters: tuple[bytes, ...]) -> bool:
    """Whether values are small enough to be part of a handle or a ticket."""
    return _size(parameters) <= _MAX_TRAVELLING_BYTES


def _size(parameters: tuple[bytes, ...]) -> int:
    return sum(map(len, parameters))


def _unknown_statement() -> UsageError:
    return UsageError(
        "The prepared statement was closed or has expired.",
        remedy="Prepare the statement again.",
    )


def _encode(signed: bytes) -> bytes:
    return base64.urlsafe_b64encode(signed).rstrip(b"=")
