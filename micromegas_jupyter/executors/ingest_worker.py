"""The process that stores callers' uploads and OpenTelemetry exports, and that creates and changes tables.

Each call has its own channel and thread. A crash affects the calls that run at that moment, but never the front end or
queries. Callers without a response may repeat the same write with the same ID.
"""

import base64
import contextlib
import json
import pickle
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Final

import pyarrow as pa
from cachetools import LRUCache

from micromegas_jupyter.core.protocols import TableSink, TableWrite, WriteMode, WriteRequest
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import InternalError, ResourcesExhausted, UsageError
from micromegas_jupyter.executors import protocol
from micromegas_jupyter.executors.protocol import Upload
from micromegas_jupyter.executors.settings import WorkerOptions
from micromegas_jupyter.flightsql.framing import StreamDecoder, split_rows
from micromegas_jupyter.lake.operations import check_may_replace, run_operation
from micromegas_jupyter.lake.tables import Tables
from micromegas_jupyter.lake.writer import LakeWrite, LakeWriter
from micromegas_jupyter.otlp.decode import decode_request, encode_answer
from micromegas_jupyter.otlp.exchange import ExportReport, ExportRequest
from micromegas_jupyter.otlp.mapping import Block, OriginCache, block_rows, map_request
from micromegas_jupyter.telemetry.tables import (
    BLOCKS,
    HISTOGRAMS,
    NANOSECONDS_PER_SECOND,
    PROCESSES,
    STREAMS,
    build_process_batch,
    build_stream_batch,
)

_STACK_BYTES: Final = 2 * 1024 * 1024  # per call thread; all thread stacks count against the memory limit
_SEND_LESS: Final = "Send them in several calls."
STATE_SECONDS: Final = 60.0  # how often processes and streams are stored again, to update their last activity
_MAX_STATES: Final = 20_000
OnDone = Callable[[ExportReport | BaseException], None]


class UploadStream:
    """Decodes an upload's messages in order, and stores the rows. Finished with `commit` or `abandon`."""

    def __init__(self, sink: TableSink, upload: Upload) -> None:
        self._sink = sink
        self._request, self._limits, self._announced = upload.request, upload.limits, upload.row_count
        self._decoder = StreamDecoder(upload.limits.decode_limits())
        self._write: TableWrite | None = None
        self._decoded_bytes = 0
        self.rows = 0

    def take(self, frame: bytes) -> None:
        """Process one serialized `FlightData`."""
        batch = self._decoder.decode(frame)
        if self._write is None and self._decoder.schema is not None:
            self._write = self._sink.open_write(self._request, _checked(self._decoder.schema))
        if batch is None or self._write is None:
            return
        self.rows += batch.num_rows
        if self.rows > self._limits.max_rows:
            raise ResourcesExhausted(
                f"There are more than {self._limits.max_rows:,} rows.", remedy=_SEND_LESS, limit="ingest"
            )
        for part, size in split_rows(batch, max_bytes=self._limits.max_row_bytes):
            self._decoded_bytes += size
            if self._decoded_bytes > self._limits.max_bytes:
                raise ResourcesExhausted(
                    f"The rows take more than {self._limits.max_bytes:,} bytes.", remedy=_SEND_LESS, limit="ingest"
                )
            self._write.write(part)

    def commit(self) -> int:
        """Make all rows durable and visible; return their number."""
        if self._write is None:
            raise UsageError("The call has no schema.", remedy="Send an Arrow table; it may be empty.")
        if self._announced is not None and self._announced != self.rows:
            raise UsageError(
                f"{self.rows:,} of {self._announced:,} rows have arrived; none were stored.", remedy="Send them again."
            )
        return self._write.commit()

    def abandon(self) -> None:
        """Discard all rows; has no effect after `commit`."""
        if self._write is not None:
            self._write.abandon()


def _checked(schema: pa.Schema) -> pa.Schema:
    """Return the schema after checking that it has columns, and that their names are unique."""
    if not schema.names:
        raise UsageError("The rows have no columns.", remedy="Send at least one.")
    repeated = next((name for name, count in Counter(schema.names).items() if count > 1), None)
    if repeated is not None:
        raise UsageError(f"Two columns are named {repeated[:80]!r}.", remedy="Rename one of them.")
    return schema


LogRecords = list[tuple[int, str, str]]


def serve_ingest(front: socket.socket, options: WorkerOptions, *, take_log: Callable[[], LogRecords]) -> None:
    """Serve each channel that the front end sends, until the front end exits."""
    if options.lake is None:
        raise InternalError("This executor doesn't have a lake to store rows in.")
    storage = Storage(options.lake)
    writer, tables = LakeWriter(storage), Tables(storage, check_condition=_check_condition)
    threading.stack_size(_STACK_BYTES)
    protocol.Requests(front).send(protocol.ACCEPTED, b"{}")
    while True:
        data, descriptors, _, _ = socket.recv_fds(front, 1, 1)
        if not data:
            break
        for descriptor in descriptors:
            call = _Call(socket.socket(fileno=descriptor), writer, tables, take_log)
            threading.Thread(target=call.serve, name="ingest-call", daemon=True).start()
    writer.close()


def _check_condition(condition: object) -> None:
    from micromegas_jupyter.engine.workarounds.in_lists import check_null_safe  # loads DataFusion

    check_null_safe(condition)


class ExportStore:
    """Processes exports sequentially on one thread; the thread that commits the rows sends the response.

    New processes and streams are stored first, then records and their blocks together. A repeated export adds what an
    interrupted one lacks, because the rows' IDs are derived from the data that was sent.
    """

    def __init__(self, writer: LakeWriter) -> None:
        self._writer = writer
        self._origins = OriginCache()
        self._states = _States()

    def store(self, request: ExportRequest, on_done: OnDone) -> None:
        """Store an export; `on_done` receives the report once all rows are durable, or the error."""
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
            refusals, points = mapped.refusals, mapped.records.get(HISTOGRAMS.name)
            if points is not None and (reason := self._writer.find_problem(HISTOGRAMS.name)) is not None:
                # In earlier versions, users could create a table with this name; other metrics must still be stored.
                refusals.add(reason, points.num_rows)
                others = {table: rows for table, rows in mapped.records.items() if table != HISTOGRAMS.name}
                mapped = replace(mapped, records=others)
            answer = encode_answer(request, refused=refusals.count, first=refusals.reason)
            report = ExportReport(stored=mapped.stored, refused=refusals.count, answer=answer)
            if not mapped.stored:
                on_done(report)
                return
            # Trusted callers may send rows that others may not, so theirs is a separate write of the same export.
            kind = "-own" if request.is_own else "-trusted" if request.is_trusted else ""
            write_id = f"{mapped.write_id}{kind}"
            for table, rows in (
                *mapped.records.items(),
                (BLOCKS.name, block_rows(mapped.blocks, now_ns=now_ns)),
            ):
                writes.append(self._open(table, rows.schema, write_id))
                writes[-1].write(rows)
            due, states = self._states.find_due(mapped.blocks, now_ns)
            stored_states = self._submit_states(states)
        except BaseException as error:  # noqa: BLE001 - the exporter gets it
            give_up(error)
            return

        def submit(error: BaseException | None) -> None:
            if error is not None:
                give_up(error)
                return
            try:
                self._states.note_stored(due)
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

    def _submit_states(self, states: Mapping[str, Sequence[pa.RecordBatch]]) -> list[Future[int]]:
        futures = []
        for table, batches in states.items():
            write = self._open(table, batches[0].schema, None)
            for batch in batches:
                write.write(batch)
            futures.append(write.submit())
        return futures


def _when_all_done(futures: Sequence[Future[int]], then: Callable[[BaseException | None], None]) -> None:
    """Once all futures are done, call `then` with the first error, if any, on the thread that finishes last."""
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


class _States:
    """Tracks which processes and streams were stored recently. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stored: LRUCache[str, tuple[int, float]] = LRUCache(_MAX_STATES)

    def find_due(self, blocks: Sequence[Block], now_ns: int) -> tuple[dict[str, int], dict[str, list[pa.RecordBatch]]]:
        """Find the blocks' processes and streams that are new or that are due to be stored again.

        Return a mapping from their IDs to the times when they were first seen, and their rows by table.
        """
        due: dict[str, int] = {}
        rows: dict[str, list[pa.RecordBatch]] = {}
        by_process: dict[str, list[Block]] = {}
        for block in blocks:
            by_process.setdefault(block.process.process_id, []).append(block)
        for process_id, group in by_process.items():
            first_seen = self._find_first_seen(process_id, now_ns)
            if first_seen is not None:
                due[process_id] = first_seen
                batch = build_process_batch(
                    replace(group[0].process, insert_time_ns=first_seen),
                    last_update_time_ns=now_ns,
                    last_block_end_time_ns=max(block.end_ns for block in group),
                )
                rows.setdefault(PROCESSES.name, []).append(batch)
            stream = group[0].origin.stream
            first_seen = self._find_first_seen(stream.stream_id, now_ns)
            if first_seen is not None:
                due[stream.stream_id] = first_seen
                batch = build_stream_batch(replace(stream, insert_time_ns=first_seen), last_update_time_ns=now_ns)
                rows.setdefault(STREAMS.name, []).append(batch)
        return due, rows

    def note_stored(self, due: dict[str, int]) -> None:
        """Record that the states of these processes and streams are durable."""
        now = SYSTEM_CLOCK.monotonic()
        with self._lock:
            for key, first_seen in due.items():
                self._stored[key] = first_seen, now

    def _find_first_seen(self, key: str, now_ns: int) -> int | None:
        """Return when a process or stream was first seen if its state is due to be stored, or None otherwise."""
        with self._lock:
            first_seen, stored_at = self._stored.get(key, (now_ns, float("-inf")))
        return first_seen if SYSTEM_CLOCK.monotonic() - stored_at >= STATE_SECONDS else None


class _Call:
    """One call: an upload, table operations, or many concurrent exports on one channel. Use on one thread only."""

    def __init__(
        self, channel: socket.socket, writer: LakeWriter, tables: Tables, take_log: Callable[[], LogRecords]
    ) -> None:
        self._requests = protocol.Requests(channel)
        self._writer = writer
        self._tables = tables
        self._take_log = take_log
        self._upload: UploadStream | None = None
        self._request: WriteRequest | None = None
        self._exports = ExportStore(writer)
        self._sending = threading.Lock()

    def serve(self) -> None:
        """Handle requests until the front end closes the channel; discard any uncommitted upload."""
        with self._requests.connection:
            try:
                while (request := self._requests.receive()) is not None:
                    if request[0] == protocol.EXPORT:
                        self._store_export(request[1])
                        continue
                    try:
                        answer, facts = self._run(*request)
                    except BaseException as error:  # noqa: BLE001 - the front end raises it in the caller's call
                        self._drop_upload()
                        self._send_error(error)
                    else:
                        self._send(answer, facts)
            except OSError:
                pass  # the front end has exited
            finally:
                self._drop_upload()

    def _store_export(self, body: bytes) -> None:
        """Store an export; the response is sent once it is durable, even while other exports are being processed."""
        number, request = pickle.loads(body)  # noqa: S301 - from the front end

        def answer(outcome: ExportReport | BaseException) -> None:
            with contextlib.suppress(OSError):  # the front end has exited
                if isinstance(outcome, BaseException):
                    self._send_error(outcome, number=number)
                else:
                    text = base64.b64encode(outcome.answer).decode()
                    facts = {"number": number, "stored": outcome.stored, "refused": outcome.refused, "answer": text}
                    self._send(protocol.END, facts)

        self._exports.store(request, answer)

    def _send(self, kind: bytes, facts: dict[str, object]) -> None:
        with self._sending:
            self._requests.send(kind, json.dumps({**facts, **self._log()}).encode())

    def _send_error(self, error: BaseException, **facts: object) -> None:
        described = protocol.describe_error(error)
        with self._sending:
            body = json.dumps(protocol.build_error(described, {**facts, **self._log()})).encode()
            self._requests.send(protocol.ERROR, body)

    def _run(self, kind: bytes, body: bytes) -> tuple[bytes, dict[str, object]]:
        match kind:
            case protocol.INGEST:
                upload: Upload = pickle.loads(body)[0]  # noqa: S301 - from the front end
                check_may_replace(self._tables, upload.request)
                self._upload, self._request = UploadStream(self._writer, upload), upload.request
                return protocol.ACCEPTED, {"rows": 0}
            case protocol.CHECK:
                return protocol.END, {}
            case protocol.OPERATE:
                return protocol.END, {"result": run_operation(self._tables, *pickle.loads(body))}  # noqa: S301
        if self._upload is None:
            raise InternalError("The ingest process received rows without an upload.")
        if kind == protocol.ROWS:
            self._upload.take(body)
            return protocol.ACCEPTED, {"rows": self._upload.rows}
        if self._request is not None:
            check_may_replace(self._tables, self._request)  # the table's owner may have changed
        rows = self._upload.commit()
        self._upload = None
        return protocol.END, {"rows": rows}

    def _log(self) -> dict[str, object]:
        records = self._take_log()
        return {"log": records} if records else {}

    def _drop_upload(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.abandon()
