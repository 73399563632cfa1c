"""The progress of a query, the line that shows it, and the reader that later cells read."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from micromegas_jupyter.errors import InvalidStatement, QueryCancelled, UsageError
from micromegas_jupyter.notebook.results.rows import (
    Ending,
    Progress,
    Reading,
    RowReader,
)
from tests.fakes.clock import FakeClock
from tests.fakes.notebook_world import ROWS, FakeReader

BATCHES = ROWS.to_batches(max_chunksize=2)


class Started:
    """A reader over scripted parts, with what follows it."""

    def __init__(self, *script: Any) -> None:
        self.finished: list[str] = []
        self.ends: list[tuple[Ending, object]] = []
        self.source = FakeReader(list(script or BATCHES), clock := FakeClock(), 0.5, "7f3a91c2d4e5")
        progress = Progress(clock)
        progress.note_opened(self.source)
        line = SimpleNamespace(outlives_cell=False, finish=self.finished.append)
        options = {"target": " → rows (reader)", "sql": "SELECT n", "on_end": lambda *end: self.ends.append(end)}
        self.rows = RowReader(Reading(self.source, progress, line, **options))


@pytest.mark.parametrize(
    "take",
    [
        lambda rows: rows.read_all(),
        lambda rows: pa.table(rows.read_pandas()),
        lambda rows: pa.RecordBatchReader.from_stream(rows).read_all(),
        lambda rows: pl.DataFrame(rows).to_arrow(),
    ],
    ids=["read_all", "read_pandas", "arrow stream", "polars"],
)
def test_whatever_takes_arrow_takes_the_reader(take: Callable[[RowReader], pa.Table]) -> None:
    started = Started()

    table = take(started.rows)

    assert table.column("msg").to_pylist() == ["a", "<b>", "c"]
    assert started.ends == [(Ending.DONE, None)]


def test_leaving_the_block_stops_the_query_and_says_so() -> None:
    started = Started()

    with started.rows as rows:
        next(rows)

    assert started.source.is_closed
    assert started.finished[-1] == (
        "■ stopped after 0.5 s, 2 rows received, stopped on the server · query 7f3a91c2 → rows (reader)"
    )
    assert started.ends == [(Ending.STOPPED, None)]
    with pytest.raises(UsageError, match="reader is closed"):
        next(rows)


def test_an_interrupt_ends_it_as_a_line_and_what_is_left_is_not_taken_for_the_end() -> None:
    started = Started(BATCHES[0], KeyboardInterrupt())
    next(started.rows)

    with pytest.raises(KeyboardInterrupt) as interrupt:
        next(started.rows)

    ended = "✗ cancelled after 1.0 s, 2 rows received, stopped on the server · query 7f3a91c2"
    assert interrupt.value._render_traceback_() == [ended]
    assert started.finished[-1] == f"{ended} → rows (reader)"
    with pytest.raises(QueryCancelled):
        next(started.rows)
    assert started.ends == [(Ending.CANCELLED, None)]
    assert started.source.is_closed


def test_a_failure_is_a_line_with_its_place_in_the_statement_and_is_raised_again() -> None:
    error = InvalidStatement("No.", line=1, column=8, remedy="")
    started = Started(BATCHES[0], error)

    with pytest.raises(InvalidStatement):
        list(started.rows)

    assert error._render_traceback_()[1:3] == ["    SELECT n", "           ^ line 1, column 8"]
    assert started.finished[-1] == "✗ failed after 1.0 s, 2 rows received · query 7f3a91c2 → rows (reader)"
    with pytest.raises(InvalidStatement):
        next(started.rows)
    assert started.ends == [(Ending.FAILED, error)]
