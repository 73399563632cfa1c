from datetime import UTC, datetime

import pytest

from micromegas_jupyter.config.decoding import parse_range, parse_time
from micromegas_jupyter.errors import UsageError

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
def test_a_time_is_relative_or_rfc_3339(text: str, moment: datetime) -> None:
    assert parse_time(text, now=NOW) == moment


@pytest.mark.parametrize(
    "text",
    ["", "h", "1hx", "24hours", "5d junk", "-1h", "1 h", "1H", "1s", "999999d", "2026-13-01T00:00:00Z", "yesterday",
     "2026-01-31", "20260131T120000Z", "١h"],
)  # fmt: skip
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_time(text, now=NOW)

    assert "15m, 1h or 7d" in refused.value.remedy


def test_a_begin_alone_lasts_until_now() -> None:
    assert parse_range("1h", None, now=NOW) == (datetime(2026, 11, 24, 11, 0, tzinfo=UTC), NOW)


def test_no_range_is_no_range() -> None:
    assert parse_range(None, None, now=NOW) == (None, None)


@pytest.mark.parametrize(("begin", "end"), [(None, "1h"), ("1h", "2h")])
def test_an_end_alone_and_a_range_backwards_are_refused(begin: str | None, end: str) -> None:
    with pytest.raises(UsageError):
        parse_range(begin, end, now=NOW)
