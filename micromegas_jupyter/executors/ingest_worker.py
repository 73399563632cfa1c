"""The process that stores what callers send: it decodes uploads, commits them, and changes tables for those who may.

Each call has a channel and a thread of its own here. What an upload breaks, it breaks for the others that run at that
moment, and never for the front or for queries; whoever was not answered may send the same write again under its id.
"""

import base64
import contextlib
import json
import pickle
import socket
import threading
from collections import Counter
from collections.abc import Callable
from typing import Final

import pyarrow as pa

from micromegas_jupyter.core.protocols import TableSink, TableWrite, WriteRequest
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import InternalError, ResourcesExhausted, UsageError
from micromegas_jupyter.executors import protocol
from micromegas_jupyter.executors.export_worker import ExportStore
from micromegas_jupyter.executors.protocol import Upload
from micromegas_jupyter.executors.settings import WorkerOptions
from micromegas_jupyter.flightsql.framing import StreamDecoder, split_rows
from micromegas_jupyter.lake.operations import check_may_replace, run_operation
from micromegas_jupyter.lake.tables import Tables
from micromegas_jupyter.lake.writer import LakeWriter
from micromegas_jupyter.otlp.exchange import ExportReport

_STACK_BYTES: Final = 2 * 1024 * 1024  # of a call's thread; all of them count against the memory limit
_SEND_LESS: Final = "Send them in several calls."


class UploadStream:
    """Decodes the messages of one upload, in their order, and stores their rows. Ends with `commit` or `abandon`."""

    def __init__(self, sink: TableSink, upload: Upload) -> None:
        self._sink = sink
        self._request, self._limits, self._announced = upload.request, upload.limits, upload.row_count
        self._decoder = StreamDecoder(upload.limits.decode_limits())
        self._write: TableWrite | None = None
        self._decoded_bytes = 0
        self.rows = 0

    def take(self, frame: bytes) -> None:
        """Take one serialized `FlightData`."""
        batch = self._decoder.decode(frame)
        if self._write is None and self._decoder.schema is not None:
            self._write = self._sink.open_write(self._request, _checked(self._decoder.schema))
        if batch is not None and self._write is not None:
            self._store(batch, self._write)

    def commit(self) -> int:
        """Make all rows durable and visible; return how many."""
        if self._write is None:
            raise UsageError("The call has no schema.", remedy="Send an Arrow table, which may be empty.")
        if self._announced is not None and self._announced != self.rows:
            raise UsageError(
                f"{self.rows:,} of {self._announced:,} rows have arrived; none is stored.", remedy="Send them again."
            )
        return self._write.commit()

    def abandon(self) -> None:
        """Drop all rows; does nothing after a `commit`."""
        if self._write is not None:
            self._write.abandon()

    def _store(self, batch: pa.RecordBatch, write: TableWrite) -> None:
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
            write.write(part)


def _checked(schema: pa.Schema) -> pa.Schema:
    """Return the schema if it has columns with names of their own."""
    if not schema.names:
        raise UsageError("The rows have no columns.", remedy="Send at least one.")
    repeated = next((name for name, count in Counter(schema.names).items() if count > 1), None)
    if repeated is not None:
        raise UsageError(f"Two columns have the name {repeated[:80]!r}.", remedy="Rename one of them.")
    return schema


LogRecords = list[tuple[int, str, str]]


def serve_ingest(front: socket.socket, options: WorkerOptions, *, take_log: Callable[[], LogRecords]) -> None:
    """Serve each channel that the front sends, until the front is gone."""
    if options.lake is None:
        raise InternalError("This executor has no lake to store rows in.")
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


class _Call:
    """One call: an upload, operations on tables, or exports, of which the channel has many at once. For one thread."""

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
        """Answer until the front closes the channel; an upload that is not committed by then is dropped."""
        with self._requests.connection:
            try:
                while (request := self._requests.receive()) is not None:
                    if request[0] == protocol.EXPORT:
                        self._store_export(request[1])
                    else:
                        self._answer(*request)
            except OSError:
                pass  # the front is gone
            finally:
                self._drop_upload()

    def _answer(self, kind: bytes, body: bytes) -> None:
        try:
            answer, facts = self._run(kind, body)
        except BaseException as error:  # noqa: BLE001 - the front raises it in the caller's call
            self._drop_upload()
            self._send_error(error)
        else:
            self._send(answer, facts)

    def _store_export(self, body: bytes) -> None:
        """Store an export; the answer follows when it is durable, and meanwhile others are taken."""
        number, request = pickle.loads(body)  # noqa: S301 - from the front

        def answer(outcome: ExportReport | BaseException) -> None:
            with contextlib.suppress(OSError):  # the front is gone
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
                upload: Upload = pickle.loads(body)[0]  # noqa: S301 - from the front
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
            check_may_replace(self._tables, self._request)  # it may be somebody else's by now
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
