"""What a statement took is what DataFusion counted."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.engine import DataFusionEngine, EngineSettings, QueryStatistics
from micromegas_jupyter.errors import InvalidStatement
from tests.fakes.fixed_tables import FixedTables
from tests.unit.engine.conftest import Asker

if TYPE_CHECKING:
    from pathlib import Path


def _statistics(ask: Asker, sql: str, *, batches: int | None = None) -> QueryStatistics:
    """Return what a statement took after all its batches, its failure, or the given number of batches."""
    planned = ask.plan(sql)
    stream = planned.batches()
    with contextlib.suppress(InvalidStatement):
        for _ in itertools.islice(stream, batches):
            pass
    stream.close()  # type: ignore[attr-defined]
    return planned.statistics


def test_a_statement_without_a_table_reads_nothing(ask: Asker) -> None:
    found = _statistics(ask, "SELECT 1 + 1")

    assert (found.bytes_scanned, found.spilled_bytes, found.spill_count) == (0, 0, 0)
    assert found.peak_memory_bytes is None
    assert found.context_init_seconds >= 0
    assert found.execution_seconds > 0


def test_fewer_columns_and_rows_read_fewer_bytes(ask: Asker) -> None:
    everything = _statistics(ask, "SELECT * FROM log_entries").bytes_scanned
    column = _statistics(ask, "SELECT level FROM log_entries").bytes_scanned
    nothing = _statistics(ask, "SELECT level FROM log_entries WHERE time > TIMESTAMP '2200-01-01'").bytes_scanned

    assert everything is not None
    assert column is not None
    assert everything > column > 0
    assert nothing == 0


def test_a_statement_that_failed_tells_what_it_read(ask: Asker) -> None:
    assert _statistics(ask, "SELECT 1 / (level - level) FROM log_entries").bytes_scanned


def test_a_statement_that_was_left_tells_what_it_read(ask: Asker) -> None:
    assert _statistics(ask, "SELECT a.msg FROM log_entries a, log_entries b", batches=1).bytes_scanned


def test_a_sort_without_room_counts_what_it_spilled(tmp_path: Path) -> None:
    words = pa.table({"word": [f"{number * 7919 % 100_003:0100d}" for number in range(120_000)]})
    pq.write_table(words, tmp_path / "words.parquet")
    tables = FixedTables([TableSnapshot(name="words", schema=words.schema, files=(str(tmp_path / "words.parquet"),))])
    settings = EngineSettings(memory_limit_bytes=16 << 20, target_partitions=1, batch_rows=1024)
    engine = DataFusionEngine(tables, settings)

    found = _statistics(Asker(engine, tables), "SELECT * FROM words ORDER BY word")

    engine.close()
    assert found.spill_count
    assert found.spilled_bytes
    assert found.spilled_bytes > 1 << 20
