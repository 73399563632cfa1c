"""Follows: reads of a table's new rows since a cursor, which the client returns with its next read.

A server keeps no state between two reads, so another server, or this one after a restart, can continue. A cursor is
encrypted, because its versions would reveal how often rows are added that its caller may not see.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
import struct
import threading
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import pyarrow as pa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from micromegas_jupyter.core.protocols import AuthContext, DataFile, find_table_access
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.engine.contract import Tail
from micromegas_jupyter.engine.scanner import Kind, scan
from micromegas_jupyter.errors import (
    CursorExpired,
    Unavailable,
    UnsupportedRequest,
    UnsupportedStatement,
    UsageError,
)
from micromegas_jupyter.executors.pool import ClientGone, Pool, RunningStatement, StatementReport
from micromegas_jupyter.executors.protocol import Output, Statement
from micromegas_jupyter.executors.scheduling import CallerKey
from micromegas_jupyter.flightsql.framing import FlightDataEncoder
from micromegas_jupyter.lake.delta_log import CONTROL_FOLDER, TableGone
from micromegas_jupyter.lake.past import AddedFiles, TableTail, TailPosition
from micromegas_jupyter.lake.snapshot import Unreadable
from micromegas_jupyter.server.authentication import (
    CallOrigin,
    FollowAudit,
    parse_compression,
    parse_statement,
    parse_time,
    single_value,
)
from micromegas_jupyter.server.flight_service import Call, ends_task, find_origin, translate_error
from micromegas_jupyter.server.tickets import join_parts

#: The cursor of the last read, `now`, or a time (RFC 3339); the response's trailers contain the next cursor.
TAIL_HEADER: Final = "x-micromegas-tail"
#: The maximum wait for rows, in seconds.
WAIT_HEADER: Final = "x-micromegas-tail-wait"
#: Sent with the cursor to end a follow.
END_HEADER: Final = "x-micromegas-tail-end"
MAX_ROWS: Final = 10_000
MAX_BYTES: Final = 8 * 1024 * 1024
_MAX_WAIT_SECONDS: Final = 30.0
_MAX_WORK_SECONDS: Final = 5.0  # per read that has rows, or that still has none after waiting
_MAX_FILES: Final = 64  # at a time in an executor
_LOCAL_LOOK_SECONDS: Final = 0.2
_BUCKET_LOOK_SECONDS: Final = 1.0
_AUDIT_SECONDS: Final = 60.0
_ABANDONED_SECONDS: Final = 90.0
_NOW: Final = "now"
_KEY_PATH: Final = f"{CONTROL_FOLDER}/cursor_key"
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_PREFIX: Final = "mt1."
_MAX_CHARACTERS: Final = 512
_HASH_BYTES: Final = 16
_FORMAT: Final = struct.Struct(">16s16s16sqIQq8s16sQd")
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_AGAIN: Final = "Begin a new follow."
_NO_ROWS: Final = FlightDataEncoder(pa.schema([])).encode_schema()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """The position of a follow, bound to its statement and to the caller's rights to its table."""

    statement: bytes
    rights: bytes
    position: TailPosition
    follow_id: uuid.UUID
    rows: int = 0
    audited_at: float = 0.0


class CursorKey:
    """Encrypts cursors with a key that is stored in the lake, so that every server of the lake can decrypt them."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._lock = threading.Lock()
        self._key: bytes | None = None

    def encrypt(self, cursor: Cursor, caller: CallerKey) -> str:
        """Return a cursor as a string that only this caller can use."""
        at, nonce = cursor.position, secrets.token_bytes(_NONCE_BYTES)
        content = _FORMAT.pack(
            cursor.statement,
            cursor.rights,
            at.mark,
            at.version,
            at.index,
            at.offset,
            (at.committed_at - _EPOCH) // _MICROSECOND,
            at.file,
            cursor.follow_id.bytes,
            cursor.rows,
            cursor.audited_at,
        )
        return _PREFIX + base64.urlsafe_b64encode(nonce + self._cipher(caller).encrypt(nonce, content, None)).decode()

    def decrypt(self, text: str, caller: CallerKey) -> Cursor:
        """Return a caller's decrypted cursor."""
        try:
            if len(text) > _MAX_CHARACTERS or not text.startswith(_PREFIX):
                raise ValueError  # noqa: TRY301 - as one that does not decode
            encrypted = base64.urlsafe_b64decode(text[len(_PREFIX) :])
            if base64.urlsafe_b64encode(encrypted).decode() != text[len(_PREFIX) :]:
                raise ValueError  # noqa: TRY301 - not as it was issued
            content = self._cipher(caller).decrypt(encrypted[:_NONCE_BYTES], encrypted[_NONCE_BYTES:], None)
            found = _FORMAT.unpack(content)
        except (binascii.Error, ValueError, InvalidTag, struct.error):
            raise UsageError("The cursor was not issued to you by a server of this lake.", remedy=_AGAIN) from None
        statement, rights, mark, version, index, offset, committed, file, follow, rows, audited_at = found
        position = TailPosition(
            version=version,
            mark=mark,
            committed_at=_EPOCH + committed * _MICROSECOND,
            index=index,
            offset=offset,
            file=file,
        )
        return Cursor(
            statement=statement,
            rights=rights,
            position=position,
            follow_id=uuid.UUID(bytes=follow),
            rows=rows,
            audited_at=audited_at,
        )

    def _cipher(self, caller: CallerKey) -> AESGCM:
        return AESGCM(hmac.digest(self._load(), join_parts(b"tail", *map(str.encode, caller)), hashlib.sha256))

    def _load(self) -> bytes:
        with self._lock:
            while self._key is None:
                found = self._storage.read(_KEY_PATH)
                if found is None:
                    self._storage.create(_KEY_PATH, secrets.token_bytes(_KEY_BYTES))
                elif len(found[0]) != _KEY_BYTES:
                    raise Unavailable("The lake's cursor key is corrupted.", remedy="Contact the administrator.")
                else:
                    self._key = found[0]
            return self._key


def find_followed_table(sql: str) -> str:
    """Return the table after FROM; planning checks the rest of the statement."""
    depth, found = 0, list[str]()
    tokens = scan(sql).tokens
    for place, token in enumerate(tokens):
        depth += {Kind.OPEN: 1, Kind.CLOSE: -1}.get(token.kind, 0)
        is_from = depth == 0 and token.kind is Kind.WORD and token.name == "from" and 0 < place < len(tokens) - 1
        if is_from and tokens[place - 1].name != "distinct" and tokens[place + 1].kind in {Kind.WORD, Kind.QUOTED}:
            found.append(tokens[place + 1].name)
    if len(found) != 1:
        raise UnsupportedStatement(
            "This statement cannot be followed because it does not read exactly one table.",
            remedy="Follow SELECT … FROM one table, perhaps with WHERE.",
        )
    return found[0]


class TailRunner:
    """Handles reads of follows. Belongs to one event loop; following requires a `storage`."""

    def __init__(
        self,
        pool: Pool,
        *,
        storage: Storage | None,
        clock: Clock,
        check_denials: Callable[[CallOrigin, str], Awaitable[None]],
        is_stopping: Callable[[], bool],
    ) -> None:
        self._pool = pool
        self._storage = storage
        self._clock = clock
        self._check_denials = check_denials
        self._is_stopping = is_stopping
        self._key = None if storage is None else CursorKey(storage)
        self._abandoned: dict[uuid.UUID, asyncio.TimerHandle] = {}

    async def run(self, call: Call, sql: str, parameters: tuple[bytes, ...]) -> None:
        """Send new rows since the cursor in a call's headers, followed by the next cursor."""
        statement = parse_statement(call.headers, sql, call.caller, parameters, is_read_only=call.is_read_only)
        origin = find_origin(call)
        report, text, cursor = StatementReport(), single_value(call.headers, TAIL_HEADER) or "", None
        audit = FollowAudit(origin, statement, report, self._clock)
        try:
            if self._storage is None or self._key is None:
                raise UnsupportedRequest(  # noqa: TRY301 - audited like other errors
                    "This server doesn't support follows.", remedy="Connect to a server with a lake."
                )
            if statement.row_limit is not None:
                raise UsageError("A follow doesn't support a limit.", remedy="Omit the limit.")  # noqa: TRY301
            if text.startswith(_PREFIX):
                cursor = await asyncio.to_thread(self._key.decrypt, text, call.caller_key)
                audit = FollowAudit(replace(origin, query_id=str(cursor.follow_id)), statement, report, self._clock)
                audit.state, audit.total_rows = "running", cursor.rows
            table = find_followed_table(sql)
            bound = _hash_statement(statement), self._hash_rights(call.caller, table)
            reader = _Reader(
                self._pool,
                call,
                replace(statement, tail=Tail(table=table, files=(), max_rows=MAX_ROWS, max_bytes=MAX_BYTES)),
                TableTail(self._storage, table),
                report,
                check=lambda: self._check_denials(origin, sql),
                look_seconds=_LOCAL_LOOK_SECONDS if self._storage.is_local else _BUCKET_LOOK_SECONDS,
            )
            if cursor is None:
                since = None if text == _NOW else parse_time(text, TAIL_HEADER, rounds_up=False)
                cursor = Cursor(
                    statement=bound[0],
                    rights=bound[1],
                    position=await reader.begin(since),
                    follow_id=uuid.UUID(call.query_id),
                )
            else:
                _check_bound(cursor, *bound)
                if single_value(call.headers, END_HEADER) is None:
                    wait_seconds = _parse_wait(single_value(call.headers, WAIT_HEADER))
                    position = await reader.read(cursor.position, wait_seconds, self._is_stopping)
                    cursor = replace(cursor, position=position, rows=cursor.rows + reader.rows)
                else:
                    audit.state = "end"
            audit.total_rows = cursor.rows
            cursor = self._note(audit, cursor)
            for frame in reader.frames or (_NO_ROWS,):
                await call.answer(frame)
            call.add_trailer(TAIL_HEADER, await asyncio.to_thread(self._key.encrypt, cursor, call.caller_key))
        except Exception as error:
            if ends_task(error) or isinstance(error, ClientGone):
                raise
            audit.write("error", translate_error(error, call.query_id))
            await audit.deliver()
            raise
        await audit.deliver()

    def _note(self, audit: FollowAudit, cursor: Cursor) -> Cursor:
        """Write the due line; the last line is written later if the client neither reads again nor ends the follow."""
        follow_id, now = cursor.follow_id, self._clock.now().timestamp()
        if (timer := self._abandoned.pop(follow_id, None)) is not None:
            timer.cancel()
        if audit.state == "end" or now - cursor.audited_at >= _AUDIT_SECONDS:
            audit.write("ok")
            cursor = replace(cursor, audited_at=now)
        if audit.state != "end":

            def note_abandoned() -> None:
                del self._abandoned[follow_id]
                audit.state = "end"
                audit.write("incomplete")

            self._abandoned[follow_id] = asyncio.get_running_loop().call_later(_ABANDONED_SECONDS, note_abandoned)
        return cursor

    def _hash_rights(self, caller: AuthContext, table: str) -> bytes:
        """Return a hash that identifies a caller's rights to a table."""
        access = find_table_access(caller, self._pool.options.engine.default_conditions)
        may_read = access is None or access.may_read(table)
        conditions = access.conditions(table) if access is not None and may_read else None
        return _hash((caller.is_admin, caller.roles, may_read, conditions))


class _Reader:
    """One read: the frames of up to 10,000 rows or 8 MiB, which are sent once the position after them is known.

    A read finishes when it has rows and has reached the end of the table, regardless of how many rows were hidden from
    its caller.
    """

    def __init__(  # noqa: PLR0913 - what a read is
        self,
        pool: Pool,
        call: Call,
        statement: Statement,
        tail: TableTail,
        report: StatementReport,
        *,
        check: Callable[[], Awaitable[None]],
        look_seconds: float,
    ) -> None:
        self._pool = pool
        self._call = call
        self._statement = statement
        self._tail = tail
        self._report = report
        self._check = check
        self._look_seconds = look_seconds
        self._size = 0
        self.frames: list[bytes] = []  # the schema and the rows
        self.rows = 0

    async def begin(self, since: datetime | None) -> TailPosition:
        """Check the statement, and return its starting position."""
        await self._check()
        self.frames = await self._run((), 0)
        try:
            return await asyncio.to_thread(self._tail.find, since)
        except TableGone:
            raise await self._gone() from None

    async def read(self, position: TailPosition, wait_seconds: float, is_stopping: Callable[[], bool]) -> TailPosition:
        """Read new rows, or wait for them; return the position after them."""
        await self._check()
        monotonic = self._pool.clock.monotonic
        deadline, work_until = monotonic() + wait_seconds, monotonic() + _MAX_WORK_SECONDS
        while True:
            try:
                found = await self._look(position)
            except CursorExpired:
                if self.rows:
                    return position  # the next read raises the error
                raise
            if found is None:
                left = deadline - monotonic()
                if self.rows or left <= 0 or is_stopping():
                    return position
                await asyncio.sleep(min(self._look_seconds, left))
                continue
            await self._check()
            try:
                index, offset = await self._take(found)
            except CursorExpired as error:
                if self.rows:
                    return position  # the next read raises the error
                error.restart_from = position.committed_at
                raise
            position = found.position(index, offset)
            is_full = index < len(found.files)
            if is_full or (self.rows and not found.is_cut) or monotonic() >= max(work_until, deadline):
                return position

    async def _look(self, position: TailPosition) -> AddedFiles | None:
        table = self._statement.tail.table if self._statement.tail else ""
        listing = self._pool.listing
        for is_fresh in (False, True):
            snapshot = next((one for one in listing.tables if one.name == table), None)
            if snapshot is None and not is_fresh:
                await listing.refresh()
        try:
            if snapshot is None:
                raise TableGone  # noqa: TRY301 - as one that is gone by now
            stored = snapshot.stored_schema or snapshot.schema
            names = dict(zip(snapshot.schema.names, stored.names, strict=True))
            by = [names.get(name, name) for name in snapshot.partition_columns]
            return await asyncio.to_thread(self._tail.read, position, by=by, max_files=_MAX_FILES)
        except TableGone:
            raise await self._gone() from None
        except Unreadable as error:
            raise Unavailable(
                f"The table {table} cannot be followed: {error}.", remedy="Contact the administrator.", retryable=False
            ) from error

    async def _take(self, found: AddedFiles) -> tuple[int, int]:
        """Add the files' rows; return the next file and the offset in it."""
        if not found.files:
            return 0, 0
        frames = await self._run(found.files, found.positions[0].offset)
        if self._report.reached is None or (self.frames and self.frames[0] != frames[0]):
            return 0, found.positions[0].offset  # columns have been added: those rows are for the next read
        if self._report.rows:
            self.frames += frames[bool(self.frames) :]
            self.rows += self._report.rows
            self._size += sum(map(len, frames))
        return self._report.reached

    async def _run(self, files: Sequence[DataFile], offset: int) -> list[bytes]:
        frames: list[bytes] = []

        async def write(frame: bytes) -> None:
            frames.append(frame)

        tail = Tail(
            table=self._statement.tail.table if self._statement.tail else "",
            files=tuple(files),
            offset=offset,
            max_rows=MAX_ROWS - self.rows,
            max_bytes=MAX_BYTES - self._size,
        )
        call = self._call
        async with RunningStatement(self._pool, call.source, query_id=call.query_id) as running:
            running.report = self._report
            output = Output(compression=parse_compression(call.headers))
            await running.run(replace(self._statement, tail=tail), output=output, write=write)
        return frames

    async def _gone(self) -> Exception:
        """Return the error for a missing table; the statement itself fails unless another table has that name."""
        await self._run((), 0)
        return CursorExpired("The table was dropped, and a different table now has the same name.")


def _parse_wait(text: str | None) -> float:
    try:
        seconds = float(text or 0)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _MAX_WAIT_SECONDS:
        raise UsageError(f"The header {WAIT_HEADER} is not a number of seconds between 0 and {_MAX_WAIT_SECONDS:.0f}.")
    return seconds


def _check_bound(cursor: Cursor, statement: bytes, rights: bytes) -> None:
    if cursor.statement != statement:
        raise UsageError("The cursor belongs to a different statement or different parameters.", remedy=_AGAIN)
    if cursor.rights != rights:
        raise UsageError("Your rights to the table have changed since the cursor was issued.", remedy=_AGAIN)


def _hash_statement(statement: Statement) -> bytes:
    times = statement.time_range and (statement.time_range.begin, statement.time_range.end)
    return _hash((statement.sql, statement.parameters, times, statement.preserve_dictionary))


def _hash(facts: tuple[object, ...]) -> bytes:
    return hashlib.sha256(repr(facts).encode()).digest()[:_HASH_BYTES]
