"""Each reader accepts what it is for, and refuses anything else with an error that names the key."""

from datetime import UTC, datetime, timedelta

import pytest

from micromegas_jupyter.config.decoding import as_time
from micromegas_jupyter.core.text import parse_range, parse_time
from micromegas_jupyter.errors import ConfigurationError, UsageError


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, 0, tzinfo=UTC)),
        ("2026-01-31t12:00:00z", datetime(2026, 1, 31, 12, 0, tzinfo=UTC)),
        ("2026-01-31T12:00:00.5+01:30", datetime(2026, 1, 31, 10, 30, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_a_time_with_an_offset_is_returned_in_utc(text, time):
    read = as_time(text, "KEY")

    assert (read, read.utcoffset()) == (time, timedelta(0))


@pytest.mark.parametrize(
    "value",
    [
        "2026-01-31T12:00:00", "2026-01-31", "2026-01-31 12:00:00Z", "2026-01-31T12:00Z", "2026-13-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-01-31T12:00:00+99:99", "", None, "soon",
        "２０26-01-31T12:00:00Z", 1769860800,
    ],
)  # fmt: skip
def test_another_value_is_no_time_with_an_offset(value):
    with pytest.raises(ConfigurationError, match="KEY is not a time"):
        as_time(value, "KEY")


NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("15m", datetime(2026, 11, 24, 11, 45, tzinfo=UTC)),
        ("1h", datetime(2026, 11, 24, 11, 0, tzinfo=UTC)),
        ("7d", datetime(2026, 11, 17, 12, 0, tzinfo=UTC)),
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, 0, tzinfo=UTC)),
        ("2026-01-31 12:00:00.5+01:00", datetime(2026, 1, 31, 11, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-01-31t12:00:00.123456789z", datetime(2026, 1, 31, 12, 0, 0, 123_456, tzinfo=UTC)),
        ("2026-01-31T12:00", datetime(2026, 1, 31, 12, 0, tzinfo=UTC)),
    ],
)
def test_a_time_is_relative_or_rfc_3339(text, moment):
    assert parse_time(text, now=NOW) == moment


@pytest.mark.parametrize(
    "text",
    ["", "h", "1hx", "24hours", "5d junk", "-1h", "1 h", "1H", "1s", "999999d", "2026-13-01T00:00:00Z", "yesterday",
     "2026-01-31", "20260131T120000Z", "١h"],
)  # fmt: skip
def test_anything_else_is_refused_with_examples(text):
    with pytest.raises(UsageError) as refused:
        parse_time(text, now=NOW)

    assert "15m, 1h, or 7d" in refused.value.remedy


@pytest.mark.parametrize(("begin", "end"), [(None, "1h"), ("1h", "2h")])
def test_a_begin_alone_lasts_until_now_and_an_end_alone_or_a_range_backwards_is_refused(begin, end):
    assert parse_range("1h", None, now=NOW) == (datetime(2026, 11, 24, 11, 0, tzinfo=UTC), NOW)
    assert parse_range(None, None, now=NOW) == (None, None)
    with pytest.raises(UsageError):
        parse_range(begin, end, now=NOW)
