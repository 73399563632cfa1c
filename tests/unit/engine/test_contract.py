"""The values that go into an engine."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from micromegas_jupyter.engine import EngineSettings, StatementRequest, TimeRange

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize(("begin", "end"), [(NOON.replace(tzinfo=None), NOON), (NOON, NOON.replace(tzinfo=None))])
def test_a_time_range_needs_zones(begin: datetime, end: datetime) -> None:
    with pytest.raises(ValueError, match="time zone"):
        TimeRange(begin=begin, end=end)


def test_a_row_limit_is_not_negative() -> None:
    assert StatementRequest(sql="SELECT 1", row_limit=0).row_limit == 0
    with pytest.raises(ValueError, match="row limit"):
        StatementRequest(sql="SELECT 1", row_limit=-1)


def test_a_request_does_not_show_its_sql() -> None:
    assert "secret" not in repr(StatementRequest(sql="SELECT 'secret'"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"memory_limit_bytes": 0},
        {"spill_limit_bytes": 0},
        {"batch_rows": 0},
        {"target_partitions": 0},
        {"max_statement_bytes": 0},
        {"max_statement_bytes": 524289},
    ],
)
def test_engine_settings_have_bounds(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"one or more|between"):
        EngineSettings(**wrong)


def test_engine_settings_allow_longer_statements() -> None:
    assert EngineSettings().max_statement_bytes == 131072
    assert EngineSettings(max_statement_bytes=524288).max_statement_bytes == 524288
