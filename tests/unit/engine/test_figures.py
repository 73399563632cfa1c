"""What a statement took is what DataFusion counted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from datafusion import SessionContext
from datafusion.catalog import Table

from micromegas_jupyter.contracts import TableSnapshot
from micromegas_jupyter.engine import DataFusionEngine, EngineSettings, QueryFigures, StatementRequest
from micromegas_jupyter.engine.figures import count_plan
from micromegas_jupyter.errors import InvalidStatement
from tests.fakes.fixed_tables import CALLER, FixedTables

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.engine.conftest import Asker


def _figures(engine: DataFusionEngine, sql: str, *, batches: int | None = None) -> QueryFigures:
    async def run() -> QueryFigures:
        planned = await engine.plan(StatementRequest(sql=sql), CALLER)
        stream = planned.batches()
        seen = 0
        try:
            async for _ in stream:
                seen += 1
                if seen == batches:
                    break
        finally:
            await stream.aclose()  # type: ignore[attr-defined]
            figures.append(planned.figures)
        return planned.figures

    figures: list[QueryFigures] = []
    try:
        return asyncio.run(run())
    except InvalidStatement:
        return figures[0]


def test_a_statement_without_a_table_reads_nothing(ask: Asker) -> None:
    found = _figures(ask.engine, "SELECT 1 + 1")

    assert (found.bytes_scanned, found.spilled_bytes, found.spill_count) == (0, 0, 0)
    assert found.peak_memory_bytes is None
    assert found.context_init_seconds == 0
    assert found.execution_seconds > 0


def test_fewer_columns_and_rows_read_fewer_bytes(ask: Asker) -> None:
    everything = _figures(ask.engine, "SELECT * FROM log_entries").bytes_scanned
    column = _figures(ask.engine, "SELECT level FROM log_entries").bytes_scanned
    nothing = _figures(ask.engine, "SELECT level FROM log_entries WHERE time > TIMESTAMP '2200-01-01'").bytes_scanned

    assert everything is not None
    assert column is not None
    assert everything > column > 0
    assert _figures(ask.engine, "SELECT level FROM log_entries ORDER BY msg").busy_seconds
    assert nothing == 0


def test_a_statement_that_failed_tells_what_it_read(ask: Asker) -> None:
    assert _figures(ask.engine, "SELECT 1 / (level - level) FROM log_entries").bytes_scanned


def test_a_statement_that_was_left_tells_what_it_read(ask: Asker) -> None:
    assert _figures(ask.engine, "SELECT a.msg FROM log_entries a, log_entries b", batches=1).bytes_scanned


def test_a_sort_without_room_counts_what_it_spilled(tmp_path: Path) -> None:
    words = pa.table({"word": [f"{number * 7919 % 100_003:0100d}" for number in range(120_000)]})
    pq.write_table(words, tmp_path / "words.parquet")
    tables = FixedTables([TableSnapshot(name="words", schema=words.schema, files=(str(tmp_path / "words.parquet"),))])
    settings = EngineSettings(memory_limit_bytes=16 << 20, planning_threads=1, target_partitions=1, batch_rows=1024)
    engine = DataFusionEngine(tables, settings)

    found = _figures(engine, "SELECT * FROM words ORDER BY word")

    engine.close()
    assert found.spill_count
    assert found.spilled_bytes
    assert found.spilled_bytes > 1 << 20


def test_a_scan_that_does_not_count_is_not_reckoned_as_nothing(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1, 2, 3]}), tmp_path / "n.parquet")
    frame = SessionContext().read_table(Table(ds.dataset(tmp_path / "n.parquet", format="parquet")))
    frame.collect()

    assert count_plan(frame.execution_plan()).bytes_scanned is None
