"""An engine over small Parquet files, and a way to ask it something."""

from contextlib import closing, contextmanager
from dataclasses import replace

import pyarrow as pa
import pytest

from micromegas_jupyter.core.protocols import TableAccess
from micromegas_jupyter.engine.contract import EngineSettings, StatementRequest
from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
from tests.fakes.fixed_tables import CALLER, FixedTables, empty_table, write_log_entries, write_processes

SMALL = {"memory_limit_bytes": 100 << 20, "spill_limit_bytes": 100 << 20}


class Asker:
    """Plans and runs statements on one engine as one caller; `tables` are what it reads."""

    def __init__(self, engine, tables, caller=CALLER):
        self.engine = engine
        self.tables = tables
        self.caller = caller

    def seeing(self, filters):
        """Return one who asks as a caller with these tables and conditions only."""
        access = TableAccess(filters=filters)
        return Asker(self.engine, self.tables, replace(self.caller, table_access=access))

    def as_administrator(self):
        """Return an administrator who asks."""
        return Asker(self.engine, self.tables, replace(self.caller, is_admin=True))

    def plan(self, sql, **options):
        return self.engine.plan(StatementRequest(sql=sql, **options), self.caller)

    def table(self, sql, **options):
        """Return the whole result, of which every batch had the promised schema."""
        planned = self.plan(sql, **options)
        batches = list(planned.batches())
        assert all(batch.schema.equals(planned.schema, check_metadata=True) for batch in batches)
        return pa.Table.from_batches(batches, planned.schema)

    def rows(self, sql, **options):
        return self.table(sql, **options).to_pylist()


@contextmanager
def asking(tables, **settings):
    """Ask an engine about tables, with other settings than usual."""
    source = FixedTables(tables) if isinstance(tables, list) else tables
    with closing(DataFusionEngine(source, EngineSettings(**settings))) as engine:
        yield Asker(engine, source)


@pytest.fixture(scope="session")
def ask(tmp_path_factory):
    """Five hours of log entries, a merged table of processes and a table without files."""
    folder = tmp_path_factory.mktemp("lake")
    with asking([write_log_entries(folder, 5), write_processes(folder), empty_table()], **SMALL) as asker:
        yield asker
