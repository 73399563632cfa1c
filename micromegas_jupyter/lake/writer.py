"""Stores rows that callers send; rows that arrive for a table while it commits form the next commit (group commit).

A write is acknowledged when it is durable: its Parquet files are on disk before its log entry, which is on disk before
it becomes visible. The write's ID is an application transaction of the commit, so that a write is stored only once, no
matter how often and to how many processes it is sent.
"""

import threading
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa
from cachetools import TTLCache

from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.core.storage import Storage, storage_errors
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.core.text import rows_text
from micromegas_jupyter.errors import MicromegasError, ResourcesExhausted, TableExists, Unavailable, UsageError
from micromegas_jupyter.lake.data_files import check_partitions, write_files
from micromegas_jupyter.lake.delta_log import (
    LOG_FOLDER,
    MAX_ENTRY_BYTES,
    RESTORE,
    SHORT_LIVED_IDS,
    Action,
    TableGone,
    TableGuard,
    arrow_schema,
    build_entry,
    check_writable,
    commit_info,
    entry_name,
    is_entry,
    log_path,
    milliseconds,
    open_delta,
    read_checkpoint_version,
    read_entry,
    read_short_lived_ids,
    read_write_ids,
    take_back,
    write_checkpoint,
)
from micromegas_jupyter.lake.tables import (
    DEFINITIONS,
    Tables,
    check_name,
    check_no_view,
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
from micromegas_jupyter.telemetry.conversion import check_columns, check_origin, check_targets
from micromegas_jupyter.telemetry.conversion import convert_rows as convert_model_rows
from micromegas_jupyter.telemetry.tables import LOG_ENTRIES, NANOS, TableDefinition

COMMIT_INTERVAL_SECONDS: Final = 0.2
STAGE_BYTES: Final = 128 * 1024 * 1024
_MAX_GROUPED_BYTES: Final = 16 * 1024 * 1024  # the rest of a write is written to separate files
_MAX_WAITING_BYTES: Final = 512 * 1024 * 1024  # of all writes in progress
_ENCODERS: Final = 2  # each encoder needs a multiple of the rows' memory
_GROUP_WRITES: Final = 32  # this many waiting callers trigger a commit before the interval is over
_MAX_GROUP_BYTES: Final = 256 * 1024 * 1024
_MAX_QUEUED_BYTES: Final = 512 * 1024 * 1024
_MAX_QUEUED_WRITES: Final = 10_000
_QUEUE_SECONDS: Final = 30.0
_TAKES_NO_ROWS: Final = "Tell the server's administrator; a lake of an earlier version must be replaced by a new one."
_MAX_IDLE_TABLES: Final = 100  # each holds an open descriptor until it is no longer used
_MAX_ATTEMPTS: Final = 100
_MAX_FAILURES: Final = 2
_MAX_WRITE_IDS: Final = 1_000_000
SHORT_LIVED_SECONDS: Final = 600.0
"""How long an ID that `is_short_lived` is remembered: as long as telemetry exporters retry an export."""
_MAX_SHORT_LIVED_IDS: Final = 500_000
_MAX_ENTRIES: Final = 100  # since a checkpoint, when a table is opened


@dataclass(slots=True, kw_only=True, eq=False)
class _Pending:
    """A write that waits for its commit; its rows are merged with other writes', and its files are used unchanged."""

    rows: pa.Table
    files: Sequence[Action]
    row_count: int
    size: int  # of the rows in bytes, which is slow to compute in Arrow
    write_id: str | None
    is_replacing: bool
    table_id: object = None  # ID of the table for which the files were written
    is_short_lived: bool = False
    done: Future[int] = field(default_factory=Future)


@dataclass(slots=True)
class _Attempt:
    """An attempt to store a group: the entry's ID, its writes and files, and the number of unknown outcomes."""

    entry_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    group: list[_Pending] = field(default_factory=list)
    files: list[Action] = field(default_factory=list)
    failures: int = 0


class _State:
    """A table at a version, and the IDs of the writes in it."""

    def __init__(self, storage: Storage, table: str) -> None:
        self.guard = TableGuard(storage, table)
        delta = self.guard.delta
        del self.guard.delta  # it would keep the names of all files
        try:
            check_writable(delta)
            check_no_view(delta, table)
            self.version = delta.version()
            self.write_ids = read_write_ids(storage, table, version=self.version)
            if self.version - read_checkpoint_version(storage, table) > _MAX_ENTRIES:
                # deltalake opens all entries concurrently: several hundred need as many threads and too much memory in
                # total. Maintenance writes checkpoints, but not on servers that are killed repeatedly.
                with suppress(MicromegasError), storage_errors("A checkpoint could not be written.", storage):
                    write_checkpoint(storage, table, delta)
            self.short_lived_ids: TTLCache[str, int] = TTLCache(
                _MAX_SHORT_LIVED_IDS, SHORT_LIVED_SECONDS, timer=SYSTEM_CLOCK.monotonic
            )
            since = SYSTEM_CLOCK.now().timestamp() - SHORT_LIVED_SECONDS
            self.short_lived_ids.update(read_short_lived_ids(storage, table, version=self.version, since=since))
        except BaseException:
            self.guard.close()
            raise
        metadata = delta.metadata()
        self.table = table
        self.table_id = metadata.id
        self.schema = self.fitting = arrow_schema(delta)  # `fitting` is the schema of the last checked rows
        self.partition_by = tuple(metadata.partition_columns)
        self.max_write_ids = max(_MAX_WRITE_IDS, 2 * len(self.write_ids))

    def find_id(self, write_id: str | None) -> int | None:
        """Return the number of rows stored under an ID, or None."""
        if write_id is None:
            return None
        known = self.write_ids.get(write_id)
        return self.short_lived_ids.get(write_id) if known is None else known


class _Outdated(Exception):
    """The table's columns, properties, or protocol have changed."""


class LakeWriter:
    """Writes to all tables of a lake; a `TableSink`. Safe to use from several threads."""

    def __init__(self, storage: Storage, *, interval_seconds: float = COMMIT_INTERVAL_SECONDS) -> None:
        self._storage = storage
        self._interval_seconds = interval_seconds
        self.tables = Tables(storage)
        self._lock = threading.Lock()
        self._waiting_bytes = 0
        self._encoders = threading.Semaphore(_ENCODERS)
        self._committers: dict[str, _Committer] = {}
        self._is_closed = False

    def append(self, table: str, rows: pa.Table | pa.RecordBatch, *, write_id: str | None = None) -> Future[int]:
        """Store the server's own rows in an existing or data model table; the future returns their number."""
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
        is_repeated = committer is not None and request.write_id in committer.state.write_ids
        if committer is None:
            if request.mode is WriteMode.APPEND:
                raise no_table(request.table)
            self.tables.check_capacity(owner=request.maker, max_tables=request.most_tables)
        elif request.mode is WriteMode.CREATE and not is_repeated:
            raise exists_already(request.table)
        if committer is None or (request.mode is WriteMode.REPLACE and not is_repeated):
            stored = stored_schema(schema)
        else:
            stored = committer.fitting_schema(schema, request)
        sent = 0

        def convert(rows: pa.RecordBatch) -> pa.RecordBatch:
            nonlocal sent
            converted = convert_rows(rows, stored, is_known=request.may_read, first_row=sent)
            sent += rows.num_rows
            return converted

        return LakeWrite(self, request, stored, convert, committer)

    def find_problem(self, table: str) -> str | None:
        """Return why rows can't be stored in a data model table because of its columns, if so."""
        stored = stored_definition(DEFINITIONS[table])
        is_fit = is_compatible(stored, self._require_defined(table, stored).state.schema)
        return None if is_fit else f"{_takes_no_rows(table)} {_TAKES_NO_ROWS}"

    def close(self) -> None:
        """Commit pending writes and stop. Safe to call twice."""
        with self._lock:
            self._is_closed = True
            committers = list(self._committers.values())
            self._committers.clear()
        for committer in committers:
            committer.close()

    def note_waiting(self, size: int) -> bool:
        """Record that writes hold this many more (or fewer) bytes; return whether they hold too many."""
        with self._lock:
            self._waiting_bytes += size
            return self._waiting_bytes > _MAX_WAITING_BYTES

    def stage(self, table: str, rows: pa.Table, *, partition_by: tuple[str, ...], staging: str | None) -> list[Action]:
        """Write files that no commit references yet; vacuum removes abandoned ones."""
        with self._encoders:
            if staging is not None:
                return write_files(self._storage, staging, rows)
            return self._require(table).stage(rows, partition_by)

    def store(self, request: WriteRequest, pending: _Pending, *, staging: str | None) -> None:
        """Queue a write for its table's next commit, or create the table if the write's files are in `staging`."""
        if staging is not None:
            self._create(request, staging, pending)
            return
        while not self._require(request.table).submit(pending):
            pass  # that committer was closed in the meantime

    def _create(self, request: WriteRequest, staging: str, pending: _Pending) -> None:
        """Create a table with the rows in its first version; if it exists in the meantime, append them if requested."""
        name, stored = request.table, pending.rows.schema
        files = [*pending.files, *write_files(self._storage, staging, pending.rows)]
        actions = [*_transactions([pending]), *files]
        is_made = self.tables.add(name, stored, owner=request.maker, actions=actions, staging=staging)
        committer = self._require(name, is_certain=True)
        if is_made:
            found = {entry.path for entry in self._storage.list(name)}
            if not all(f"{name}/{one['add']['path']}" in found for one in files):
                raise UsageError(f"The table {name} was dropped while it was being created.", remedy="Try again.")
            pending.done.set_result(pending.row_count)
            return
        if request.write_id not in committer.state.write_ids:
            if request.mode is WriteMode.CREATE:
                raise exists_already(name)
            if pending.is_replacing and not request.is_owner and self.tables.owner(name) != request.maker:
                raise exists_already(name)  # it did not exist when the permissions were checked
            if pending.files or not (pending.is_replacing or committer.state.schema.equals(stored)):
                raise UsageError(f"The table {name} was created by another call.", remedy="Send the rows again.")
        self.store(request, pending, staging=None)

    def _open_model_write(self, request: WriteRequest, schema: pa.Schema, definition: TableDefinition) -> "LakeWrite":
        if request.mode is WriteMode.CREATE:
            raise exists_already(request.table)
        if request.mode is WriteMode.REPLACE:
            raise UsageError(f"The table {request.table} belongs to the data model.", remedy="Delete rows instead.")
        if not request.is_own:
            check_columns(schema, definition)
        stored = stored_definition(definition)
        committer = self._require_defined(request.table, stored)
        if not is_compatible(stored, committer.state.schema):
            raise Unavailable(_takes_no_rows(request.table), remedy=_TAKES_NO_ROWS, retryable=False)

        def convert(rows: pa.RecordBatch) -> pa.RecordBatch:
            converted = rows if request.is_own else convert_model_rows(rows, definition)
            if definition is LOG_ENTRIES and not request.is_trusted:
                check_targets(converted)
            if not request.is_own:
                check_origin(converted, definition)
            return convert_definition_rows(converted, definition, stored)

        return LakeWrite(self, request, committer.state.schema, convert, committer)

    def _require_defined(self, table: str, stored: pa.Schema) -> "_Committer":
        """Return the committer of a data model table after creating the table or adding missing columns."""
        committer = self._find(table)
        if committer is not None and not is_compatible(stored, committer.state.schema):
            committer = self._find(table, is_certain=True)
        if committer is None:
            self.tables.create_defined(table)
            committer = self._require(table)
        known = pa.schema([one for one in stored if not one.name.endswith(NANOS)])
        if not is_compatible(stored, committer.state.schema) and is_compatible(known, committer.state.schema):
            self.tables.complete_defined(table)
            committer = self._require(table, is_certain=True)
        return committer

    def _require(self, table: str, *, is_certain: bool = False) -> "_Committer":
        committer = self._find(table, is_certain=is_certain)
        if committer is None:
            raise no_table(table)
        return committer

    def _find(self, table: str, *, is_certain: bool = False) -> "_Committer | None":
        """Return the committer of an existing table; if `is_certain`, check again."""
        with self._lock:
            if self._is_closed:
                raise Unavailable("The server is shutting down.")
            committer = self._committers.pop(table, None)
            if committer is not None:
                self._committers[table] = committer  # preserves the order of last use
        if committer is not None and not committer.is_gone and (not is_certain or committer.refresh()):
            return committer
        try:
            made = _Committer(self._storage, table, interval_seconds=self._interval_seconds)
        except TableGone:
            return None
        with self._lock:
            known = self._committers.get(table)
            found = made if known is None or known is committer else known
            self._committers.pop(table, None)
            self._committers[table] = found
            unused = [name for name, one in self._committers.items() if one.is_idle and one is not found]
            closed = [self._committers.pop(name) for name in unused[:-_MAX_IDLE_TABLES]]
        if found is not made:
            closed.append(made)
        elif committer is not None:
            closed.append(committer)
        for one in closed:
            one.close()
        return found


class LakeWrite:
    """A write in progress; implements `TableWrite`."""

    def __init__(
        self,
        writer: LakeWriter,
        request: WriteRequest,
        schema: pa.Schema,
        convert: Callable[[pa.RecordBatch], pa.RecordBatch],
        committer: "_Committer | None",  # None for a table that has yet to be created
    ) -> None:
        self._writer = writer
        self._request = request
        self._schema = schema
        self._convert = convert
        self._table_id = None if committer is None else committer.state.table_id
        self._partition_by: tuple[str, ...] = ()
        if committer is not None and request.mode is not WriteMode.REPLACE:
            self._partition_by = committer.state.partition_by
        self._staging = writer.tables.new_staging(request.table) if committer is None else None
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = self._row_count = 0
        self._files: list[Action] = []

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        converted = self._convert(batch)
        if converted.num_rows == 0:
            return
        size = converted.nbytes
        self._waiting.append(converted)
        self._row_count += converted.num_rows
        self._waiting_bytes += size
        are_too_many = self._writer.note_waiting(size)
        if self._waiting_bytes >= STAGE_BYTES or (are_too_many and self._waiting_bytes > _MAX_GROUPED_BYTES):
            self._write_files()

    def submit(self) -> Future[int]:
        """Commit all rows atomically; the future's result is the number of rows."""
        if self._waiting and (self._files or self._waiting_bytes > _MAX_GROUPED_BYTES):
            self._write_files()
        size = self._waiting_bytes
        self._writer.note_waiting(-size)
        pending = _Pending(
            rows=self._take(),
            files=tuple(self._files),
            row_count=self._row_count,
            size=size,
            write_id=self._request.write_id,
            is_replacing=self._request.mode is WriteMode.REPLACE,
            table_id=self._table_id,
            is_short_lived=self._request.is_short_lived,
        )
        self._writer.store(self._request, pending, staging=self._staging)
        return pending.done

    def commit(self) -> int:
        """Make all rows durable and visible together, and return the number of rows."""
        return self.submit().result()

    def abandon(self) -> None:
        """Discard the rows; the log never references files that were already written, and vacuum removes them."""
        self._writer.note_waiting(-self._waiting_bytes)
        self._waiting, self._waiting_bytes = [], 0

    def _write_files(self) -> None:
        size = self._waiting_bytes
        try:
            rows, partition_by = self._take(), self._partition_by
            self._files += self._writer.stage(
                self._request.table, rows, partition_by=partition_by, staging=self._staging
            )
        finally:
            self._writer.note_waiting(-size)

    def _take(self) -> pa.Table:
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        rows = pa.Table.from_batches(waiting, waiting[0].schema if waiting else self._schema)
        check_partitions(rows, self._partition_by)
        return rows


class _Committer:
    """Commits a table's writes in groups, on a thread that stops when none are waiting."""

    def __init__(self, storage: Storage, table: str, *, interval_seconds: float) -> None:
        self._storage = storage
        self._table = table
        self._interval_seconds = interval_seconds
        self._changed = threading.Condition()
        self._queue: deque[_Pending] = deque()
        self._queued_bytes = 0
        self._thread: threading.Thread | None = None
        self._last_commit = float("-inf")
        self._is_closing = False
        self.is_gone = False
        self._turn = threading.Lock()  # guards the state and the turn to commit
        self.state = _State(storage, table)

    def refresh(self) -> bool:
        """Read other processes' commits; return False if the table is gone."""
        with self._turn:
            try:
                try:
                    with self.state.guard.hold():
                        self._absorb(_Attempt())
                except (TableGone, _Outdated):
                    self._reopen([])
            except TableGone:
                self.is_gone = True
        return not self.is_gone

    def fitting_schema(self, schema: pa.Schema, request: WriteRequest) -> pa.Schema:
        """Return the table's columns if rows with `schema` fit them; they are read again if the rows don't fit."""
        try:
            check_fits(schema, self.state.schema, is_known=request.may_read)
        except UsageError:
            if not self.refresh():
                raise no_table(self._table) from None
            try:
                check_fits(schema, self.state.schema, is_known=request.may_read)
            except UsageError as error:
                if request.mode is WriteMode.CREATE_OR_APPEND:  # ADBC expects this status
                    raise TableExists(error.what, remedy=error.remedy) from None
                raise
        return self.state.schema

    def stage(self, rows: pa.Table, partition_by: tuple[str, ...]) -> list[Action]:
        """Write files that no commit references yet."""
        try:
            with self.state.guard.hold():
                return write_files(self._storage, self._table, rows, partition_by=partition_by)
        except TableGone:
            raise _gone(self._table) from None

    @property
    def is_idle(self) -> bool:
        """Whether no writes are waiting."""
        return self._thread is None

    def submit(self, pending: _Pending) -> bool:
        """Queue a write; waits for space. False if closed."""
        if pending.row_count == 0 and not pending.is_replacing:
            pending.done.set_result(0)
            return True

        def has_space() -> bool:
            is_full = self._queued_bytes + pending.size > _MAX_QUEUED_BYTES or len(self._queue) >= _MAX_QUEUED_WRITES
            return not (self._queue and is_full)

        with self._changed:
            if not self._changed.wait_for(has_space, _QUEUE_SECONDS):
                raise ResourcesExhausted(
                    "Rows are arriving faster than they can be stored.", remedy="Send them again later.", limit="ingest"
                )
            if self._is_closing:
                return False
            self._queue.append(pending)
            self._queued_bytes += pending.size
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"commit-{self._table}", daemon=True)
                self._thread.start()
            if len(self._queue) >= _GROUP_WRITES:
                self._changed.notify_all()
        return True

    def close(self) -> None:
        """Commit pending writes, and accept no more; callers that are about to use the state still can."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while group := self._next_group():
            self._last_commit = SYSTEM_CLOCK.monotonic()
            try:
                with self._turn:
                    self._commit(group)
            except BaseException as error:  # noqa: BLE001 - the callers raise it
                for one in group:
                    if not one.done.done():
                        one.done.set_exception(error.copy() if isinstance(error, MicromegasError) else error)

    def _next_group(self) -> list[_Pending]:
        """Return the writes for the next commit when it is due, or none if the thread must stop."""
        with self._changed:
            due = self._last_commit + self._interval_seconds - SYSTEM_CLOCK.monotonic()
            if self._queue and due > 0:
                self._changed.wait_for(lambda: len(self._queue) >= _GROUP_WRITES or self._is_closing, due)
            group: list[_Pending] = []
            size = 0
            while self._queue and not (group and (self._queue[0].is_replacing or group[0].is_replacing)):
                size += self._queue[0].size
                if group and size > _MAX_GROUP_BYTES:
                    break
                group.append(self._queue.popleft())
                self._queued_bytes -= group[-1].size
            if not group:
                self._thread = None
            self._changed.notify_all()
            return group

    def _commit(self, group: list[_Pending]) -> None:
        """Store a group in one commit, retrying after other commits; each write's future is done on return."""
        attempt = _Attempt()
        try:
            for _ in range(_MAX_ATTEMPTS):
                try:
                    with self.state.guard.hold():
                        self._absorb(attempt)
                        fresh = self._select(group)
                        if not fresh:
                            return
                        if fresh != attempt.group or not attempt.files:
                            attempt.group, attempt.files = fresh, self._write_group(fresh)
                        self._try(attempt)
                except (TableGone, _Outdated) as reason:
                    if isinstance(reason, TableGone):
                        self._take_back(attempt.entry_id)
                    attempt.files = []
                    self._reopen(group)
        except TableGone:
            self.is_gone = True
            raise _gone(self._table) from None
        except MicromegasError as error:
            if not attempt.failures:
                raise
            raise Unavailable(
                f"It is unknown whether the rows were stored, because the storage failed during their "
                f"commit. {error.what}",
                remedy="Send them again with the same ID, which stores them only once. Without an ID, check the "
                "table first.",
            ) from error
        raise Unavailable("The table is constantly being changed by other calls. None of the rows were stored.")

    def _try(self, attempt: _Attempt) -> None:
        """Add a log entry, unless another one already has its version."""
        version = self.state.version + 1
        path, content = log_path(self._table, entry_name(version)), self._build_entry(attempt)
        try:
            is_stored = self._storage.create(path, content)
        except MicromegasError:
            if self._storage.is_local and self._storage.read(path, max_bytes=MAX_ENTRY_BYTES) is None:
                raise
            attempt.failures += 1
            if attempt.failures > _MAX_FAILURES:
                raise
            return  # the next attempt finds the commit, or takes the same version with the same files
        if is_stored:  # otherwise, the next attempt checks whose commit it was
            attempt.failures += 1
            self._advance(version, attempt)
            if attempt.group[0].is_replacing:
                raise _Outdated

    def _absorb(self, attempt: _Attempt) -> None:
        """Read new commits, possibly from an earlier attempt; raises `_Outdated`."""
        state, is_changed, is_stored = self.state, False, False
        version = state.version
        # If entries were cleaned up, the version after ours appears to be free, but would be before the checkpoint.
        own_entry = f"{self._storage.uri}/{log_path(self._table, entry_name(version))}"
        is_known = not self._storage.is_local or Path(own_entry).exists()
        if not is_known and open_delta(self._storage, self._table).version() > version:
            raise _Outdated
        while (actions := read_entry(self._storage, self._table, version + 1)) is not None:
            version += 1
            is_stored |= is_entry(actions, attempt.entry_id)
            info = commit_info(actions)
            state.short_lived_ids.update(info.get(SHORT_LIVED_IDS, {}))
            is_changed |= info.get("operation") == RESTORE  # it reverts IDs
            for action in actions:
                if "txn" in action:
                    state.write_ids[action["txn"]["appId"]] = int(action["txn"]["version"])
                is_changed |= "metaData" in action or "protocol" in action
        if version > state.version:
            self._storage.sync_folder(f"{self._table}/{LOG_FOLDER}")
            self._advance(version, attempt if is_stored else _Attempt())
            attempt.failures = 0  # the attempted version is taken, and the process that wrote it is known
        if is_changed or len(state.write_ids) > state.max_write_ids:
            raise _Outdated

    def _advance(self, version: int, stored: _Attempt) -> None:
        """Advance to a version, unless the table is gone, and complete the writes that it stores."""
        self.state.guard.check(version)
        self.state.version = version
        for one in stored.group:
            if one.write_id is not None:
                ids = self.state.short_lived_ids if one.is_short_lived else self.state.write_ids
                ids[one.write_id] = one.row_count
            if not one.done.done():
                one.done.set_result(one.row_count)
        stored.failures = 0

    def _reopen(self, group: list[_Pending]) -> None:
        """Read the table again; if another table now has its name, that table doesn't get files meant for the first."""
        state = _State(self._storage, self._table)
        is_same, self.state = state.table_id == self.state.table_id, state
        for one in group:
            if not (is_same or one.done.done()) and (one.files or one.is_replacing):
                one.done.set_exception(_gone(self._table))

    def _take_back(self, entry_id: str) -> None:
        """Remove an entry that was added to a table in a bucket after the table was dropped."""
        if not take_back(self._storage, self._table, self.state.version + 1, entry_id):
            raise Unavailable("The table was dropped and restored in the meantime.")

    def _select(self, group: list[_Pending]) -> list[_Pending]:
        """Return the writes that have yet to be stored, and complete the others."""
        fresh: list[_Pending] = []
        ids: set[str] = set()
        for one in group:
            if one.done.done() or one.write_id in ids:
                continue  # the next round completes a write whose ID occurs twice in this group
            known = self.state.find_id(one.write_id)
            if known is not None and known != one.row_count:
                one.done.set_exception(
                    UsageError(
                        f"This ID was already used to store {rows_text(known)}, but this call has {one.row_count:,}.",
                        remedy="Use a new ID for each call, and reuse an ID only to repeat its call.",
                    )
                )
            elif known is not None:
                one.done.set_result(one.row_count)
            elif one.files and one.table_id is not None and one.table_id != self.state.table_id:
                one.done.set_exception(_gone(self._table))  # another table now has this name
            elif not one.is_replacing and not self._fits(one):
                one.done.set_exception(
                    UsageError(
                        f"The columns of {self._table} changed while the rows were being sent.",
                        remedy="Send them again.",
                    )
                )
            else:
                fresh.append(one)
                if one.write_id is not None:
                    ids.add(one.write_id)
        return fresh

    def _fits(self, pending: _Pending) -> bool:
        # Files don't contain partition columns, so files with different partitioning would lack some columns.
        partitions = (file["add"]["partitionValues"].keys() for file in pending.files)
        is_partitioned_so = all(names == set(self.state.partition_by) for names in partitions)
        schema = pending.rows.schema
        if is_partitioned_so and not schema.equals(self.state.fitting):
            if not is_compatible(schema, self.state.schema):
                return False
            self.state.fitting = schema
        return is_partitioned_so

    def _write_group(self, group: list[_Pending]) -> list[Action]:
        rows = pa.concat_tables([one.rows for one in group], promote_options="default")
        partition_by = () if group[0].is_replacing else self.state.partition_by
        files = write_files(self._storage, self._table, rows, partition_by=partition_by)
        return [*files, *(file for one in group for file in one.files)]

    def _build_entry(self, attempt: _Attempt) -> bytes:
        group, version = attempt.group, self.state.version
        is_replacing = group[0].is_replacing
        actions = _transactions(group)
        short_lived = {one.write_id: one.row_count for one in group if one.is_short_lived and one.write_id is not None}
        if is_replacing:
            schema = group[0].rows.schema
            actions += replacement_actions(self._storage, self._table, schema, version=version, clock=SYSTEM_CLOCK)
        return build_entry(
            "WRITE",
            attempt.entry_id,
            [*actions, *attempt.files],
            clock=SYSTEM_CLOCK,
            operationParameters={"mode": "Overwrite" if is_replacing else "Append"},
            operationMetrics={"writes": len(group), "rows": sum(one.row_count for one in group)},
            readVersion=version,
            isBlindAppend=not is_replacing,
            **({SHORT_LIVED_IDS: short_lived} if short_lived else {}),
        )


def _transactions(group: Sequence[_Pending]) -> list[Action]:
    """Return the application transactions of writes: their IDs and the number of rows in each."""
    now, ids = (
        milliseconds(SYSTEM_CLOCK),
        [(one.write_id, one.row_count) for one in group if one.write_id and not one.is_short_lived],
    )
    return [{"txn": {"appId": name, "version": count, "lastUpdated": now}} for name, count in ids]


def _takes_no_rows(table: str) -> str:
    return f"The table {table} takes no rows: its columns are not those of the data model."


def _gone(table: str) -> UsageError:
    return UsageError(
        f"The table {table} was dropped while rows were being sent. None of the rows were stored.",
        remedy="Create the table and send the rows again.",
    )
