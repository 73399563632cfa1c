"""What the client sends: times, and upstream's ready-made queries."""

from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.core.text import format_time, format_time_range
from micromegas_jupyter.errors import UsageError

_NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (datetime(2024, 1, 1, 12, 0, tzinfo=UTC), "2024-01-01T12:00:00+00:00"),
        (datetime(2024, 1, 1, 12, 0, 0, 5, tzinfo=timezone(timedelta(hours=-5))), "2024-01-01T12:00:00.000005-05:00"),
        (pd.Timestamp("2024-01-01 12:00:00.123456789", tz="UTC"), "2024-01-01T12:00:00.123456789+00:00"),
        ("2024-01-01T12:00:00Z", "2024-01-01T12:00:00+00:00"),
        (" 2024-01-01 12:00:00.5+02:00 ", "2024-01-01T12:00:00.500000+02:00"),
        ("2024-01-01T12:00:00.123456789Z", "2024-01-01T12:00:00.123456789+00:00"),
        # Before 1911 Paris was 9 minutes and 21 seconds ahead, which RFC 3339 cannot say.
        (datetime(1900, 1, 1, tzinfo=ZoneInfo("Europe/Paris")), "1899-12-31T23:50:39+00:00"),
        (None, None),
    ],
)
def test_a_time_is_written_as_upstream_writes_it(value, text):
    assert format_time(value) == text


class _NoOffset(tzinfo):
    def utcoffset(self, _when):
        return None


@pytest.mark.parametrize(
    "value",
    [
        datetime(2024, 1, 1), datetime(2024, 1, 1, tzinfo=_NoOffset()), pd.Timestamp("2024-01-01"), pd.NaT,  # noqa: DTZ001
        "2024-01-01T12:00:00", "2024-13-01T12:00:00Z", "2024-01-01T12:00:00.1234567890Z", "1h",
        np.datetime64("2024-01-01"), 1704110400,
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_point_in_time_is_refused(value):
    with pytest.raises(UsageError):
        format_time(value)


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00-01:00", "2026-01-01T00:30:00Z"),
        ("2027-01-01T00:00:00Z", None),
    ],
)
def test_a_range_that_ends_before_it_begins_is_refused(begin, end):
    since_1970 = ("1970-01-01T00:00:00+00:00", "2026-01-01T00:00:00+00:00")

    assert format_time_range(None, "2026-01-01T00:00:00Z", now=_NOW) == since_1970
    with pytest.raises(UsageError):
        format_time_range(begin, end, now=_NOW)


_DAY = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def client(monkeypatch):
    """A client that notes what would be asked."""
    client = FlightSQLClient("grpc://localhost:1")
    client.asked = []
    answer = pa.record_batch({"time": ["12:00"], "msg": ["retired 3"]})
    monkeypatch.setattr(client, "query", lambda sql, begin=None, end=None: client.asked.append((sql, begin, end)))
    monkeypatch.setattr(client, "query_stream", lambda sql: client.asked.append(sql) or [answer])
    return client


def test_upstreams_queries_quote_what_they_are_given(client):
    client.find_process("a' OR '1'='1")
    client.query_streams(*_DAY, 10)
    client.query_streams(*_DAY, 10, "p1", "it's")
    client.query_blocks(*_DAY, 5, "s'1")
    client.query_spans(*_DAY, 5, "s'1")

    tagged = "SELECT * FROM streams WHERE process_id = 'p1' AND array_position(tags, 'it''s') IS NOT NULL LIMIT 10"
    assert client.asked == [
        ("SELECT * FROM processes WHERE process_id = 'a'' OR ''1''=''1'", None, None),
        ("SELECT * FROM streams LIMIT 10", *_DAY),
        (tagged, *_DAY),
        ("SELECT * FROM blocks WHERE stream_id = 's''1' LIMIT 5", *_DAY),
        ("SELECT * FROM view_instance('thread_spans', 's''1') LIMIT 5", *_DAY),
    ]
    for limit in (-1, 1.5, "1; DROP TABLE x"):
        with pytest.raises(UsageError):
            client.query_blocks(*_DAY, limit, "s")


def test_partitions_are_changed_and_messages_printed(client, capsys):
    client.retire_partitions("log_entries", "p'1", *_DAY)
    client.materialize_partitions("log_entries", *_DAY, 3600)
    client.regenerate_partitions("log_entries", *_DAY, 3600)

    range_text = "'2026-01-01T00:00:00+00:00', '2026-01-02T00:00:00+00:00'"
    assert client.asked == [
        f"SELECT time, msg FROM retire_partitions('log_entries', 'p''1', {range_text})",
        f"SELECT time, msg FROM materialize_partitions('log_entries', {range_text}, 3600)",
        f"SELECT time, msg FROM regenerate_partitions('log_entries', {range_text}, 3600)",
    ]
    assert capsys.readouterr().out == "12:00 retired 3\n" * 3
