"""The process, its two streams and their blocks: from rows to batches for the four tables.

It keeps the count of blocks and the time of the last sign of life. Storing the batches is the recorder's job.
"""

import uuid
from collections.abc import Sequence

import pyarrow as pa

from micromegas_jupyter.telemetry import (
    LOG_ENTRIES,
    MEASURES,
    PROCESSES,
    STREAMS,
    BlockOrigin,
    LogRow,
    MeasureRow,
    ProcessInfo,
    StreamInfo,
    build_log_batch,
    build_measure_batch,
    build_process_batch,
    build_stream_batch,
)

# There is no encoded payload behind these rows, only the rows.
STREAM_FORMAT = "rows/v1"
LOG_TAG, METRICS_TAG = "log", "metrics"

TableBatch = tuple[str, pa.RecordBatch]


class RecordedStreams:
    """What one process has recorded so far; for one thread."""

    def __init__(self, process: ProcessInfo, *, heartbeat_seconds: float) -> None:
        self._process = process
        self._heartbeat_seconds = heartbeat_seconds
        self._streams = {tag: _describe_stream(process, tag) for tag in (LOG_TAG, METRICS_TAG)}
        self._next_block = 0
        self._last_block_end_ns: int | None = None
        self._heartbeat_at: float | None = None

    def build_batches(
        self,
        log_rows: Sequence[LogRow],
        measures: Sequence[MeasureRow],
        *,
        now_ns: int,
        monotonic_seconds: float,
        is_last: bool = False,
    ) -> list[TableBatch]:
        """Return the batches of one flush; a sign of life first, when one is due.

        Args:
            log_rows: What was logged since the last flush.
            measures: What was measured since the last flush.
            now_ns: Nanoseconds since 1970 UTC.
            monotonic_seconds: The time that heartbeats are reckoned by.
            is_last: The process ends, so its last sign of life is now.
        """
        batches: list[TableBatch] = []
        if log_rows:
            batches.append((LOG_ENTRIES.name, build_log_batch(log_rows, self._open_block(LOG_TAG, now_ns))))
        if measures:
            batches.append((MEASURES.name, build_measure_batch(measures, self._open_block(METRICS_TAG, now_ns))))
        if is_last or self._heartbeat_at is None or monotonic_seconds >= self._heartbeat_at:
            self._heartbeat_at = monotonic_seconds + self._heartbeat_seconds
            batches = [*self._build_states(now_ns), *batches]
        return batches

    def _open_block(self, tag: str, now_ns: int) -> BlockOrigin:
        stream_id = self._streams[tag].stream_id
        block_id = str(uuid.uuid5(uuid.UUID(stream_id), str(self._next_block)))
        self._next_block += 1
        self._last_block_end_ns = now_ns
        return BlockOrigin(process=self._process, stream_id=stream_id, block_id=block_id, insert_time_ns=now_ns)

    def _build_states(self, now_ns: int) -> list[TableBatch]:
        state = build_process_batch(
            self._process, last_update_time_ns=now_ns, last_block_end_time_ns=self._last_block_end_ns
        )
        streams = [build_stream_batch(stream, last_update_time_ns=now_ns) for stream in self._streams.values()]
        return [(PROCESSES.name, state), *((STREAMS.name, batch) for batch in streams)]


def _describe_stream(process: ProcessInfo, tag: str) -> StreamInfo:
    return StreamInfo(
        stream_id=str(uuid.uuid5(uuid.UUID(process.process_id), tag)),
        process_id=process.process_id,
        tags=(tag,),
        format=STREAM_FORMAT,
        insert_time_ns=process.insert_time_ns,
    )
