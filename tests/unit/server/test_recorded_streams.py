import pyarrow as pa
import pytest

from micromegas_jupyter.server.recorder.recorder import RecordedStreams
from micromegas_jupyter.telemetry import LogRow, MeasureRow
from tests.fakes.telemetry_rows import NOON_NS, process_info

PROCESS_ID = "11111111-1111-4111-8111-111111111111"
LOG = LogRow(time_ns=NOON_NS, target="app", level=4, msg="hello")
MEASURE = MeasureRow(time_ns=NOON_NS, target="app", name="n", unit="count", value=1.0)


@pytest.fixture
def streams() -> RecordedStreams:
    return RecordedStreams(process_info(PROCESS_ID), heartbeat_seconds=10.0)


def _tables(batches: list[tuple[str, pa.RecordBatch]]) -> list[str]:
    return [table for table, _ in batches]


def test_the_first_flush_registers_process_and_streams(streams: RecordedStreams) -> None:
    batches = streams.build_batches([LOG], [MEASURE], now_ns=NOON_NS, monotonic_seconds=0.0)

    assert _tables(batches) == ["processes", "streams", "streams", "log_entries", "measures"]
    assert [batch.to_pylist()[0]["tags"] for table, batch in batches if table == "streams"] == [["log"], ["metrics"]]


def test_a_sign_of_life_is_given_every_few_seconds(streams: RecordedStreams) -> None:
    streams.build_batches([], [], now_ns=NOON_NS, monotonic_seconds=0.0)

    quiet = streams.build_batches([], [], now_ns=NOON_NS, monotonic_seconds=9.9)
    due = streams.build_batches([], [], now_ns=NOON_NS + 5, monotonic_seconds=10.0)

    assert quiet == []
    assert _tables(due) == ["processes", "streams", "streams"]
    assert due[0][1].column("last_update_time").cast("int64").to_pylist() == [NOON_NS + 5]


def test_the_end_is_a_sign_of_life_too(streams: RecordedStreams) -> None:
    streams.build_batches([], [], now_ns=NOON_NS, monotonic_seconds=0.0)

    last = streams.build_batches([], [], now_ns=NOON_NS, monotonic_seconds=1.0, is_last=True)

    assert _tables(last) == ["processes", "streams", "streams"]


def test_rows_belong_to_the_streams_that_are_registered(streams: RecordedStreams) -> None:
    batches = streams.build_batches([LOG], [MEASURE], now_ns=NOON_NS, monotonic_seconds=0.0)

    by_table = {table: batch.to_pylist()[0] for table, batch in batches}
    log_stream, metrics_stream = (batch.to_pylist()[0]["stream_id"] for table, batch in batches if table == "streams")
    assert by_table["log_entries"]["stream_id"] == log_stream
    assert by_table["measures"]["stream_id"] == metrics_stream
    assert by_table["log_entries"]["process_id"] == PROCESS_ID
    assert log_stream != metrics_stream


def test_each_flush_of_a_stream_is_a_block_of_its_own(streams: RecordedStreams) -> None:
    ids = [
        streams.build_batches([LOG], [], now_ns=NOON_NS, monotonic_seconds=1.0)[-1][1].column("block_id")[0].as_py()
        for _ in range(2)
    ]

    assert len(set(ids)) == 2
