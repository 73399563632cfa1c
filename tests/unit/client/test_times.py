"""What a caller may write for a time, and how it travels."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from micromegas_jupyter.client.flight_client import format_time, format_time_range
from micromegas_jupyter.errors import UsageError

_NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


class _Moment(datetime):
    """A datetime of somebody's own."""


class _NoOffset(tzinfo):
    def utcoffset(self, _when: datetime | None) -> None:
        return None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (datetime(2024, 1, 1, 12, 0, tzinfo=UTC), "2024-01-01T12:00:00+00:00"),
        (datetime(2024, 1, 1, 12, 0, 0, 5, tzinfo=timezone(timedelta(hours=-5))), "2024-01-01T12:00:00.000005-05:00"),
        (_Moment(2024, 1, 1, 12, 0, tzinfo=UTC), "2024-01-01T12:00:00+00:00"),
        (pd.Timestamp("2024-01-01 12:00:00.123456789", tz="UTC"), "2024-01-01T12:00:00.123456789+00:00"),
        ("2024-01-01T12:00:00Z", "2024-01-01T12:00:00+00:00"),
        ("2024-01-01t12:00:00z", "2024-01-01T12:00:00+00:00"),
        (" 2024-01-01 12:00:00.5+02:00 ", "2024-01-01T12:00:00.500000+02:00"),
        ("2024-01-01T12:00:00.123456789Z", "2024-01-01T12:00:00.123456789+00:00"),
        # Before 1911 Paris was 9 minutes and 21 seconds ahead, which RFC 3339 cannot say.
        (datetime(1900, 1, 1, tzinfo=ZoneInfo("Europe/Paris")), "1899-12-31T23:50:39+00:00"),
        (None, None),
    ],
)
def test_a_time_is_written_as_upstream_writes_it(value: datetime | str | None, text: str | None) -> None:
    assert format_time(value) == text


@pytest.mark.parametrize(
    "value",
    [
        datetime(2024, 1, 1, 12, 0),  # noqa: DTZ001 - the point of the case
        datetime(2024, 1, 1, tzinfo=_NoOffset()),
        pd.Timestamp("2024-01-01"),
        pd.NaT,
        "2024-01-01T12:00:00",
        "2024-01-01",
        "2024-13-01T12:00:00Z",
        "2024-01-01T25:00:00Z",
        "2024-01-01T12:00:00.1234567890Z",
        "1h",
        "",
        date(2024, 1, 1),
        np.datetime64("2024-01-01"),
        1704110400,
    ],
    ids=str,
)
def test_what_is_no_point_in_time_is_refused(value: datetime) -> None:
    with pytest.raises(UsageError):
        format_time(value)


def test_a_range_has_both_ends_or_none() -> None:
    assert format_time_range(None, None, now=_NOW) == (None, None)
    assert format_time_range("2026-01-01T00:00:00Z", None, now=_NOW) == (
        "2026-01-01T00:00:00+00:00",
        "2026-11-24T12:00:00+00:00",
    )
    assert format_time_range(None, "2026-01-01T00:00:00Z", now=_NOW) == (
        "1970-01-01T00:00:00+00:00",
        "2026-01-01T00:00:00+00:00",
    )


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00.000000002Z", "2026-01-01T00:00:00.000000001Z"),
        ("2026-01-01T00:00:00-01:00", "2026-01-01T00:30:00Z"),
        ("2027-01-01T00:00:00Z", None),
    ],
)
def test_a_range_that_ends_before_it_begins_is_refused(begin: str, end: str | None) -> None:
    with pytest.raises(UsageError):
        format_time_range(begin, end, now=_NOW)


def test_a_range_of_one_instant_is_a_range() -> None:
    begin, end = format_time_range("2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00Z", now=_NOW)

    assert (begin, end) == ("2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00+00:00")


@pytest.mark.parametrize(
    "begin", ["0001-01-01T00:00:00+14:00", datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))]
)
def test_a_time_outside_the_calendar_is_refused(begin: datetime | str) -> None:
    with pytest.raises(UsageError):
        format_time_range(begin, "2026-01-01T00:00:00Z", now=_NOW)
