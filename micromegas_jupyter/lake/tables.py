"""The tables of a lake: one Delta table each; multiple processes can create, change, and drop them."""

import datetime as dt
import json
import re
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Schema
from deltalake.exceptions import CommitFailedError

from micromegas_jupyter.core.files import sync_folder
from micromegas_jupyter.core.storage import Storage, make_private_folder, storage_errors
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.core.text import shown
from micromegas_jupyter.errors import ResourcesExhausted, TableExists, Unavailable, UsageError
from micromegas_jupyter.lake.delta_log import (
    DROPPED_MARKER,
    EXPIRED_BEFORE,
    LOG_FOLDER,
    TIME,
    Action,
    TableGone,
    TableGuard,
    arrow_schema,
    build_entry,
    check_writable,
    commit_info,
    committed_at,
    entry_name,
    is_entry,
    live_files,
    log_path,
    milliseconds,
    open_delta,
    parse_actions,
    read_checkpoint_version,
    read_entry,
    take_back,
    times_of_files,
)
from micromegas_jupyter.lake.dropped import (
    DROPPED_FOLDER,
    MAX_UNDO_HOURS,
    UNDO_HOURS,
    UNDO_LIMIT,
    VIEWS_LEASE,
    check_held,
    free_name,
    hold_names,
    list_dropped,
    mark_dropped,
    new_dropped,
    postpone_drop,
    read_marker,
)
from micromegas_jupyter.lake.types import PARTITION_DATE, stored_definition, stored_field, stored_schema
from micromegas_jupyter.telemetry.tables import NANOS, TABLES, VIEW_SOURCES
from micromegas_jupyter.telemetry.view_definitions import ViewDefinition

MAX_TABLES: Final = 1000
OWNER_PROPERTY: Final = "micromegas.owner"
RETENTION_PROPERTY: Final = "micromegas.retentionDays"
UNDO_PROPERTY: Final = "micromegas.undoHours"
VIEW_SOURCE_PROPERTY: Final = "micromegas.viewSource"
"""The table that a materialized view is computed from."""
VIEW_ID_PROPERTY: Final = "micromegas.viewId"
"""Distinguishes a view from earlier ones with the same definition."""
VIEW_UPDATED_PROPERTY: Final = "micromegas.viewUpdatedAt"
VIEW_UPDATED_BY_PROPERTY: Final = "micromegas.viewUpdatedBy"
TIME_TRAVEL_PROPERTY: Final = "micromegas.timeTravel"
"""Who may read earlier versions of a table: `OWNERS`, the default, or `READERS`."""
OWNERS: Final = "owners"
READERS: Final = "readers"
MAX_VIEWS: Final = 100
"""The maximum number of materialized views in a lake."""
MODEL_RETENTION_DAYS: Final = 7
"""The default retention of the data model's tables."""
DEFINITIONS: Final = {definition.name: definition for definition in TABLES}
_PROPERTIES: Final = {
    "delta.logRetentionDuration": "interval 1 day",
    "delta.setTransactionRetentionDuration": "interval 1 day",
}
# Without a retention duration for transactions, because a view's watermark must never be forgotten.
_VIEW_PROPERTIES: Final = {"delta.logRetentionDuration": "interval 1 day"}
_PRESERVED_PROPERTIES: Final = (OWNER_PROPERTY, RETENTION_PROPERTY, UNDO_PROPERTY, TIME_TRAVEL_PROPERTY)
RETENTION: Final = "RETENTION"
"""The operation, in histories, of a commit by which retention deleted rows; deltalake calls it DELETE."""
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)
# Names of tables and views in upstream's data model that are not implemented here yet.
_RESERVED: Final = frozenset(
    {
        *VIEW_SOURCES, "async_events", "images", "information_schema", "net_spans", "payloads", "thread_spans",
    }
)  # fmt: skip
_TIMES: Final = ("written", "first_insert", "last_insert", "first_event", "last_event")
_FILES: Final = pa.schema({"path": pa.string(), "size": pa.int64(), "rows": pa.int64(), **dict.fromkeys(_TIMES, TIME)})
_MAX_PREDICATE: Final = 10_000
#: A column name; strings and comments come first, so that no names are found in them.
_COLUMN: Final = re.compile(
    r"""'(?:[^']|'')*'|\$\$.*?\$\$|--[^\n]*|/\*.*?\*/|"(?P<quoted>[^"]*)"|(?<![.\w])(?P<word>[^\W\d]\w*)""",
    re.DOTALL,
)
_OF_A_CONDITION: Final = re.compile(
    "evaluating filter|(?:Cast|Compute|Parser|Execution) error|Divide by zero|[Oo]verflow|regex|"
    "nondeterministic function|convert expression to string|Invalid comparison operation"
)
_MAX_ATTEMPTS: Final = 10
_OPENED_AT_ONCE: Final = 16
_AFTER: Final = dt.timedelta(milliseconds=2)
_ENTRY_ID: Final = "micromegasEntryId"
# deltalake's own cleanup removes log entries that a restore needs.
_NO_HOOKS: Final = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


class Deletion(NamedTuple):
    """The number of deleted rows, and when they were deleted; None if no commit was needed."""

    rows: int
    committed_at: dt.datetime | None


class Tables:
    """Creates, finds, changes, and drops tables; safe to use from several threads and processes."""

    def __init__(
        self,
        storage: Storage,
        *,
        clock: Clock = SYSTEM_CLOCK,
        check_condition: Callable[[Any], None] = lambda _: None,
    ) -> None:
        """`check_condition` raises for a DataFusion expression for which deltalake would delete the wrong rows."""
        self.storage = storage
        self._clock = clock
        self._check_condition = check_condition

    def list(self) -> tuple[str, ...]:
        """Return the names of all tables."""
        return tuple(name for name in self.storage.list_folders() if self._is_there(name))

    def find(self, name: str) -> DeltaTable | None:
        """Return the latest version of the table, or None."""
        if not is_name(name):
            return None
        try:
            return open_delta(self.storage, name)
        except TableGone:
            return None

    def create(
        self, name: str, schema: pa.Schema, *, owner: str | None = None, partition_by: Sequence[str] = ()
    ) -> None:
        """Create an empty table."""
        check_name(name)
        stored = stored_schema(schema)
        check_partition_columns(stored, partition_by)
        self.check_capacity()
        if not self.add(name, stored, owner=owner, partition_by=partition_by):
            raise exists_already(name)

    def create_defined(self, name: str) -> None:
        """Create a table of the data model unless it exists."""
        columns = stored_definition(DEFINITIONS[name]).append(pa.field(PARTITION_DATE, pa.date32()))
        self.add(name, columns, partition_by=(PARTITION_DATE,))

    def complete_defined(self, name: str) -> None:
        """Add the columns that a data model table created by an earlier version of this program lacks."""

        def alter(table: DeltaTable, properties: CommitProperties) -> None:
            names = {known.name for known in table.schema().fields}
            missing = [one for one in stored_definition(DEFINITIONS[name]) if one.nullable and one.name not in names]
            if missing:
                table.alter.add_columns(
                    Schema.from_arrow(pa.schema(missing)).fields,
                    commit_properties=properties,
                    post_commithook_properties=_NO_HOOKS,
                )

        self._change(name, alter, "The table could not be given its columns.")

    def add(  # noqa: PLR0913 - a table and what its first version holds
        self,
        name: str,
        stored: pa.Schema,
        *,
        owner: str | None = None,
        partition_by: Sequence[str] = (),
        actions: Sequence[Action] = (),
        staging: str | None = None,
        properties: Mapping[str, str] = _PROPERTIES,
    ) -> bool:
        """Create a table whose first version has these actions; False if one with that name already exists.

        The files of the actions are in `staging`, a path from `new_staging`.
        """
        properties = {**properties, **({} if owner is None else {OWNER_PROPERTY: owner})}
        made = [one for one in _creation(stored, partition_by, properties) if "commitInfo" not in one]
        entry = build_entry("CREATE TABLE", uuid.uuid4().hex, [*made, *actions], clock=self._clock)
        if not self.storage.is_local:
            if not list_dropped(self.storage, name):
                return self._add_object(name, entry)
            with self._freeing(name):
                return self._add_object(name, entry)
        staging = staging or self.new_staging(name)
        self.storage.write(log_path(staging, entry_name(0)), entry)
        root = Path(self.storage.uri)
        with storage_errors("The table could not be created.", self.storage):
            try:
                (root / staging).rename(root / name)  # fails for a nonempty directory
            except OSError:
                if not (root / name).exists():
                    raise
                return False
            sync_folder(root)
        return True

    def create_view(  # noqa: PLR0913 - a view and who made it
        self, view: ViewDefinition, schema: pa.Schema, *, source: str, replaces: bool, owner: str, updated_by: str
    ) -> bool:
        """Create an empty materialized view or, with `replaces`, empty an existing one; return whether it did."""
        check_name(view.name)
        stored = stored_schema(schema)
        facts = {
            VIEW_SOURCE_PROPERTY: source,
            VIEW_ID_PROPERTY: uuid.uuid4().hex,
            VIEW_UPDATED_PROPERTY: self._clock.now().isoformat(),
            VIEW_UPDATED_BY_PROPERTY: updated_by,
        }
        properties = {**_VIEW_PROPERTIES, **view.to_properties(), **facts}
        for _ in range(_MAX_ATTEMPTS):
            delta = self.find(view.name)
            if delta is None:
                with self.adding(properties):
                    if self.add(view.name, stored, owner=owner, properties=properties):
                        return False
            elif VIEW_SOURCE_PROPERTY not in delta.metadata().configuration:
                raise TableExists(f"The table {view.name} already exists and is not a materialized view.")
            elif not replaces:
                raise TableExists(
                    f"The materialized view {view.name} already exists.",
                    remedy="Use CREATE OR REPLACE MATERIALIZED VIEW to change it.",
                )
            elif self._replace_view(view.name, stored, properties):
                return True
        raise Unavailable("The view is constantly being changed by other calls.")

    def _replace_view(self, name: str, stored: pa.Schema, properties: Mapping[str, str]) -> bool:
        """Give a view a different definition, without rows; False if another commit was made in between."""
        with self._holding(name) as guard:
            version, entry_id = guard.delta.version(), uuid.uuid4().hex
            found = guard.delta.metadata().configuration
            kept: dict[str, str] = {one: found[one] for one in _PRESERVED_PROPERTIES if one in found}
            actions = replacement_actions(
                self.storage, name, stored, version=version, clock=self._clock, properties={**kept, **properties}
            )
            content = build_entry("CREATE OR REPLACE VIEW", entry_id, actions, clock=self._clock, readVersion=version)
            return add_entry(self.storage, guard, log_path(name, entry_name(version + 1)), content)

    def drop_view(self, name: str) -> bool:
        """Hide a materialized view as `drop` does; return False if it doesn't exist."""
        delta = self.find(name)
        if delta is None:
            return False
        if VIEW_SOURCE_PROPERTY not in delta.metadata().configuration:
            raise UsageError(
                f"{shown(name)} is a table, not a materialized view.", remedy="Run `micromegas tables drop`."
            )
        self.drop(name)
        return True

    def new_staging(self, name: str) -> str:
        """Return the path for the files of a table that doesn't exist yet."""
        if self.storage.is_local:
            return f"{DROPPED_FOLDER}/{uuid.uuid4().hex}"
        if read_marker(self.storage, name) is not None:
            with self._freeing(name):
                pass
        return name

    def _add_object(self, name: str, entry: bytes) -> bool:
        if read_checkpoint_version(self.storage, name) >= 0:
            return False  # its first log entries may have been cleaned up
        path = log_path(name, entry_name(0))
        if self.storage.create(path, entry):
            return True
        found = self.storage.read(path)
        return found is not None and found[0] == entry  # only the response was lost

    @contextmanager
    def _freeing(self, name: str) -> Iterator[None]:
        """Move a dropped table in a bucket away, and keep other processes from restoring it during the move."""
        with hold_names(self.storage) as lease:
            free_name(self.storage, name, lease=lease, before=self._clock.now() - UNDO_LIMIT)
            check_held(lease)
            yield

    def drop(self, name: str) -> dt.datetime:
        """Hide a table and free its name; return when it was dropped."""
        if name in DEFINITIONS:
            raise UsageError(f"The table {name} belongs to the data model.", remedy="Delete its rows instead.")
        if not self.storage.is_local:
            try:
                return self._drop_object(name)
            except TableGone:
                raise no_table(name) from None
        root = Path(self.storage.uri)
        with storage_errors("The table could not be dropped.", self.storage):
            make_private_folder(root / DROPPED_FOLDER)
            with self._holding(name, is_exclusive=True) as guard:
                dropped_at = self._time_after(name, guard.delta)
                hours = undo_hours(guard.delta.metadata().configuration)
                (root / name).rename(root / new_dropped(name, dropped_at, undo_hours=hours).folder)
            sync_folder(root / DROPPED_FOLDER)
            sync_folder(root)
        return dropped_at

    def _drop_object(self, name: str) -> dt.datetime:
        delta = self._open(name)
        hours = undo_hours(delta.metadata().configuration)
        marked = new_dropped(name, self._time_after(name, delta), undo_hours=hours)
        mark_dropped(self.storage, marked)
        last = committed_at(self.storage, name, open_delta(self.storage, name, is_hidden=True).version())
        if last is None or last + _AFTER <= marked.dropped_at:
            return marked.dropped_at
        # Rows that were stored between the check and the marker are restored with the table.
        return postpone_drop(self.storage, marked, last + _AFTER)

    def _time_after(self, name: str, delta: DeltaTable) -> dt.datetime:
        """Return the current time, or a later one if the latest commit's clock was ahead."""
        last = committed_at(self.storage, name, delta.version())
        now = self._clock.now()
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)  # the same precision as the log
        return now if last is None else max(now, last + _AFTER)

    def delete(
        self, name: str, predicate: str, *, hides_values: bool = False, expired_before: dt.date | None = None
    ) -> "Deletion":
        """Delete the rows for which a SQL condition holds. Errors may contain values unless the call `hides_values`.

        If the rows are `expired_before` a day, a restore never brings them back.
        """
        found = self._open(name)
        if expired_before is None:
            check_no_view(found, name)
        columns = arrow_schema(found)
        condition = _checked_predicate(_with_whole_times(predicate, name, columns), columns, self._check_condition)
        # deltalake deletes all rows if a condition without columns is NULL or fails.
        if (is_met := _constant(condition)) is not None:
            if not is_met:
                return Deletion(0, None)
            condition = "true"

        def delete(table: DeltaTable, properties: CommitProperties) -> tuple[int, int | None]:
            before = table.version()
            try:
                metrics = table.delete(condition, commit_properties=properties, post_commithook_properties=_NO_HOOKS)
            except Exception as error:
                if _OF_A_CONDITION.search(str(error)):
                    raise (_failing_predicate() if hides_values else _wrong_predicate(error)) from error
                raise
            version = table.version()
            return int(metrics["num_deleted_rows"] or 0), version if version > before else None

        facts = {} if expired_before is None else {EXPIRED_BEFORE: expired_before.isoformat()}
        rows, version = self._change(name, delete, "The rows could not be deleted.", facts=facts)
        return Deletion(rows, None if version is None else committed_at(self.storage, name, version))

    def add_column(self, name: str, column: pa.Field) -> None:
        """Add a column, which is null in existing rows."""
        if name in DEFINITIONS:
            raise UsageError(f"The columns of {name} are defined by the data model.", remedy="Use your own table.")
        stored = stored_field(column)
        if not stored.nullable:
            raise UsageError(
                f"The column {shown(column.name)} cannot be required because existing rows lack it.",
                remedy="Make it nullable.",
            )

        def alter(table: DeltaTable, properties: CommitProperties) -> None:
            check_no_view(table, name)
            names = {known.name.lower() for known in table.schema().fields}
            if stored.name.lower() in names:
                raise UsageError(f"The column {shown(column.name)} already exists.", remedy="Choose another name.")
            table.alter.add_columns(
                Schema.from_arrow(pa.schema([stored])).fields[0],
                commit_properties=properties,
                post_commithook_properties=_NO_HOOKS,
            )

        self._change(name, alter, "The column could not be added.")

    def describe(self, name: str) -> dict[str, Any]:
        """Return a table's description as JSON; `row_count` is None if a file doesn't specify its row count."""
        delta = self._open(name)
        with storage_errors("The table could not be read.", self.storage):
            metadata = delta.metadata()
            files = live_files(delta)
        counts = files.column("num_records").to_pylist() if "num_records" in files.column_names else []
        if "deletionVectors" in (delta.protocol().reader_features or ()):
            counts = [None]  # includes rows that have since been deleted
        definition = DEFINITIONS.get(name)
        shown_names = None if definition is None else definition.schema.names
        return {
            "name": name,
            "columns": [
                {"name": column.name, "type": str(column.type), "nullable": column.nullable}
                for column in arrow_schema(delta)
                if shown_names is None or column.name in shown_names
            ],
            "partition_by": metadata.partition_columns,
            "owner": metadata.configuration.get(OWNER_PROPERTY),
            "retention_days": retention_days(metadata.configuration),
            "undo_hours": undo_hours(metadata.configuration),
            "time_travel": READERS if allows_readers(metadata.configuration) else OWNERS,
            "version": delta.version(),
            "files": files.num_rows,
            "size_bytes": sum(files.column("size_bytes").to_pylist()),
            "row_count": None if None in counts or len(counts) < files.num_rows else sum(counts),
            "created_at": _time(metadata.created_time),
        }

    def history(self, name: str, limit: int) -> tuple[dict[str, Any], ...]:
        """Return the latest commits in the log as JSON, newest first."""
        delta = self._open(name)
        with storage_errors("The history could not be read.", self.storage):
            return tuple(
                {
                    "version": one["version"],
                    "committed_at": _time(one.get("timestamp")),
                    "operation": _name_operation(one),
                    "engine": one.get("engineInfo"),
                    "parameters": one.get("operationParameters") or {},
                    "metrics": one.get("operationMetrics") or {},
                }
                for one in delta.history(limit)
            )

    def owner(self, name: str) -> str | None:
        """Return a table's creator, or None if it is unknown or the table doesn't exist."""
        delta = self.find(name)
        return None if delta is None else delta.metadata().configuration.get(OWNER_PROPERTY)

    def set_retention(self, name: str, days: int | None) -> None:
        """Set how many days rows are kept; None means the server's setting."""
        self._set_properties(name, {RETENTION_PROPERTY: "" if days is None else str(days)})

    def set_undo_hours(self, name: str, hours: int) -> None:
        """Set how long changes can be undone, which is how long log entries and unused files are kept."""
        # Checkpoints drop removals after Delta's own retention duration, and vacuum could then not date them.
        kept = f"interval {hours + 2} hours"
        durations = {"delta.logRetentionDuration": kept, "delta.deletedFileRetentionDuration": kept}
        self._set_properties(name, {UNDO_PROPERTY: str(hours), **durations})

    def set_time_travel(self, name: str, to: str) -> None:
        """Set who may read earlier versions."""
        self._set_properties(name, {TIME_TRAVEL_PROPERTY: to})

    def _set_properties(self, name: str, values: dict[str, str]) -> None:
        self._change(
            name,
            lambda table, properties: table.alter.set_table_properties(
                values,
                raise_if_not_exists=False,
                commit_properties=properties,
                post_commithook_properties=_NO_HOOKS,
            ),
            "The table's settings could not be changed.",
        )

    def check_capacity(self, *, owner: str | None = None, max_tables: int | None = None) -> None:
        """Check that one more table is allowed, both in total and for this owner."""
        names = self.list()
        if len(names) >= MAX_TABLES:
            raise ResourcesExhausted(
                f"There are already {MAX_TABLES:,} tables, which is the maximum.",
                remedy="Append to one of them, or drop one.",
                limit="ingest",
            )
        if max_tables is None or len(names) < max_tables:
            return  # true for most calls, without opening any tables
        if sum(self.owner(name) == owner for name in names) >= max_tables:
            raise ResourcesExhausted(
                f"You have created {max_tables:,} tables, which is the maximum for one caller.",
                remedy="Append to one of them, drop one, or request a higher limit from the server's administrator.",
                limit="ingest",
            )

    @contextmanager
    def adding(self, properties: Mapping[str, str]) -> Iterator[None]:
        """Check that one more table is allowed; if it's a view, keep other processes from adding one concurrently."""
        self.check_capacity()
        if VIEW_SOURCE_PROPERTY not in properties:
            yield
            return
        with hold_names(self.storage, VIEWS_LEASE) as lease:
            names = [name for name in self.list() if name not in DEFINITIONS]
            if len(names) >= MAX_VIEWS:
                with ThreadPoolExecutor(1 if self.storage.is_local else _OPENED_AT_ONCE) as pool:
                    count = sum(pool.map(self._is_view, names))
                if count >= MAX_VIEWS:
                    raise ResourcesExhausted(
                        f"There are already {MAX_VIEWS} materialized views, which is the maximum.",
                        remedy="Drop one of them.",
                        limit="ingest",
                    )
            check_held(lease)
            yield

    def _is_view(self, name: str) -> bool:
        delta = self.find(name)
        return delta is not None and VIEW_SOURCE_PROPERTY in delta.metadata().configuration

    def _open(self, name: str) -> DeltaTable:
        delta = self.find(name)
        if delta is None:
            raise no_table(name)
        return delta

    def _is_there(self, name: str) -> bool:
        if not is_name(name):
            return False
        if self.storage.is_local:
            return (Path(self.storage.uri) / name / LOG_FOLDER).is_dir()
        names = {entry.path.rsplit("/", 1)[-1] for entry in self.storage.list(f"{name}/{LOG_FOLDER}")}
        return bool(names) and DROPPED_MARKER not in names

    def _change(
        self,
        name: str,
        change: Callable[[DeltaTable, CommitProperties], Any],
        what: str,
        *,
        facts: Mapping[str, str] = MappingProxyType({}),
    ) -> Any:
        """Have deltalake commit a change, repeat it if another commit was made in between, and sync it to disk."""
        for _ in range(_MAX_ATTEMPTS):
            entry_id = uuid.uuid4().hex
            properties = CommitProperties(custom_metadata={_ENTRY_ID: entry_id, **facts})
            with self._holding(name) as guard, storage_errors(what, self.storage):
                delta = guard.delta
                check_writable(delta)
                before = delta.version()
                try:
                    result = change(delta, properties)
                except CommitFailedError:
                    continue
                try:
                    guard.check(delta.version())
                except TableGone:  # a bucket's table was dropped before the commit
                    take_back(self.storage, name, delta.version(), entry_id)
                    raise
                self._make_durable(name, before)
                return result
        raise Unavailable("The table is constantly being changed by other calls.")

    def _make_durable(self, name: str, version: int) -> None:
        """Sync the commits after a version to disk, because deltalake does not."""
        while (actions := read_entry(self.storage, name, version + 1)) is not None:
            version += 1
            for action in actions:
                if "add" in action:
                    path = unquote(action["add"]["path"])
                    self.storage.sync_file(f"{name}/{path}")
                    self.storage.sync_folder(f"{name}/{path}".rpartition("/")[0])
        self.storage.sync_folder(f"{name}/{LOG_FOLDER}")

    @contextmanager
    def _holding(self, name: str, *, is_exclusive: bool = False) -> Iterator[TableGuard]:
        if not is_name(name):
            raise no_table(name)
        try:
            with closing(TableGuard(self.storage, name)) as guard, guard.hold(is_exclusive=is_exclusive):
                yield guard
        except TableGone:
            raise no_table(name) from None


def list_files(storage: Storage, table: str) -> pa.Table:
    """Return one row per file of the current table, as described by `engine.contract.FileSource`."""
    try:
        with storage_errors(f"The files of the table {table} could not be listed.", storage):
            delta = open_delta(storage, table)
            found = live_files(delta)
    except TableGone:
        return _FILES.empty_table()
    if "deletionVectors" in (delta.protocol().reader_features or ()):
        found = found.select(["path", "size_bytes", "modification_time"])  # counts and bounds include deleted rows
    names, definition = found.column_names, DEFINITIONS.get(table)
    if definition is not None and definition.merge_rule is not None:
        first, last = definition.range_columns
    else:
        first = next((name for name in ("time", "start_time", "begin_time") if f"min.{name}" in names), "time")
        last = next((name for name in ("time", "end_time") if f"max.{name}" in names), "time")
    columns = {
        "path": pa.array(map(unquote, found.column("path").to_pylist()), pa.string()),
        "size": found.column("size_bytes"),
        "rows": found.column("num_records") if "num_records" in names else pa.nulls(found.num_rows),
        "written": found.column("modification_time").cast(pa.timestamp("ms", "UTC")),
        "first_insert": times_of_files(found, "min.insert_time"),
        "last_insert": times_of_files(found, "max.insert_time"),
        "first_event": times_of_files(found, f"min.{first}"),
        "last_event": times_of_files(found, f"max.{last}"),
    }
    return pa.table(columns).cast(_FILES)


def is_name(text: str) -> bool:
    """Whether a string is a valid table name."""
    return _NAME.fullmatch(text) is not None


def check_name(name: str) -> None:
    """Check that a table may have this name."""
    if not is_name(name):
        raise UsageError(
            f"{shown(name)} is not a valid table name.",
            remedy="Use a lowercase letter followed by at most 62 lowercase letters, digits, and underscores.",
        )
    if name in _RESERVED or name in DEFINITIONS:
        raise UsageError(f"The name {name} is reserved for the data model.", remedy="Choose another name.")


def check_partition_columns(stored: pa.Schema, partition_by: Sequence[str]) -> None:
    """Check that a table may be partitioned by these columns."""
    for name in partition_by:
        kind = stored.field(name).type if name in stored.names else None
        # According to Delta's protocol, an empty string as a partition value is null.
        if kind is None or not (pa.types.is_date(kind) or pa.types.is_integer(kind)):
            raise UsageError(
                f"The table cannot be partitioned by {shown(name)}.",
                remedy="Specify columns that contain dates or integers.",
            )
    if len(set(partition_by)) < len(partition_by) or len(partition_by) >= max(len(stored), 1):
        raise UsageError(
            "The partition columns are repeated or include all columns.",
            remedy="Specify fewer of them, each only once.",
        )


def exists_already(name: str) -> TableExists:
    """Return the error for creating a table that already exists."""
    return TableExists(f"The table {name} already exists.")


def no_table(name: str) -> UsageError:
    """Return the error for a missing table."""
    return UsageError(f"There is no table {shown(name)}.", remedy="Use an existing table, or create this one.")


def check_no_view(delta: DeltaTable, name: str) -> None:
    """Check that a table isn't a materialized view, because only its definition creates its rows."""
    if VIEW_SOURCE_PROPERTY in delta.metadata().configuration:
        raise UsageError(
            f"{shown(name)} is a materialized view, so its rows come from the table that it is computed from.",
            remedy="Change the rows of that table, or replace the view's definition.",
        )


def add_entry(storage: Storage, guard: TableGuard, path: str, content: bytes) -> bool:
    """Add a log entry to a held table; False if another entry has its version. Never tries a different one."""
    table, version = path.partition(f"/{LOG_FOLDER}/")[0], int(Path(path).stem)
    entry_id = commit_info(parse_actions(content.splitlines()[:1]))["txnId"]
    if not storage.create(path, content):
        winner = read_entry(storage, table, version)
        return winner is not None and is_entry(winner, entry_id)  # only the response to our own write was lost
    try:
        guard.check(version)
    except TableGone:  # a bucket's table was dropped before the commit
        take_back(storage, table, version, entry_id)
        raise
    return True


def replacement_actions(  # noqa: PLR0913 - options by keyword
    storage: Storage,
    table: str,
    stored: pa.Schema,
    *,
    version: int,
    clock: Clock,
    properties: Mapping[str, str] | None = None,
) -> list[Action]:
    """Return the actions that replace a table's columns and optionally its properties, and remove all of its rows."""
    delta = open_delta(storage, table)
    with storage_errors("The table could not be replaced.", storage):
        delta.load_as_version(version)
        metadata, protocol = delta.metadata(), delta.protocol()
        paths = live_files(delta).column("path").to_pylist()
    actions = _creation(stored, (), metadata.configuration if properties is None else properties)
    made = next(action["metaData"] for action in actions if "metaData" in action)
    needed = next(action["protocol"] for action in actions if "protocol" in action)
    features = {*(needed.get("writerFeatures") or ()), *(protocol.writer_features or ())}
    found: list[Action] = [{"metaData": {**made, "id": str(metadata.id), "createdTime": metadata.created_time}}]
    if features != set(protocol.writer_features or ()):
        found.append({"protocol": {**needed, "writerFeatures": sorted(features)}})
    now = milliseconds(clock)
    return [*found, *({"remove": {"path": path, "deletionTimestamp": now, "dataChange": True}} for path in paths)]


def _creation(stored: pa.Schema, partition_by: Sequence[str], properties: Mapping[str, str]) -> list[Action]:
    """Return the actions that deltalake uses to create a table."""
    with tempfile.TemporaryDirectory() as folder, storage_errors("The table could not be created."):
        DeltaTable.create(
            folder,
            Schema.from_arrow(stored),
            partition_by=list(partition_by),
            configuration=properties,
            raise_if_key_not_exists=False,
        )
        content = (Path(folder) / LOG_FOLDER / entry_name(0)).read_bytes()
    return [json.loads(line) for line in content.splitlines()]


def _with_whole_times(predicate: str, name: str, columns: pa.Schema) -> str:
    """Return a condition on times as statements see them, including nanoseconds."""
    split = DEFINITIONS[name].split_times if name in DEFINITIONS else ()
    times = {one for one in split if f"{one}{NANOS}" in columns.names}

    def whole(found: re.Match[str]) -> str:
        column = found["quoted"] or (found["word"] or "").lower()
        if column not in times:
            return found[0]
        ticks = f"arrow_cast({column}, 'Int64') * 1000 + coalesce({column}{NANOS}, 0)"
        return f"""arrow_cast({ticks}, 'Timestamp(Nanosecond, Some("UTC"))')"""

    return _COLUMN.sub(whole, predicate) if times else predicate


def _checked_predicate(predicate: str, schema: pa.Schema, check: Callable[[Any], None]) -> str:
    """Return a condition that DataFusion accepts as a filter on these columns."""
    from datafusion import SessionContext

    if not predicate.strip() or len(predicate) > _MAX_PREDICATE:
        raise UsageError(
            f"The condition is empty or longer than {_MAX_PREDICATE:,} characters.",
            remedy="Specify which rows to delete; true deletes all.",
        )
    condition = f"({predicate}\n)"  # anything after a semicolon would be ignored
    try:
        rows = SessionContext().from_arrow(schema.empty_table(), "rows")
        expression = rows.parse_sql_expr(condition)
        rows.filter(expression).execution_plan()
    except Exception as error:
        raise _wrong_predicate(error) from error
    check(expression)
    return condition


def _name_operation(commit: Mapping[str, Any]) -> str:
    """Return the operation of a commit; deltalake also calls a deletion by retention DELETE."""
    operation = str(commit.get("operation", ""))
    return RETENTION if EXPIRED_BEFORE in commit and operation == "DELETE" else operation


def _constant(condition: str) -> bool | None:
    """Return whether a condition without columns is true, or None if it has columns."""
    from datafusion import SessionContext

    try:
        row = SessionContext().sql(f"SELECT {condition} IS TRUE AS is_met")
    except Exception:  # noqa: BLE001 - it has columns, and was already checked with them
        return None
    try:
        return bool(row.to_pylist()[0]["is_met"])
    except Exception as error:
        raise _wrong_predicate(error) from error


def _wrong_predicate(error: Exception) -> UsageError:
    reason = " ".join(str(error).split("\n   0:", 1)[0].split())
    if "DivideByZero" in reason or "Divide by zero" in reason:
        return UsageError(
            "The condition divides by zero.",
            remedy="Divide by NULLIF(divisor, 0) instead: rows for which the condition is NULL are kept.",
        )
    for prefix in ("DataFusion error:", "Generic DeltaTable error:", "External error:", "Generic error:"):
        reason = reason.replace(prefix, "").strip()
    return UsageError(
        f"The condition cannot be evaluated: {reason[:300]}",
        remedy="Use the syntax of a WHERE clause, without subqueries.",
    )


def _failing_predicate() -> UsageError:
    return UsageError(
        "The condition can't be evaluated for some row. The reason isn't shown because you may not read all rows.",
        remedy="Check its casts (TRY_CAST returns NULL), divisions and regular expressions.",
    )


def retention_days(properties: Mapping[str, str]) -> int | None:
    """Return the retention period set for an individual table."""
    text = properties.get(RETENTION_PROPERTY, "")
    return int(text) if text.isascii() and text.isdecimal() and int(text) > 0 else None


def undo_hours(properties: Mapping[str, str]) -> int:
    """Return how long a table's changes can be undone."""
    text = properties.get(UNDO_PROPERTY, "")
    return int(text) if text.isascii() and text.isdecimal() and 0 < int(text) <= MAX_UNDO_HOURS else UNDO_HOURS


def allows_readers(properties: Mapping[str, str]) -> bool:
    """Return whether all users who can read a table may read its earlier versions."""
    return properties.get(TIME_TRAVEL_PROPERTY) == READERS


def first_retained_day(
    properties: Mapping[str, str], name: str, *, now: dt.datetime, model_days: int = MODEL_RETENTION_DAYS
) -> dt.date | None:
    """Return the earliest day whose rows a table's retention keeps, or None if it keeps all rows."""
    days = retention_days(properties)
    if days is None and name in DEFINITIONS:
        days = model_days
    return None if days is None else (now - dt.timedelta(days=days)).date()


def _time(since_1970_ms: object) -> str | None:
    if not isinstance(since_1970_ms, int):
        return None
    return dt.datetime.fromtimestamp(since_1970_ms / 1000, dt.UTC).isoformat()
