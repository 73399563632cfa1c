"""Opens and reuses DataFusion sessions, which share one memory pool and have settings chosen by measurement.

A new session has not read the files' footers, which is most of the work of a lookup in a large file.

Sessions must not carry data from one caller to another. They are therefore lent only to statements that need nothing
but tables and caller-independent functions. `READ_ONLY` rejects everything that a statement could set or create. A
session is kept only after its last row was returned, never after a failed or abandoned statement. Then all its tables
and functions are removed; if anything is left, the session is not reused. Only a bounded cache of footers remains, by
path, size, and modification time, and statements can't query it.
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
    # String views would be faster inside the engine, but all results need plain strings (wire_schema converts the
    # rest).
    "datafusion.execution.parquet.schema_force_view_types": "false",
    "datafusion.sql_parser.map_string_types_to_utf8view": "false",
    # This option skips values that can't change the current minimum and maximum. But if one of several columns was
    # null so far, DataFusion 55 uses only the other columns, and that column's values are lost.
    "datafusion.optimizer.enable_aggregate_dynamic_filter_pushdown": "false",
    # DataFusion 55 fails its own check if IS TRUE is used in both GROUP BY and an aggregate.
    "datafusion.execution.skip_physical_aggregate_schema_check": "true",
    # Adds line and column numbers to messages if DataFusion provides them.
    "datafusion.sql_parser.collect_spans": "true",
}

#: The steps that may filter the scans below them by the values read so far. Above a join, DataFusion 55.2 may
#: confuse columns of two tables, and lose rows (see `workarounds.joins`).
DYNAMIC_FILTERS: Final = {
    "join": "datafusion.optimizer.enable_join_dynamic_filter_pushdown",
    "limit": "datafusion.optimizer.enable_topk_dynamic_filter_pushdown",
}
_PARTITIONS: Final = "datafusion.execution.target_partitions"
# DataFusion 55 computes `max(x)` from the files' footers, and treats footers with a different type than the table's as
# nulls.
_USE_FOOTERS: Final = "datafusion.execution.collect_statistics"
# This is low for local files, because each thread that reads a footer retains memory (see `workarounds.scan_folders`).
_FOOTERS_AT_A_TIME: Final = "datafusion.execution.meta_fetch_concurrency"
# DataFusion 55 panics if it keeps only the top groups of a float column and a value is NaN.
_FIRST_GROUPS: Final = "datafusion.optimizer.enable_topk_aggregation"
_OPTIMIZER_PASSES: Final = "datafusion.optimizer.max_passes"

# DataFusion 55 confuses columns, or fails, when it moves a field access below a projection that gives one column the
# name of another.
_MOVES_FIELDS: Final = "datafusion.optimizer.enable_leaf_expression_pushdown"
# The size of the footer cache, which lives as long as the session.
_FOOTERS: Final = "SET datafusion.runtime.metadata_cache_limit = '16M'"
# A folder of links may have been listed while the folder with the linked files was briefly missing.
_LISTS_OF_FOLDERS: Final = "SET datafusion.runtime.list_files_cache_ttl = '1s'"

# Their results contain the server's file paths, or count preceding rows, including hidden ones.
_REVEALING_FUNCTIONS: Final = ("input_file_name", "file_row_index")

#: One statement runs while another may be planned.
_MAX_FREE: Final = 2


@dataclass(slots=True, eq=False)
class LentSession:
    """A session for planning one statement; it is not reused if it has no pool.

    Plans run in a copy of the session, which shares its caches and its memory: optimized plans are not optimized again.
    """

    session: SessionContext
    pool: "list[LentSession] | None" = None
    _runner: SessionContext | None = None
    _applied: dict[str, str] = field(default_factory=dict)
    _settings: dict[str, str] = field(default_factory=dict)
    #: Removes what the statement added to the session, except tables.
    clean_up: Callable[[], None] | None = None

    def configure(self, *, partitions: int, uses_footers: bool, is_remote: bool, has_floats: bool) -> None:
        """Set how plans run: the number of partitions (0 for one per processor), and how they read footers.

        `is_remote` means that the files are in a bucket. `has_floats` means that groups may contain floats.
        """
        self._settings[_FIRST_GROUPS] = str(not has_floats).lower()
        self._settings[_PARTITIONS] = f"{partitions:d}"
        self._settings[_USE_FOOTERS] = str(uses_footers).lower()
        self._settings[_FOOTERS_AT_A_TIME] = "32" if is_remote else "2"

    def set_dynamic_filters(self, of: Collection[str]) -> None:
        """Enable these `DYNAMIC_FILTERS`, and disable the others."""
        self._settings |= {name: str(one in of).lower() for one, name in DYNAMIC_FILTERS.items()}

    def frame(self, written: LogicalPlan, optimized: LogicalPlan | None = None) -> DataFrame:
        """Return a plan that can be executed; optimizes it if necessary."""
        self._settings[_OPTIMIZER_PASSES] = "3" if optimized is None else "0"
        if self._runner is None:
            # DataFusion-Python has no other way to copy a session. The copy could read any path, but doesn't plan
            # statements.
            self._runner = self.session.enable_url_table()
        for name, value in self._settings.items() - self._applied.items():
            self._runner.sql(f"SET {name} = {value}")
            self._applied[name] = value
        return self._runner.create_dataframe_from_logical_plan(written if optimized is None else optimized)

    def release(self) -> None:
        """Return the session when its statement has returned its last row, or will not run; later calls do nothing."""
        pool, self.pool = self.pool, None
        clean_up, self.clean_up = self.clean_up, None
        if pool is not None and len(pool) < _MAX_FREE and _clear(self.session, clean_up):
            pool.append(LentSession(self.session, pool, self._runner, self._applied))


class Sessions:
    """Opens sessions that share one runtime, and lends each to one statement at a time."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        # Sessions from one builder share its memory pool.
        pooled = RuntimeEnvBuilder().with_fair_spill_pool(settings.memory_limit_bytes)
        self._runtime = pooled.with_disk_manager_disabled()
        # The spill limit can be set only with a statement in each session. This statement makes DataFusion ignore its
        # configured folder and use the process's.
        self._cap = f"SET datafusion.runtime.max_temp_directory_size = '{max(1, settings.spill_limit_bytes >> 10)}K'"
        self.free: list[LentSession] = []

    def open(self, *, can_spill: bool = True, reuses_names: bool = False) -> SessionContext:
        """Return a new session without tables; `can_spill` allows spilling to the process's `TMPDIR`."""
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
        """Return a session without tables; drop it, or release it when its statement has returned its last row."""
        return self.free.pop() if self.free else LentSession(self.open(), self.free)


def _clear(session: SessionContext, clean_up: Callable[[], None] | None) -> bool:
    """Remove a statement's tables and functions from a session; return whether nothing is left."""
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
