"""Which tables a statement gets, and how a time range is written in a column's own type."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pytest

from micromegas_jupyter.engine.scanner import find_mentions, scan
from micromegas_jupyter.engine.tables import _bound

MOMENT = datetime(1970, 1, 1, 0, 0, 1, 500_001, tzinfo=UTC)


@pytest.mark.parametrize(
    ("unit", "down", "up"),
    [("s", 1, 2), ("ms", 1500, 1501), ("us", 1_500_001, 1_500_001), ("ns", 1_500_001_000, 1_500_001_000)],
)
def test_a_bound_is_rounded_into_the_range(unit: str, down: int, up: int) -> None:
    column = pa.timestamp(unit, "+00:00")

    assert _bound(MOMENT, column, round_up=False) == pa.scalar(down, column)
    assert _bound(MOMENT, column, round_up=True) == pa.scalar(up, column)


def test_a_bound_before_the_epoch_is_rounded_the_same_way() -> None:
    before = datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=UTC)

    assert _bound(before, pa.timestamp("s"), round_up=False).value == -1
    assert _bound(before, pa.timestamp("s"), round_up=True).value == 0


def test_a_bound_of_another_zone_is_the_same_bound() -> None:
    moved = MOMENT.astimezone(timezone(timedelta(hours=5)))

    assert _bound(moved, pa.timestamp("ns", "UTC"), round_up=False).value == 1_500_001_000


def test_a_bound_beyond_nanoseconds_is_the_last_that_there_is() -> None:
    far = datetime(9999, 1, 1, tzinfo=UTC)

    assert _bound(far, pa.timestamp("ns", "UTC"), round_up=False).value == 2**63 - 1


@pytest.mark.parametrize(
    ("sql", "has"),
    [
        ("SELECT * FROM log_entries", True),
        ("SELECT * FROM LOG_ENTRIES", True),
        ('SELECT * FROM "log_entries"', True),
        ('SELECT * FROM "LOG_ENTRIES"', False),
        ("SELECT 'log_entries'", False),
        ("SELECT 1 -- log_entries", False),
        ("SELECT $$ $$ FROM LOG_ENTRIES", True),
        ("SELECT * FROM `log_entries`", True),
        ("SELECT * FROM log_entries2", False),
    ],
)
def test_a_table_is_mentioned_as_datafusion_would_read_it_and_in_doubt_always(sql: str, *, has: bool) -> None:
    assert find_mentions(scan(sql)).has("log_entries") is has
