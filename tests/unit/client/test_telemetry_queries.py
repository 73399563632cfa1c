"""Upstream's ready-made queries, with quoting done right."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from micromegas_jupyter.client.flight_client import TelemetryQueries
from micromegas_jupyter.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_BEGIN, _END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)


class _Recorder(TelemetryQueries):
    """Notes what would be asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    def open_query(self, sql, begin=None, end=None, params=None):
        raise NotImplementedError

    def close(self):
        pass

    def query(self, sql, begin=None, end=None):
        self.asked.append((sql, begin, end))

    def query_stream(self, sql, begin=None, end=None) -> Iterator[pa.RecordBatch]:
        self.asked.append((sql, begin, end))
        yield pa.record_batch({"time": ["12:00"], "msg": ["retired 3"]})


@pytest.fixture
def client() -> _Recorder:
    return _Recorder()


def test_a_process_is_found_by_its_quoted_id(client: _Recorder) -> None:
    client.find_process("a' OR '1'='1")

    assert client.asked == [("SELECT * FROM processes WHERE process_id = 'a'' OR ''1''=''1'", None, None)]


def test_streams_are_asked_for_with_and_without_conditions(client: _Recorder) -> None:
    client.query_streams(_BEGIN, _END, 10)
    client.query_streams(_BEGIN, _END, 10, "p1", "it's")

    assert client.asked == [
        ("SELECT * FROM streams LIMIT 10", _BEGIN, _END),
        (
            "SELECT * FROM streams WHERE process_id = 'p1' AND array_position(tags, 'it''s') IS NOT NULL LIMIT 10",
            _BEGIN,
            _END,
        ),
    ]


def test_blocks_and_spans_of_a_stream_are_asked_for(client: _Recorder) -> None:
    client.query_blocks(_BEGIN, _END, 5, "s'1")
    client.query_spans(_BEGIN, _END, 5, "s'1")

    assert [asked[0] for asked in client.asked] == [
        "SELECT * FROM blocks WHERE stream_id = 's''1' LIMIT 5",
        "SELECT * FROM view_instance('thread_spans', 's''1') LIMIT 5",
    ]


def test_partitions_are_changed_and_messages_printed(client: _Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    client.retire_partitions("log_entries", "p'1", _BEGIN, _END)
    client.materialize_partitions("log_entries", _BEGIN, _END, 3600)
    client.regenerate_partitions("log_entries", _BEGIN, _END, 3600)

    range_text = "'2026-01-01T00:00:00+00:00', '2026-01-02T00:00:00+00:00'"
    assert [asked[0] for asked in client.asked] == [
        f"SELECT time, msg FROM retire_partitions('log_entries', 'p''1', {range_text})",
        f"SELECT time, msg FROM materialize_partitions('log_entries', {range_text}, 3600)",
        f"SELECT time, msg FROM regenerate_partitions('log_entries', {range_text}, 3600)",
    ]
    assert capsys.readouterr().out == "12:00 retired 3\n" * 3


@pytest.mark.parametrize("limit", [-1, 1.5, "1; DROP TABLE x", True, None])
def test_a_count_that_is_none_is_refused(client: _Recorder, limit: int) -> None:
    with pytest.raises(UsageError):
        client.query_blocks(_BEGIN, _END, limit, "s")


def test_a_partition_without_a_time_is_refused(client: _Recorder) -> None:
    with pytest.raises(UsageError):
        client.retire_partitions("v", "i", None, _END)
