"""The reader that `--format reader` leaves to later cells."""

from __future__ import annotations

import gc
from threading import Event
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pytest

from micromegas_jupyter.errors import InvalidStatement, QueryCancelled, UsageError
from micromegas_jupyter.notebook.results.progress import Ending, Progress
from micromegas_jupyter.notebook.results.rows import RowReader, StartedQuery
from tests.fakes.clock import FakeClock
from tests.fakes.notebook_world import ROWS, FakeReader

if TYPE_CHECKING:
    from collections.abc import Callable

BATCHES = ROWS.to_batches(max_chunksize=2)
WAIT_SECONDS = 60


class Line:
    """Notes what it is told."""

    is_shown = True

    def __init__(self, *, outlives_cell: bool = True) -> None:
        self.outlives_cell = outlives_cell
        self.rewritten: list[str] = []
        self.finished: list[str] = []

    def rewrite(self, text: str, *, address: str = "") -> None:
        self.rewritten.append(text)

    def finish(self, text: str) -> None:
        self.finished.append(text)

    def clear(self) -> None:
        raise AssertionError("a reader's line stays")


class Started:
    """A reader over scripted parts, with what follows it."""

    def __init__(self, *script: Any, seconds_per_batch: float = 0.5, outlives_cell: bool = True) -> None:
        clock = FakeClock()
        self.line = Line(outlives_cell=outlives_cell)
        self.ends: list[tuple[Ending, object]] = []
        self.ended = Event()
        self.source = FakeReader(list(script or BATCHES), clock, seconds_per_batch, "7f3a91c2d4e5")
        progress = Progress(clock)
        progress.note_opened(self.source, token_ends_at=None)
        self.rows = RowReader(
            StartedQuery(
                reader=self.source, progress=progress, line=self.line, target=" → rows (reader)", sql="SELECT n",
                on_end=self._note,
            )
        )  # fmt: skip

    def _note(self, ending: Ending, error: object) -> None:
        self.ends.append((ending, error))
        self.ended.set()


def test_batches_come_one_after_another_and_the_line_follows_them() -> None:
    started = Started()

    batches = list(started.rows)

    assert batches == BATCHES
    assert started.line.rewritten == [
        "⏳ 0.5 s · 2 rows · 1.0 MB · query 7f3a91c2 → rows (reader)",
        "⏳ 1.0 s · 3 rows · 2.0 MB · query 7f3a91c2 → rows (reader)",
    ]
    assert started.line.finished == [
        "▸ rows come as you iterate · query 7f3a91c2 → rows (reader)",
        "✓ 3 rows in 1.0 s (first after 0.5 s) · 2.0 MB · query 7f3a91c2 → rows (reader)",
    ]
    assert started.ends == [(Ending.DONE, None)]


def test_the_line_is_rewritten_at_most_four_times_a_second_and_never_on_a_terminal() -> None:
    fast = Started(*BATCHES, *BATCHES, seconds_per_batch=0.1)
    terminal = Started(outlives_cell=False)

    list(fast.rows)
    list(terminal.rows)

    assert len(fast.line.rewritten) == 1
    assert terminal.line.rewritten == []
    assert len(terminal.line.finished) == 2


@pytest.mark.parametrize(
    ("take", "kind"),
    [
        (lambda rows: rows.read_all(), pa.Table),
        (lambda rows: pa.table(rows.read_pandas()), pa.Table),
        (lambda rows: pa.RecordBatchReader.from_stream(rows).read_all(), pa.Table),
        (lambda rows: pl.DataFrame(rows).to_arrow(), pa.Table),
    ],
    ids=["read_all", "read_pandas", "arrow stream", "polars"],
)
def test_whatever_takes_arrow_takes_the_reader(take: Callable[[RowReader], pa.Table], kind: type) -> None:
    started = Started()

    table = take(started.rows)

    assert isinstance(table, kind)
    assert table.column("msg").to_pylist() == ["a", "<b>", "c"]
    assert started.ends == [(Ending.DONE, None)]


def test_one_batch_at_a_time_can_be_asked_for_until_there_are_none() -> None:
    rows = Started().rows

    assert [rows.read_next_batch().num_rows, rows.read_next_batch().num_rows] == [2, 1]
    with pytest.raises(StopIteration):
        rows.read_next_batch()
    with pytest.raises(StopIteration):
        rows.read_next_batch()


def test_leaving_the_block_stops_the_query_and_says_so() -> None:
    started = Started()

    with started.rows as rows:
        next(rows)

    assert started.source.is_closed
    assert started.line.finished[-1] == (
        "■ stopped after 0.5 s, 2 rows received, stopped on the server · query 7f3a91c2 → rows (reader)"
    )
    assert started.ends == [(Ending.STOPPED, None)]
    with pytest.raises(UsageError, match="reader is closed"):
        next(rows)


def test_a_reader_that_has_ended_stays_as_it_is_when_it_is_closed() -> None:
    started = Started()

    list(started.rows)
    started.rows.close()

    assert started.ends == [(Ending.DONE, None)]


def test_the_end_of_the_last_reference_stops_the_query() -> None:
    started = Started()
    next(started.rows)

    del started.rows
    gc.collect()

    assert started.source.is_closed
    assert started.ended.wait(WAIT_SECONDS)
    assert started.ends == [(Ending.STOPPED, None)]
    assert started.line.finished[-1].startswith("■ stopped after 0.5 s, 2 rows received")


def test_an_interrupt_ends_it_as_a_line_and_what_is_left_is_not_taken_for_the_end() -> None:
    started = Started(BATCHES[0], KeyboardInterrupt())
    next(started.rows)

    with pytest.raises(KeyboardInterrupt) as interrupt:
        next(started.rows)

    ended = "✗ cancelled after 1.0 s, 2 rows received, stopped on the server · query 7f3a91c2"
    assert interrupt.value._render_traceback_() == [ended]
    assert started.line.finished[-1] == f"{ended} → rows (reader)"
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
    assert started.line.finished[-1] == "✗ failed after 1.0 s, 2 rows received · query 7f3a91c2 → rows (reader)"
    with pytest.raises(InvalidStatement):
        next(started.rows)
    assert started.ends == [(Ending.FAILED, error)]


def test_a_failed_reader_can_be_collected() -> None:
    started = Started(InvalidStatement("No."))
    with pytest.raises(InvalidStatement):
        next(started.rows)
    finalizer = started.rows._finalizer

    assert not finalizer.alive


def test_it_can_be_cancelled_from_elsewhere() -> None:
    started = Started()

    started.rows.cancel()

    with pytest.raises(QueryCancelled):
        next(started.rows)
    assert started.source.is_cancelled


def test_it_says_how_far_it_is() -> None:
    started = Started()

    before = repr(started.rows)
    list(started.rows)

    assert before == "<rows of a query: 2 columns, 0 rows read so far, open>"
    assert repr(started.rows) == "<rows of a query: 2 columns, 3 rows read so far, done>"
    assert (started.rows.rows, started.rows.query_id, started.rows.schema) == (3, "7f3a91c2d4e5", ROWS.schema)
