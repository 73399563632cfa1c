"""Times on a command line."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from micromegas_jupyter.cli.times import parse_time
from micromegas_jupyter.errors import UsageError

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("15m", datetime(2026, 11, 24, 11, 45, tzinfo=UTC)),
        ("1h", datetime(2026, 11, 24, 11, 0, tzinfo=UTC)),
        ("7d", datetime(2026, 11, 17, 12, 0, tzinfo=UTC)),
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, 0, tzinfo=UTC)),
        ("2026-01-31T12:00:00", datetime(2026, 1, 31, 12, 0, tzinfo=UTC)),
        ("2026-01-31T12:00:00+02:00", datetime(2026, 1, 31, 12, 0, tzinfo=timezone(timedelta(hours=2)))),
    ],
)
def test_a_time_is_read(text: str, expected: datetime) -> None:
    assert parse_time(text, now=NOW) == expected


@pytest.mark.parametrize("text", ["1hx", "24hours", "5d junk", "h", "-1h", "", "yesterday", "1.5h", "9999999d", "١h"])
def test_anything_else_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_time(text, now=NOW)

    assert "RFC 3339" in caught.value.remedy
