"""Stores rows that callers send: what arrives for a table meanwhile becomes one commit (group commit).

A write is acknowledged when it is durable: its Parquet files are on disk before its log entry, and that before anybody
can see it. Its id is an application transaction of the commit, so that the same write is stored once, whichever of
several processes gets it how often.
"""

import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import pyarrow as pa

from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.core.storage import Storage, storage_errors
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import MicromegasError, ResourcesExhausted, Unavailable, UsageError
from micromegas_jupyter.lake.data_files import NewFile, check_partitions, write_files
from micromegas_jupyter.lake.delta_log import (
    LOG_FOLDER,
    MAX_ENTRY_BYTES,
    Action,
    TableGone,
    TableGuard,
    arrow_schema,
    build_entry,
    check_writable,
    entry_name,
    log_path,
    open_delta,
    read_entry,
    read_write_ids,
)
from micromegas_jupyter.lake.tables import (
    DEFINITIONS,
    Tables,
    check_name,
    exists_already,
    no_table,
    replacement_actions,
)
from micromegas_jupyter.lake.types import (
    check_fits,
    convert_definition_rows,
    convert_rows,
    is_compatible,
    stored_definition,
    stored_schema,
)
from micromegas_jupyter.telemetry.conversion import check_columns, check_targets
from micromegas_jupyter.telemetry.conversion import convert_rows as convert_model_rows
from micromegas_jupyter.telemetry.tables import LOG_ENTRIES, TableDefinition

COMMIT_INTERVAL_SECONDS: Final = 0.2
STAGE_BYTES: Final = 128 * 1024 * 1024
_MAX_GROUPED_BYTES: Final = 16 * 1024 * 1024  # what more a write has is put into files of its own
_MAX_WAITING_BYTES: Final = 512 * 1024 * 1024  # of all writes under way
_ENCODERS: Final = 2  # each takes some times the rows' memory
_GROUP_WRITES: Final = 32  # so many callers that wait are worth a commit before the interval is over
_MAX_GROUP_BYTES: Final = 256 * 1024 * 1024
_MAX_GROUP_FILES: Final = 10_000
_MAX_QUEUED_BYTES: Final = 512 * 1024 * 1024
_MAX_QUEUED_WRITES: Final = 10_000
_ROOM_SECONDS: Final = 30.0
_IDLE_SECONDS: Final = 60.0
_MAX_IDLE_TABLES: Final = 100  # each has a descriptor open
_MAX_ATTEMPTS: Final = 100
_MAX_UNCLEAR: Final = 2
_MAX_WRITE_IDS: Final = 1_000_000
_CHECKPOINT_COMMITS: Final = 100
_LOG: Final = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class _Pending:
    """One write that waits for its commit; rows are sorted into files with those of others, files are as they are."""

    rows: pa.Table
    files: Sequence[NewFile]
    row_count: int
    write_id: str | None
    schema: pa.Schema
    is_replacing: bool = False
    done: Future[int] = field(default_factory=Future)


@dataclass(slots=True)
class _Attempts:
    """What was tried to store a group: log entries by id, files by writes, and how often the outcome is not known."""

    by_entry: dict[str, list[_Pending]] = field(default_factory=dict)
    files: dict[tuple[int, ...], list[NewFile]] = field(default_factory=dict)
    unclear: int = 0


@dataclass(slots=True, kw_only=True)
class _State:
    """A table at a version, and the ids of the writes that it holds."""

    guard: TableGuard
    version: int
    schema: pa.Schema
    partition_by: tuple[str, ...]
    write_ids: dict[str, int]
    max_write_ids: int


class _Outdated(Exception):
    """The table's columns, properties or protocol were changed."""


class LakeWriter:
    """Writes into all tables of a lake; a `TableSink`. Safe to use from several threads."""

    def __init__(
        self,
        storage: Storage,
        *,
        clock: Clock = SYSTEM_CLOCK,
        interval_seconds: float = COMMIT_INTERVAL_SECONDS,
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._tables = Tables(storage, clock=clock)
        self._opening = threading.Lock()
        self._lock = threading.Lock()
        self._waiting_bytes = 0
        self._encoders = threading.Semaphore(_ENCODERS)
        self._committers: dict[str, _Committer] = {}
        self._checkpoints = ThreadPoolExecutor(1, "lake-checkpoints")
        self._is_closed = False

    def append(self, table: str, rows: pa.Table | pa.RecordBatch, *, write_id: str | None = None) -> Future[int]:
        """Store rows of a table that exists, or of the data model, as the server's own; the future counts them."""
        request = WriteRequest(table=table, mode=WriteMode.APPEND, write_id=write_id, is_trusted=True, may_read=True)
        write = self.open_write(request, rows.schema)
        try:
            for batch in rows.to_batches() if isinstance(rows, pa.Table) else [rows]:
                write.write(batch)
            return write.submit()
        except BaseException:
            write.abandon()
            raise

    def open_write(self, request: WriteRequest, schema: pa.Schema) -> "LakeWrite":
        """Begin a write."""
        definition = DEFINITIONS.get(request.table)
        if definition is not None:
            return self._open_model_write(request, schema, definition)
        check_name(request.table)
        committer = self._find(request.table, is_certain=request.mode is not WriteMode.APPEND)
        if committer is None:
            return self._open_creation(request, schema)
        is_repeated = request.write_id is not None and committer.has_stored(request.write_id)
        if request.mode is WriteMode.CREATE and not is_repeated:
            raise exists_already(request.table)
        if request.mode is WriteMode.REPLACE and not is_repeated:
            stored = stored_schema(schema)
        else:
            stored = committer.fitting_schema(schema, is_known=request.may_read)
        return LakeWrite(
            self,
            replace(request, mode=request.mode if request.mode is WriteMode.REPLACE else WriteMode.APPEND),
            stored,
            convert=lambda rows: convert_rows(rows, stored, is_known=request.may_read),
            partition_by=() if request.mode is WriteMode.REPLACE else committer.partition_by,
        )

    def close(self) -> None:
        """Commit what waits, and end. Safe to call twice."""
        with self._lock:
            self._is_closed = True
            committers = list(self._committers.values())
        for committer in committers:
            committer.close()
        self._checkpoints.shutdown()

    def submit(self, table: str, pending: _Pending) -> None:
        """Queue a write for the table's next commit."""
        while (committer := self._find(table)) is not None:
            if committer.submit(pending):
                return
        raise no_table(table)

    def create(self, request: WriteRequest, pending: _Pending, staging: str) -> Future[int]:
        """Make a table whose first version has the rows; if somebody made it meanwhile, add them if that was asked."""
        stored = pending.schema
        files = [*pending.files, *write_files(self._storage, staging, pending.rows, clock=self._clock)]
        actions = [*transactions([pending], self._clock), *(one.action() for one in files)]
        is_made = self._tables.add(request.table, stored, owner=request.maker, actions=actions, staging=staging)
        committer = self._find(request.table, is_certain=True)
        if committer is None:
            raise no_table(request.table)
        if is_made:
            if not self._storage.is_local and not all(one.is_there(self._storage, request.table) for one in files):
                raise UsageError(f"The table {request.table} was dropped while it was created.", remedy="Try again.")
            pending.done.set_result(pending.row_count)
            return pending.done
        is_repeated = request.write_id is not None and committer.has_stored(request.write_id)
        if request.mode is WriteMode.CREATE and not is_repeated:
            raise exists_already(request.table)
        if pending.is_replacing and not request.is_owner and self._tables.owner(request.table) != request.maker:
            raise exists_already(request.table)  # nobody had it when the rights were checked
        if not pending.is_replacing and not committer.schema.equals(stored):
            raise UsageError(
                f"The table {request.table} was created by another call, with other columns.",
                remedy="Send the rows again.",
            )
        moved = [one.move(self._storage, staging, request.table) for one in files]
        pending = replace(pending, rows=pending.rows.slice(0, 0), files=moved)
        self.submit(request.table, pending)
        return pending.done

    def stage(self, table: str, rows: pa.Table, write: "LakeWrite") -> list[NewFile]:
        """Write files that no commit names yet; what is abandoned is left to vacuum."""
        with self._encoders:
            if write.staging is not None:
                return write_files(self._storage, write.staging, rows, clock=self._clock)
            committer = self._find(table)
            if committer is None:
                raise no_table(table)
            return committer.stage(rows, write.partition_by)

    def count_waiting(self, size: int) -> bool:
        """Note that writes hold so many bytes more, or fewer; whether they hold too many."""
        with self._lock:
            self._waiting_bytes += size
            return self._waiting_bytes > _MAX_WAITING_BYTES

    def _open_model_write(self, request: WriteRequest, schema: pa.Schema, definition: TableDefinition) -> "LakeWrite":
        if request.mode is WriteMode.CREATE:
            raise exists_already(request.table)
        if request.mode is WriteMode.REPLACE:
            raise UsageError(f"The table {request.table} belongs to the data model.", remedy="Delete rows instead.")
        check_columns(schema, definition)
        stored = stored_definition(definition)

        def convert(rows: pa.RecordBatch) -> pa.RecordBatch:
            converted = convert_model_rows(rows, definition)
            if definition is LOG_ENTRIES and not request.is_trusted:
                check_targets(converted)
            return convert_definition_rows(converted, definition, stored)

        if self._find(request.table) is None:
            self._tables.create_defined(request.table)
        committer = self._find(request.table)
        if committer is None:
            raise no_table(request.table)
        return LakeWrite(
            self,
            replace(request, mode=WriteMode.APPEND),
            committer.schema,
            convert=convert,
            partition_by=committer.partition_by,
        )

    def _open_creation(self, request: WriteRequest, schema: pa.Schema) -> "LakeWrite":
        if request.mode is WriteMode.APPEND:
            raise no_table(request.table)
        stored = stored_schema(schema)
        self._tables.check_capacity(owner=request.maker, most=request.most_tables)
        return LakeWrite(
            self,
            request,
            stored,
            convert=lambda rows: convert_rows(rows, stored, is_known=request.may_read),
            staging=self._tables.new_staging(request.table),
        )

    def _find(self, table: str, *, is_certain: bool = False) -> "_Committer | None":
        """Return the committer of a table that is there, when `is_certain` by looking again."""
        committer = self._known(table)
        if committer is not None and not committer.is_gone and (not is_certain or committer.refresh()):
            return committer
        with self._opening:
            known = self._known(table)
            if known is not None and known is not committer:
                return known  # another thread has opened it
            if known is not None:
                known.close()
            try:
                made = _Committer(
                    self, self._storage, table, clock=self._clock, interval_seconds=self._interval_seconds
                )
            except TableGone:
                return None
            with self._lock:
                self._committers.pop(table, None)
                self._committers[table] = made
                oldest = [name for name, one in self._committers.items() if one.is_idle]
                closed = [self._committers.pop(name) for name in oldest[:-_MAX_IDLE_TABLES]]
            for one in closed:
                one.close()
            return made

    def _known(self, table: str) -> "_Committer | None":
        with self._lock:
            if self._is_closed:
                raise Unavailable("The server is shutting down.")
            return self._committers.get(table)

    def request_checkpoint(self, table: str) -> None:
        """Write a checkpoint, which keeps the log quick to open, while others go on."""
        with suppress(RuntimeError):  # it is closed
            self._checkpoints.submit(self._write_checkpoint, table)

    def _write_checkpoint(self, table: str) -> None:
        try:
            delta = open_delta(self._storage, table)
            with storage_errors("A checkpoint could not be written."):
                delta.create_checkpoint()
            self._storage.sync_file(log_path(table, f"{delta.version():020}.checkpoint.parquet"))
            self._storage.sync_file(log_path(table, "_last_checkpoint"))
        except (TableGone, MicromegasError) as error:
            _LOG.warning("a checkpoint could not be written", extra={"table": table}, exc_info=error)


class LakeWrite:
    """One write under way; implements `core.protocols.TableWrite`."""

    def __init__(  # noqa: PLR0913 - options by keyword
        self,
        writer: LakeWriter,
        request: WriteRequest,
        schema: pa.Schema,
        *,
        convert: Callable[[pa.RecordBatch], pa.RecordBatch],
        partition_by: tuple[str, ...] = (),
        staging: str | None = None,
    ) -> None:
        self._writer = writer
        self._request = request
        self._schema = schema
        self._convert = convert
        self.partition_by = partition_by
        self.staging = staging
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = self._row_count = 0
        self._files: list[NewFile] = []

    def write(self, batch: pa.RecordBatch) -> None:
        """Take rows."""
        converted = self._convert(batch)
        if converted.num_rows == 0:
            return
        self._waiting.append(converted)
        self._row_count += converted.num_rows
        self._waiting_bytes += converted.nbytes
        are_too_many = self._writer.count_waiting(converted.nbytes)
        if self._waiting_bytes >= STAGE_BYTES or (are_too_many and self._waiting_bytes > _MAX_GROUPED_BYTES):
            self._stage()

    def submit(self) -> Future[int]:
        """Make all rows durable and visible at once; the future's result is how many were written."""
        if self._waiting and (self._files or self._waiting_bytes > _MAX_GROUPED_BYTES):
            self._stage()
        self._writer.count_waiting(-self._waiting_bytes)
        pending = _Pending(
            rows=self._take(),
            files=tuple(self._files),
            row_count=self._row_count,
            write_id=self._request.write_id,
            schema=self._schema,
            is_replacing=self._request.mode is WriteMode.REPLACE,
        )
        if self.staging is not None:
            return self._writer.create(self._request, pending, self.staging)
        if self._row_count == 0 and not pending.is_replacing:
            pending.done.set_result(0)
        else:
            self._writer.submit(self._request.table, pending)
        return pending.done

    def commit(self) -> int:
        """Make all rows durable and visible at once and return how many were written."""
        return self.submit().result()

    def abandon(self) -> None:
        """Forget the rows; files that were written are never named by the log, and vacuum removes them."""
        self._writer.count_waiting(-self._waiting_bytes)
        self._waiting, self._waiting_bytes = [], 0

    def _stage(self) -> None:
        size = self._waiting_bytes
        try:
            self._files += self._writer.stage(self._request.table, self._take(), self)
        finally:
            self._writer.count_waiting(-size)

    def _take(self) -> pa.Table:
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        rows = pa.Table.from_batches(waiting, waiting[0].schema if waiting else self._schema)
        check_partitions(rows, self.partition_by)
        return rows


class _Committer:
    """Commits one table's writes in groups, on a thread that ends when there is nothing to do."""

    def __init__(
        self, writer: LakeWriter, storage: Storage, table: str, *, clock: Clock, interval_seconds: float
    ) -> None:
        self._writer = writer
        self._storage = storage
        self._table = table
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._changed = threading.Condition()
        self._queue: deque[_Pending] = deque()
        self._queued_bytes = 0
        self._thread: threading.Thread | None = None
        self._is_closing = False
        self.is_gone = False
        self._state_lock = threading.Lock()  # the state, and the turn to commit
        self._state = self._open()

    @property
    def schema(self) -> pa.Schema:
        """The table's columns, with those that it is partitioned by."""
        return self._state.schema

    @property
    def partition_by(self) -> tuple[str, ...]:
        """The columns whose values are not in the files."""
        return self._state.partition_by

    def refresh(self) -> bool:
        """Take notice of what others committed; False when the table is gone."""
        with self._state_lock:
            try:
                with self._state.guard.hold():
                    self._absorb({})
            except TableGone:
                self.is_gone = True
            except _Outdated:
                self._reopen([])
        return not self.is_gone

    def has_stored(self, write_id: str) -> bool:
        """Whether a write of this id is among the rows."""
        return write_id in self._state.write_ids

    def fitting_schema(self, schema: pa.Schema, *, is_known: bool) -> pa.Schema:
        """Return the table's columns, which rows of `schema` must fit; they are looked up again when those do not."""
        try:
            check_fits(schema, self.schema, is_known=is_known)
        except UsageError:
            if not self.refresh():
                raise no_table(self._table) from None
            check_fits(schema, self.schema, is_known=is_known)
        return self.schema

    def stage(self, rows: pa.Table, partition_by: tuple[str, ...]) -> list[NewFile]:
        """Write files that no commit names yet."""
        try:
            with self._state.guard.hold():
                return write_files(self._storage, self._table, rows, clock=self._clock, partition_by=partition_by)
        except TableGone:
            raise _gone(self._table) from None

    @property
    def is_idle(self) -> bool:
        """Whether no write waits."""
        return self._thread is None

    def submit(self, pending: _Pending) -> bool:
        """Queue a write; waits for room. False when this is closed."""
        deadline = self._clock.monotonic() + _ROOM_SECONDS
        with self._changed:
            while self._queue and (
                self._queued_bytes + pending.rows.nbytes > _MAX_QUEUED_BYTES or len(self._queue) >= _MAX_QUEUED_WRITES
            ):
                if self._clock.monotonic() >= deadline:
                    raise ResourcesExhausted(
                        "Rows arrive faster than they can be stored.", remedy="Send them again later.", limit="ingest"
                    )
                self._changed.wait(1.0)
            if self._is_closing:
                return False
            self._queue.append(pending)
            self._queued_bytes += pending.rows.nbytes
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"commit-{self._table}", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return True

    def close(self) -> None:
        """Commit what waits, and end."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()
        with self._state_lock:
            self._state.guard.close()

    def _run(self) -> None:
        last_commit = float("-inf")
        while group := self._next_group(last_commit):
            last_commit = self._clock.monotonic()
            before = self._state.version
            try:
                with self._state_lock:
                    self._commit(group)
            except BaseException as error:  # noqa: BLE001 - the callers raise it
                for one in group:
                    if not one.done.done():
                        one.done.set_exception(error)
            if before // _CHECKPOINT_COMMITS < self._state.version // _CHECKPOINT_COMMITS:
                self._writer.request_checkpoint(self._table)

    def _next_group(self, last_commit: float) -> list[_Pending]:
        """Return the writes of the next commit when it is due; none when the thread is to end."""
        with self._changed:
            has_waited = False
            while True:
                due = last_commit + self._interval_seconds - self._clock.monotonic()
                is_due = has_waited or due <= 0 or len(self._queue) >= _GROUP_WRITES or self._is_closing
                if self._queue and is_due:
                    break
                if not self._queue and (has_waited or self._is_closing):
                    self._thread = None
                    return []
                is_idle = not self._queue
                has_waited = not self._changed.wait(_IDLE_SECONDS if is_idle else due)
                has_waited = has_waited and is_idle == (not self._queue)  # not when something else came
            group: list[_Pending] = []
            size = files = 0
            while self._queue and (not group or not (self._queue[0].is_replacing or group[0].is_replacing)):
                size += self._queue[0].rows.nbytes
                files += len(self._queue[0].files)
                if group and (size > _MAX_GROUP_BYTES or files > _MAX_GROUP_FILES):
                    break
                group.append(self._queue.popleft())
                self._queued_bytes -= group[-1].rows.nbytes
            self._changed.notify_all()
            return group

    def _commit(self, group: list[_Pending]) -> None:
        """Store a group in one commit, again after that of another; each write's future is done when this returns."""
        attempts = _Attempts()
        try:
            for _ in range(_MAX_ATTEMPTS):
                try:
                    with self._state.guard.hold():
                        self._absorb(attempts.by_entry)
                        fresh = self._select(group)
                        if not fresh:
                            return
                        self._try(fresh, attempts)
                except (TableGone, _Outdated) as reason:
                    if isinstance(reason, TableGone):
                        self._remove_orphan(attempts)
                        self._refuse_files(group)
                    attempts.files.clear()
                    self._reopen(group)
                    if self.is_gone:
                        return
        except MicromegasError as error:
            if not attempts.unclear:
                raise
            raise Unavailable(
                "It is not known whether the rows were stored: the lake's storage failed while they were committed.",
                remedy="Send them again with the same id, which stores them once; without an id, look before that.",
            ) from error
        raise Unavailable("The table is being changed by others all the time. None of the rows was stored.")

    def _try(self, fresh: list[_Pending], attempts: _Attempts) -> None:
        """Add one log entry, if nobody takes its version before."""
        key = tuple(map(id, fresh))
        if key not in attempts.files:
            attempts.files[key] = self._write_group(fresh)
        entry_id, version = str(uuid.uuid4()), self._state.version + 1
        content = self._build_entry(entry_id, fresh, attempts.files[key])
        attempts.by_entry[entry_id] = fresh
        path = log_path(self._table, entry_name(version))
        try:
            is_stored = self._storage.create(path, content)
        except MicromegasError:
            attempts.unclear += 1
            if self._storage.is_local and self._storage.read(path, max_bytes=MAX_ENTRY_BYTES) is None:
                attempts.unclear = 0
                raise
            if attempts.unclear > _MAX_UNCLEAR:
                raise
            return  # the next attempt finds it, or takes the same version with the same files
        attempts.unclear += is_stored
        if is_stored:  # else the next attempt reads whose commit it was
            self._state.guard.check(version)
            self._state.version = version
            self._state.write_ids.update((one.write_id, one.row_count) for one in fresh if one.write_id)
            _acknowledge(fresh)
            if fresh[0].is_replacing:
                raise _Outdated
        attempts.unclear = 0

    def _absorb(self, tried: Mapping[str, list[_Pending]]) -> None:
        """Take notice of commits since the last one, among them those that were tried here; raises `_Outdated`."""
        state, is_changed = self._state, False
        version = state.version
        # Of entries that were cleaned up, the version after ours looks free, and would be before the checkpoint.
        is_known = not self._storage.is_local or self._entry_file(version).exists()
        if not is_known and open_delta(self._storage, self._table).version() > version:
            raise _Outdated
        while (actions := read_entry(self._storage, self._table, version + 1)) is not None:
            version += 1
            for action in actions:
                if "txn" in action:
                    state.write_ids[action["txn"]["appId"]] = int(action["txn"]["version"])
                elif "commitInfo" in action:
                    _acknowledge(tried.get(action["commitInfo"].get("txnId", ""), ()))
                is_changed = is_changed or "metaData" in action or "protocol" in action
        if version > state.version:
            self._storage.sync_folder(f"{self._table}/{LOG_FOLDER}")
            state.guard.check(version)
            state.version = version
        if is_changed or len(state.write_ids) > state.max_write_ids:
            raise _Outdated

    def _entry_file(self, version: int) -> Path:
        return Path(self._storage.uri, log_path(self._table, entry_name(version)))

    def _open(self) -> _State:
        delta = open_delta(self._storage, self._table)
        check_writable(delta)
        version = delta.version()
        guard = TableGuard(self._storage, self._table, version=version)
        try:
            write_ids = read_write_ids(self._storage, self._table, version=version)
            return _State(
                guard=guard,
                version=version,
                schema=arrow_schema(delta),
                partition_by=tuple(delta.metadata().partition_columns),
                write_ids=write_ids,
                max_write_ids=max(_MAX_WRITE_IDS, 2 * len(write_ids)),
            )
        except BaseException:
            guard.close()
            raise

    def _reopen(self, group: list[_Pending]) -> None:
        """Read the table anew; when it is gone, no write of the group is stored."""
        try:
            state = self._open()
        except TableGone:
            self.is_gone = True
            for one in group:
                if not one.done.done():
                    one.done.set_exception(_gone(self._table))
        else:
            self._state.guard.close()
            self._state = state

    def _refuse_files(self, group: list[_Pending]) -> None:
        """Answer writes whose files went with a table that was dropped, even if another has its name by now."""
        for one in group:
            if not one.done.done() and (one.files or one.is_replacing):
                one.done.set_exception(_gone(self._table))

    def _remove_orphan(self, attempts: _Attempts) -> None:
        """Remove an entry that came into the log of a bucket's table while that was being removed."""
        if self._storage.is_local or not attempts.by_entry:
            return
        version = self._state.version + 1
        for action in read_entry(self._storage, self._table, version) or ():
            if action.get("commitInfo", {}).get("txnId") in attempts.by_entry:
                self._storage.delete(log_path(self._table, entry_name(version)))

    def _select(self, group: list[_Pending]) -> list[_Pending]:
        """Return the writes that are still to be stored, and answer the others."""
        fresh: list[_Pending] = []
        ids: set[str] = set()
        for one in group:
            if one.done.done() or one.write_id in ids:
                continue  # the next round answers one whose id is in this group twice
            known = None if one.write_id is None else self._state.write_ids.get(one.write_id)
            if known is not None and known != one.row_count:
                one.done.set_exception(
                    UsageError(
                        f"{known:,} rows were stored under this id before, and these are {one.row_count:,}.",
                        remedy="Use a new id for each call, and the same one only to repeat it.",
                    )
                )
            elif known is not None:
                one.done.set_result(one.row_count)
            elif not one.is_replacing and not self._fits(one):
                one.done.set_exception(
                    UsageError(
                        f"The columns of the table {self._table} were changed while the rows were sent.",
                        remedy="Send them again.",
                    )
                )
            else:
                fresh.append(one)
                if one.write_id is not None:
                    ids.add(one.write_id)
        return fresh

    def _fits(self, pending: _Pending) -> bool:
        # The values of partition columns are not in the files, so those of another partitioning would lack some.
        is_partitioned_so = all(set(file.partition) == set(self._state.partition_by) for file in pending.files)
        return is_partitioned_so and is_compatible(pending.schema, self._state.schema)

    def _write_group(self, group: list[_Pending]) -> list[NewFile]:
        rows = pa.concat_tables([one.rows for one in group], promote_options="default")
        partition_by = () if group[0].is_replacing else self._state.partition_by
        files = write_files(self._storage, self._table, rows, clock=self._clock, partition_by=partition_by)
        return [*files, *(file for one in group for file in one.files)]

    def _build_entry(self, entry_id: str, group: list[_Pending], files: list[NewFile]) -> bytes:
        is_replacing = group[0].is_replacing
        info = {
            "timestamp": round(self._clock.now().timestamp() * 1000),
            "operation": "WRITE",
            "operationParameters": {"mode": "Overwrite" if is_replacing else "Append"},
            "operationMetrics": {"writes": len(group), "rows": sum(one.row_count for one in group)},
            "readVersion": self._state.version,
            "isBlindAppend": not is_replacing,
            "engineInfo": "micromegas_jupyter",
            "txnId": entry_id,
        }
        actions: list[Action] = [{"commitInfo": info}, *transactions(group, self._clock)]
        if is_replacing:
            actions += replacement_actions(
                self._storage, self._table, group[0].schema, version=self._state.version, clock=self._clock
            )
        return build_entry([*actions, *(one.action() for one in files)])


def transactions(group: Sequence[_Pending], clock: Clock) -> list[Action]:
    """Return the application transactions of writes: their ids, with how many rows each has."""
    now = round(clock.now().timestamp() * 1000)
    return [
        {"txn": {"appId": one.write_id, "version": one.row_count, "lastUpdated": now}}
        for one in group
        if one.write_id is not None
    ]


def _acknowledge(group: Sequence[_Pending]) -> None:
    for one in group:
        if not one.done.done():
            one.done.set_result(one.row_count)


def _gone(table: str) -> UsageError:
    return UsageError(
        f"The table {table} was dropped while the rows were sent. None of them was stored.",
        remedy="Create it again, and send them again.",
    )
