"""Opens a DataFusion session for one statement, all from one memory pool and with the settings that were measured.

Which tables a session has is `tables`' answer.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from datafusion import RuntimeEnvBuilder, SessionConfig, SessionContext, SQLOptions

if TYPE_CHECKING:
    from micromegas_jupyter.engine.settings import EngineSettings

READ_ONLY: Final = SQLOptions().with_allow_ddl(False).with_allow_dml(False).with_allow_statements(False)

_OPTIONS: Final = {
    # Filters inside the decoder: look-ups by process take 0.6 of the time, the latest 100 rows 0.33.
    "datafusion.execution.parquet.pushdown_filters": "true",
    # Inside the engine views would be faster, but every result needs plain strings (wire_schema converts the rest).
    "datafusion.execution.parquet.schema_force_view_types": "false",
    "datafusion.sql_parser.map_string_types_to_utf8view": "false",
    # What the least and greatest values so far rule out is not read. But while one of several columns had nulls only,
    # DataFusion 55 rules out by the others alone, and its values are lost.
    "datafusion.optimizer.enable_aggregate_dynamic_filter_pushdown": "false",
    # Lines and columns in messages, where DataFusion has them.
    "datafusion.sql_parser.collect_spans": "true",
}

# What a join or a limit has seen would filter the scans below. But above a join, the column of another table may be
# taken for the one that is meant (DataFusion 55.2, see `workarounds.joins`), and rows are lost.
_OPTIONS_FOR_JOINS: Final = {**_OPTIONS, "datafusion.optimizer.enable_dynamic_filter_pushdown": "false"}

# How much is kept of what the footers of files said, for as long as a session lives.
_FOOTERS: Final = "SET datafusion.runtime.metadata_cache_limit = '16M'"

# What these return names files of the server, or counts rows before this one, hidden ones too.
_REVEALING_FUNCTIONS: Final = ("input_file_name", "file_row_index")


class Sessions:
    """Holds the shared runtime, and a temporary folder for its owner's files; whoever made it calls `close`."""

    def __init__(self, settings: EngineSettings) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="engine-", ignore_cleanup_errors=True)
        self._config = _configured(_OPTIONS, settings)
        self._config_for_joins = _configured(_OPTIONS_FOR_JOINS, settings)
        # Sessions that are built from one builder, or from copies of it, share its memory pool.
        pooled = RuntimeEnvBuilder().with_fair_spill_pool(settings.memory_limit_bytes)
        self._runtime = pooled.with_disk_manager_disabled()
        # What is spilled is capped by statement only, and for each session by itself. With the statement, DataFusion
        # forgets any folder that it was given and takes the process's.
        self._cap = f"SET datafusion.runtime.max_temp_directory_size = '{max(1, settings.spill_limit_bytes >> 10)}K'"

    @property
    def folder(self) -> Path:
        """Return the temporary folder, which only this process's user can read."""
        return Path(self._folder.name)

    def open(self) -> SessionContext:
        """Return a new session without tables, which can spill up to the cap; it needs no closing.

        What it spills goes below the process's folder for temporary files (`TMPDIR`), and away with the session.
        """
        return self._capped(self.open_diskless())

    def open_for_joins(self) -> SessionContext:
        """Return a session as of `open` for a statement with joins: nothing seen while it runs filters scans."""
        return self._capped(self.open_diskless_for_joins())

    def open_diskless(self) -> SessionContext:
        """Return a new session without tables that cannot spill at all; it costs a fraction of the other kind."""
        return self._opened(self._config)

    def open_diskless_for_joins(self) -> SessionContext:
        """Return a session as of `open_for_joins` that cannot spill at all."""
        return self._opened(self._config_for_joins)

    def _opened(self, config: SessionConfig) -> SessionContext:
        context = SessionContext(config, self._runtime)
        for name in _REVEALING_FUNCTIONS:
            context.deregister_udf(name)
        return context

    def _capped(self, context: SessionContext) -> SessionContext:
        context.sql(_FOOTERS)
        context.sql(self._cap)
        return context

    @functools.cached_property
    def bare(self) -> SessionContext:
        """A session as of `open_diskless` for all statements that need nothing in theirs; never put anything into it.

        Statements that are planned with `READ_ONLY` leave nothing behind in a session.
        """
        return self.open_diskless()

    def close(self) -> None:
        """Remove the temporary folder."""
        self._folder.cleanup()


def _configured(options: dict[str, str], settings: EngineSettings) -> SessionConfig:
    config = SessionConfig(dict(options)).with_information_schema(True).with_batch_size(settings.batch_rows)
    if settings.target_partitions is not None:
        config = config.with_target_partitions(settings.target_partitions)
    return config
