"""Opens DataFusion sessions, all from one memory pool and with measured settings, and reuses them.

A new session has not read the files' footers, which is most of the work of a look-up in a large file.

Nothing of one caller may reach another through a session. So sessions are lent only to statements that need nothing but
tables and functions that depend on nobody, never a function with a caller's values; `READ_ONLY` refuses what a
statement could set or create by itself; a session is kept only after the last row was given, never after a statement
that failed or was abandoned; then all its tables and functions are removed, and one that still has something in it is
not reused. What stays is a bounded cache of footers, by path, size and time of change; no statement can ask for it.
"""

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from datafusion import DataFrame, RuntimeEnvBuilder, SessionConfig, SessionContext, SQLOptions
from datafusion.plan import LogicalPlan

from micromegas_jupyter.engine.contract import EngineSettings
from micromegas_jupyter.engine.scanner import quoted

_log = logging.getLogger(__name__)

READ_ONLY: Final = SQLOptions().with_allow_ddl(False).with_allow_dml(False).with_allow_statements(False)

_OPTIONS: Final = {
    # Inside the engine views would be faster, but every result needs plain strings (wire_schema converts the rest).
    "datafusion.execution.parquet.schema_force_view_types": "false",
    "datafusion.sql_parser.map_string_types_to_utf8view": "false",
    # What the least and greatest values so far rule out is not read. But while one of several columns had nulls only,
    # DataFusion 55 rules out by the others alone, and its values are lost.
    "datafusion.optimizer.enable_aggregate_dynamic_filter_pushdown": "false",
    # DataFusion 55 fails its own check where IS TRUE is both a group and inside an aggregate.
    "datafusion.execution.skip_physical_aggregate_schema_check": "true",
    # Lines and columns in messages, where DataFusion has them.
    "datafusion.sql_parser.collect_spans": "true",
}

#: The steps that may filter the scans below by what they have read. Above a join, DataFusion 55.2 may take the column
#: of another table for the one that is meant, and lose rows (see `workarounds.joins`).
DYNAMIC_FILTERS: Final = {
    "join": "datafusion.optimizer.enable_join_dynamic_filter_pushdown",
    "limit": "datafusion.optimizer.enable_topk_dynamic_filter_pushdown",
}
_PARTITIONS: Final = "datafusion.execution.target_partitions"
# DataFusion 55 answers `max(x)` from the files' footers, and takes one whose type is not the table's for one of nulls.
_USE_FOOTERS: Final = "datafusion.execution.collect_statistics"
# From local files few, for each thread that reads one keeps memory (see `workarounds.scan_folders`).
_FOOTERS_AT_A_TIME: Final = "datafusion.execution.meta_fetch_concurrency"
# DataFusion 55 panics when it keeps only the first of groups by floats, and one is NaN.
_FIRST_GROUPS: Final = "datafusion.optimizer.enable_topk_aggregation"
_OPTIMIZER_PASSES: Final = "datafusion.optimizer.max_passes"

# DataFusion 55 takes one column for another, or fails, when it moves the access to a field below a projection that
# gives a column the name of another one.
_MOVES_FIELDS: Final = "datafusion.optimizer.enable_leaf_expression_pushdown"
# How much is kept of what the footers of files said, for as long as a session lives.
_FOOTERS: Final = "SET datafusion.runtime.metadata_cache_limit = '16M'"
# A folder of links may have been listed while the folder of its files was not there for a moment.
_LISTS_OF_FOLDERS: Final = "SET datafusion.runtime.list_files_cache_ttl = '1s'"

# What these return names files of the server, or counts rows before this one, hidden ones too.
_REVEALING_FUNCTIONS: Final = ("input_file_name", "file_row_index")

#: One statement runs at a time, while another may be planned.
_MAX_FREE: Final = 2


@dataclass(slots=True, eq=False)
class LentSession:
    """A session in which one statement is planned; without a pool it is not used again.

    Plans run in a copy of the session, which shares its caches and its memory: optimized plans are not optimized again.
    """

    session: SessionContext
    pool: "list[LentSession] | None" = None
    _runner: SessionContext | None = None
    _applied: dict[str, str] = field(default_factory=dict)
    _settings: dict[str, str] = field(default_factory=dict)
    #: Removes what the statement got besides tables.
    clean_up: Callable[[], None] | None = None

    def configure(self, *, partitions: int, uses_footers: bool, is_remote: bool, has_floats: bool) -> None:
        """Set how plans run: in how many partitions, 0 for one per processor, and how they read footers of files.

        These files are in a bucket if they're remote. Groups may be of floats if there are columns that have some.
        """
        self._settings[_FIRST_GROUPS] = str(not has_floats).lower()
        self._settings[_PARTITIONS] = f"{partitions:d}"
        self._settings[_USE_FOOTERS] = str(uses_footers).lower()
        self._settings[_FOOTERS_AT_A_TIME] = "32" if is_remote else "2"

    def set_dynamic_filters(self, of: Collection[str]) -> None:
        """Let some of `DYNAMIC_FILTERS` filter scans, and the others not."""
        self._settings |= {name: str(one in of).lower() for one, name in DYNAMIC_FILTERS.items()}

    def frame(self, written: LogicalPlan, optimized: LogicalPlan | None = None) -> DataFrame:
        """Return a plan as it will run; one that is not optimized yet will be."""
        self._settings[_OPTIMIZER_PASSES] = "3" if optimized is None else "0"
        if self._runner is None:
            # DataFusion-Python has no other way to copy one. The copy could read any path, but plans no statement.
            self._runner = self.session.enable_url_table()
        for name, value in self._settings.items() - self._applied.items():
            self._runner.sql(f"SET {name} = {value}")
            self._applied[name] = value
        return self._runner.create_dataframe_from_logical_plan(written if optimized is None else optimized)

    def release(self) -> None:
        """Give the session back once its statement has given its last row, or will not run; later calls do nothing."""
        pool, self.pool = self.pool, None
        clean_up, self.clean_up = self.clean_up, None
        if pool is not None and len(pool) < _MAX_FREE and _clear(self.session, clean_up):
            pool.append(LentSession(self.session, pool, self._runner, self._applied))


class Sessions:
    """Opens sessions that share one runtime, and lends each to one statement at a time."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        # Sessions that are built from one builder share its memory pool.
        pooled = RuntimeEnvBuilder().with_fair_spill_pool(settings.memory_limit_bytes)
        self._runtime = pooled.with_disk_manager_disabled()
        # What is spilled is capped by statement only, and for each session by itself. With the statement, DataFusion
        # forgets any folder that it was given and takes the process's.
        self._cap = f"SET datafusion.runtime.max_temp_directory_size = '{max(1, settings.spill_limit_bytes >> 10)}K'"
        self.free: list[LentSession] = []

    def open(self, *, can_spill: bool = True, reuses_names: bool = False) -> SessionContext:
        """Return a new session without tables, which can spill up to the cap, below the process's `TMPDIR`, or not."""
        config = SessionConfig(_OPTIONS | {_MOVES_FIELDS: str(not reuses_names).lower()}).with_information_schema(True)
        config = config.with_batch_size(self._settings.batch_rows)
        if self._settings.target_partitions is not None:
            config = config.with_target_partitions(self._settings.target_partitions)
        context = SessionContext(config, self._runtime)
        for name in _REVEALING_FUNCTIONS:
            context.deregister_udf(name)
        if can_spill:
            context.sql(_FOOTERS)
            context.sql(_LISTS_OF_FOLDERS)
            context.sql(self._cap)
        return context

    def lend(self) -> LentSession:
        """Return a session without tables; drop it, or release it when its statement has given its last row."""
        return self.free.pop() if self.free else LentSession(self.open(), self.free)


def _clear(session: SessionContext, clean_up: Callable[[], None] | None) -> bool:
    """Remove all tables and functions of a statement from a session; return whether nothing is left in it."""
    try:
        if clean_up is not None:
            clean_up()
        catalog = session.catalog()
        schema = catalog.schema()
        for name in schema.table_names():
            session.deregister_table(quoted(name))
        names = (schema.table_names(), catalog.schema_names(), session.catalog_names())
    except Exception:  # noqa: BLE001 - it is not used again
        _log.warning("a session could not be cleared", exc_info=True)
        return False
    return bool(names == (set(), {"public"}, {"datafusion"}))
