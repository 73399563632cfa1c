"""Stores exports of OpenTelemetry in the ingest process: decodes them, and has their rows committed with others'."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Final

import pyarrow as pa
from cachetools import LRUCache

from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.lake.writer import LakeWrite, LakeWriter
from micromegas_jupyter.otlp.decode import decode_request, encode_answer
from micromegas_jupyter.otlp.exchange import ExportReport, ExportRequest
from micromegas_jupyter.otlp.mapping import Block, MappedExport, OriginCache, block_rows, map_request
from micromegas_jupyter.telemetry.tables import (
    BLOCKS,
    NANOSECONDS_PER_SECOND,
    PROCESSES,
    STREAMS,
    build_process_batch,
    build_stream_batch,
)

STATE_SECONDS: Final = 60.0
"""A process and a stream are written again after so long, with when they were last heard of."""
_MAX_STATES: Final = 20_000
OnDone = Callable[[ExportReport | BaseException], None]


class ExportStore:
    """Stores one export after the other, for one thread; each is answered from the thread that commits its rows.

    New processes and streams are stored first, then the records and their blocks at once. A repeated export adds what
    an interrupted one lacks: rows are stored once under ids made of what was sent.
    """

    def __init__(self, writer: LakeWriter) -> None:
        self._writer = writer
        self._origins = OriginCache()
        self._states = _States()

    def store(self, request: ExportRequest, on_done: OnDone) -> None:
        """Store an export; `on_done` gets its report once all of it is durable, or its error."""
        writes: list[LakeWrite] = []

        def give_up(error: BaseException) -> None:
            for write in writes:
                write.abandon()
            on_done(error)

        try:
            now_ns = round(SYSTEM_CLOCK.now().timestamp() * NANOSECONDS_PER_SECOND)
            mapped = map_request(
                request.signal,
                decode_request(request),
                origins=self._origins,
                now_ns=now_ns,
                is_trusted=request.is_trusted,
                is_own=request.is_own,
            )
            report = _build_report(request, mapped)
            if not mapped.blocks:
                on_done(report)
                return
            # Rows that only a trusted caller may send make another write of the same export.
            kind = "-own" if request.is_own else "-trusted" if request.is_trusted else ""
            write_id = f"{mapped.write_id}{kind}"
            for table, rows in (
                (request.signal.table, mapped.records),
                (BLOCKS.name, block_rows(mapped.blocks, now_ns=now_ns)),
            ):
                writes.append(self._open(table, rows.schema, write_id))
                writes[-1].write(rows)
            states = self._states.find_due(mapped.blocks, now_ns)
            stored_states = self._submit_states(states)
        except BaseException as error:  # noqa: BLE001 - the exporter gets it
            give_up(error)
            return

        def submit(error: BaseException | None) -> None:
            if error is not None:
                give_up(error)
                return
            try:
                self._states.note_stored(states)
                futures = [write.submit() for write in writes]
            except BaseException as failure:  # noqa: BLE001 - the exporter gets it
                give_up(failure)
                return
            _when_all_done(futures, lambda error: on_done(report if error is None else error))

        _when_all_done(stored_states, submit)

    def _open(self, table: str, schema: pa.Schema, write_id: str | None) -> LakeWrite:
        request = WriteRequest(
            table=table,
            mode=WriteMode.APPEND,
            write_id=write_id,
            is_trusted=True,
            may_read=True,
            is_own=True,
            is_short_lived=True,
        )
        return self._writer.open_write(request, schema)

    def _submit_states(self, states: "_DueStates") -> list[Future[int]]:
        futures = []
        for table, batches in states.rows.items():
            write = self._open(table, batches[0].schema, None)
            for batch in batches:
                write.write(batch)
            futures.append(write.submit())
        return futures


def _when_all_done(futures: Sequence[Future[int]], then: Callable[[BaseException | None], None]) -> None:
    """Call `then` once all are done, with the first error, on the thread that ends the last."""
    if not futures:
        then(None)
        return
    lock, left, errors = threading.Lock(), [len(futures)], list[BaseException]()

    def note(future: Future[int]) -> None:
        error = future.exception()
        with lock:
            left[0] -= 1
            is_last = not left[0]
            if error is not None:
                errors.append(error)
        if is_last:
            then(errors[0] if errors else None)

    for future in futures:
        future.add_done_callback(note)


def _build_report(request: ExportRequest, mapped: MappedExport) -> ExportReport:
    refusals, stored = mapped.refusals, mapped.records.num_rows
    reason = f"{refusals.count:,} refused. The first: {refusals.reason}" if refusals.count else ""
    return ExportReport(
        stored=stored, refused=refusals.count, answer=encode_answer(request, refused=refusals.count, reason=reason)
    )


class _DueStates:
    """States that are to be stored, by table."""

    def __init__(self) -> None:
        self.keys: dict[str, int] = {}  # with when it was first seen
        self.rows: dict[str, list[pa.RecordBatch]] = {}


class _States:
    """Which processes and streams were stored lately. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stored: LRUCache[str, tuple[int, float]] = LRUCache(_MAX_STATES)

    def find_due(self, blocks: Sequence[Block], now_ns: int) -> _DueStates:
        """Return the states of blocks' processes and streams that are new, or were stored long ago."""
        due = _DueStates()
        by_process: dict[str, list[Block]] = {}
        for block in blocks:
            by_process.setdefault(block.process.process_id, []).append(block)
        for process_id, group in by_process.items():
            first_seen = self._find_first_seen(process_id, now_ns)
            if first_seen is not None:
                due.keys[process_id] = first_seen
                batch = build_process_batch(
                    replace(group[0].process, insert_time_ns=first_seen),
                    last_update_time_ns=now_ns,
                    last_block_end_time_ns=max(block.end_ns for block in group),
                )
                due.rows.setdefault(PROCESSES.name, []).append(batch)
            stream = group[0].origin.stream
            first_seen = self._find_first_seen(stream.stream_id, now_ns)
            if first_seen is not None:
                due.keys[stream.stream_id] = first_seen
                batch = build_stream_batch(replace(stream, insert_time_ns=first_seen), last_update_time_ns=now_ns)
                due.rows.setdefault(STREAMS.name, []).append(batch)
        return due

    def note_stored(self, states: _DueStates) -> None:
        """Note that states are durable."""
        now = SYSTEM_CLOCK.monotonic()
        with self._lock:
            for key, first_seen in states.keys.items():
                self._stored[key] = first_seen, now

    def _find_first_seen(self, key: str, now_ns: int) -> int | None:
        """Return when something that is due was first seen; None when it is not due."""
        with self._lock:
            first_seen, stored_at = self._stored.get(key, (now_ns, float("-inf")))
        return first_seen if SYSTEM_CLOCK.monotonic() - stored_at >= STATE_SECONDS else None
