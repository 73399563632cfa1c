"""One executor: plans and runs one statement at a time for the front end, in a process that can be killed anytime."""

import contextlib
import json
import logging
import os
import pickle
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import pyarrow as pa

from micromegas_jupyter.access.write_rights import check_may_time_travel
from micromegas_jupyter.core.file_list import TableChange
from micromegas_jupyter.core.protocols import AuthContext, TableSnapshot
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.engine.contract import PlannedQuery, Reads, ScanProgress, StatementRequest
from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
from micromegas_jupyter.engine.functions.denial_store import DenialStore
from micromegas_jupyter.engine.tables import check_scans, hides_deleted_rows
from micromegas_jupyter.errors import InternalError, ResourcesExhausted
from micromegas_jupyter.executors import protocol
from micromegas_jupyter.executors.protocol import Output, Statement
from micromegas_jupyter.executors.settings import WorkerOptions, limit_process
from micromegas_jupyter.flightsql.commands import ESTIMATE_KEY
from micromegas_jupyter.flightsql.framing import FlightDataEncoder, ParameterLimits, decode_parameters
from micromegas_jupyter.telemetry.tables import with_remarks

STANDARD_ERROR: Final = "stderr"
_MAX_LOGGED_CHARACTERS: Final = protocol.MAX_FACTS_BYTES // 8  # per response; as JSON, one takes up to six bytes
_LOOK_SECONDS: Final = 0.05  # pending data waits for one or two of these
_IDLE_LOOKS: Final = 4
_PROGRESS_SECONDS: Final = 1.0
_MAX_PROGRESS_COST: Final = 0.02  # as a share of the time
_TOGETHER_BYTES: Final = 64 * 1024
_THREAD_STACK_BYTES: Final = 512 * 1024  # counts against the memory limit
_MAX_ERROR_BYTES: Final = 64 * 1024
_SEND_BUFFER_BYTES: Final = 1024 * 1024  # a few batches ahead of the client, to reduce context switches
_MIB: Final = 1024 * 1024
_MAX_LISTED_CHARACTERS: Final = 64 * _MIB  # for schemas, in hexadecimal digits
_MAX_ESTIMATED: Final = 100  # listed tables
_PARAMETER_LIMITS: Final = ParameterLimits()
_LOG: Final = logging.getLogger("micromegas_jupyter.engine")
_Read = TypeVar("_Read")


class _LogRecords(logging.Handler):
    """Collects log records for the next response to the front end."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._records: list[tuple[int, str, str]] = []
        self._left = _MAX_LOGGED_CHARACTERS

    def emit(self, record: logging.LogRecord) -> None:
        if len(self._records) < protocol.MAX_LOG_RECORDS and self._left:
            text = self.format(record)[: min(self._left, protocol.MAX_LOG_CHARACTERS)]
            self._left -= len(text)
            self._records.append((record.levelno, record.name, text.encode("utf-8", "replace").decode()))

    def take(self) -> list[tuple[int, str, str]]:
        records, self._records, self._left = self._records, [], _MAX_LOGGED_CHARACTERS
        return records


class LakeFiles:
    """Provides the files of a lake's tables, and of earlier versions; loads deltalake on demand."""

    def __init__(self, lake: str) -> None:
        self._lake = lake

    def files(self, table: str) -> pa.Table:
        """See `engine.contract.FileSource`."""
        from micromegas_jupyter.lake.tables import list_files

        return list_files(Storage(self._lake), table)

    def past(
        self, table: str, to: datetime | int | None, caller: AuthContext
    ) -> "tuple[TableSnapshot, str | None] | None":
        """See `engine.contract.FileSource`."""
        from micromegas_jupyter.lake.past import read_past

        return self._read_checked(table, caller, lambda storage: read_past(storage, table, to))

    def history(self, table: str, caller: AuthContext) -> pa.Table | None:
        """See `engine.contract.FileSource`."""
        from micromegas_jupyter.lake.past import read_history

        return self._read_checked(table, caller, lambda storage: read_history(storage, table))

    def _read_checked(self, table: str, caller: AuthContext, read: Callable[[Storage], _Read]) -> _Read | None:
        from micromegas_jupyter.lake.delta_log import TableGone, open_delta
        from micromegas_jupyter.lake.tables import OWNER_PROPERTY, allows_readers

        storage, found = Storage(self._lake), None
        try:
            for is_read in (False, True):  # also after reading: a different table may have taken the name since
                found = read(storage) if is_read else None
                properties = open_delta(storage, table).metadata().configuration
                check_may_time_travel(
                    caller,
                    table,
                    created_by=properties.get(OWNER_PROPERTY),
                    allows_readers=allows_readers(properties),
                )
        except TableGone:
            return None
        return found


class Outbox:
    """Batches responses: sends them with the last one, when they are large, or after a moment.

    Clients learn from the schema that a statement runs, and its ID, so neither the schema nor rows wait long.
    """

    def __init__(self, front: socket.socket) -> None:
        self._front = front
        self._pieces: list[Any] = []
        self._size = 0
        self._lock = threading.Lock()
        self._has_work = threading.Event()
        self._is_watched = True
        self._find_progress: Callable[[], ScanProgress | None] | None = None
        self._progress_at = 0.0

    def watch(self) -> None:
        """Begin to send pending responses."""
        threading.stack_size(_THREAD_STACK_BYTES)
        threading.Thread(target=self._send_late, name="outbox", daemon=True).start()
        threading.stack_size(0)

    def add(self, kind: bytes, length: int, *pieces: Any, at_once: bool = False) -> None:
        """Add a response with a body of this length."""
        with self._lock:
            self._pieces += (protocol.HEAD.pack(kind, length), *pieces)
            self._size += length
            if at_once or self._size >= _TOGETHER_BYTES:
                self._send()
            elif not self._is_watched:
                self._is_watched = True
                self._has_work.set()

    def drop(self) -> None:
        """Drop unsent responses."""
        with self._lock:
            self._pieces, self._size = [], 0

    def report(self, find: "Callable[[], ScanProgress | None] | None") -> None:
        """Send the result of `find` once per second from now on, until called with None."""
        with self._lock:
            self._find_progress, self._progress_at = find, time.perf_counter() + _PROGRESS_SECONDS
            if find is not None and not self._is_watched:
                self._is_watched = True
                self._has_work.set()

    def _send(self) -> None:
        pieces, self._pieces, self._size = self._pieces, [], 0
        try:
            protocol.send_pieces(self._front, pieces)
        except BaseException:
            # The front end would read later data as the rest of a partially sent message.
            with contextlib.suppress(OSError):
                self._front.shutdown(socket.SHUT_RDWR)
            raise

    def _send_late(self) -> None:
        # One polling thread is cheaper than waking a thread for each statement.
        last, was_waiting, idle_looks = self._pieces, False, 0
        while True:
            reports = self._find_progress is not None
            rest = max(_LOOK_SECONDS, self._progress_at - time.perf_counter()) if reports else None
            self._has_work.wait(_LOOK_SECONDS if self._is_watched else rest)
            self._has_work.clear()
            # `find` references a plan and its session, so it is not held during waits.
            if (find := self._find_progress) is not None and time.perf_counter() >= self._progress_at:
                self._send_progress(find)
            find = None
            with self._lock:
                idle_looks = idle_looks + 1 if self._pieces is last else 0
                if was_waiting and self._pieces is last:
                    self._send()
                last, was_waiting = self._pieces, bool(self._pieces)
                self._is_watched = was_waiting or idle_looks < _IDLE_LOOKS

    def _send_progress(self, find: "Callable[[], ScanProgress | None]") -> None:
        started = time.perf_counter()
        try:
            progress = find()
        except BaseException:  # noqa: BLE001 - nor may a panic of the engine end this thread
            _LOG.warning("the progress of a statement cannot be read", exc_info=True)
            with self._lock:
                if self._find_progress is find:
                    self._find_progress = None
            return
        took = time.perf_counter() - started
        with self._lock:
            if self._find_progress is not find:
                return  # the statement has finished
            # Scans of a large number of files have many counters.
            self._progress_at = started + max(_PROGRESS_SECONDS, took / _MAX_PROGRESS_COST)
            if progress is not None:
                body = msgspec.json.encode({"progress": progress})
                self._pieces += (protocol.HEAD.pack(protocol.PROGRESS, len(body)), body)
                self._send()


class Worker:
    """Handles the front end's requests, one after another."""

    def __init__(self, front: socket.socket, options: WorkerOptions) -> None:
        self._front = front
        self._options = options
        self._tables: Sequence[TableSnapshot] = ()
        self._learned: list[TableSnapshot] = []
        self._knows_tables = True  # as far as the front end knows
        self._denials = None if options.denials_file is None else DenialStore(options.denials_file)
        self._engine = DataFusionEngine(
            self,
            options.engine,
            denials=self._denials,
            files=None if options.lake is None else LakeFiles(options.lake),
        )
        self._plan_id = 0
        self._planned: PlannedQuery | None = None
        self._log = _LogRecords()
        logging.getLogger().addHandler(self._log)
        self._memory = _MemoryMeter()
        self._started = self._cpu_seconds = 0.0
        self._planned_at: float | None = None
        self._reads: Reads | None = None
        self._requests = protocol.Requests(front)
        self._outbox = Outbox(front)
        self._size = _ResultSize(Output())

    def snapshot(self, sql: str | None = None) -> Sequence[TableSnapshot]:  # noqa: ARG002 - listed already
        """Return the tables; the engine uses this object as a `TableSource`."""
        return self._tables

    def serve(self) -> None:
        """Respond until the front end has exited."""
        self._engine.warm()
        self._memory = _MemoryMeter()
        facts = {"baseline_bytes": self._memory.first_resident, "private_bytes": self._memory.first_private}
        self._send(protocol.READY, facts)
        self._outbox.watch()
        while (message := self._requests.receive()) is not None:
            if message[0] == protocol.SERVE:
                # deltalake starts a thread on import, so processes that fork must not import it.
                from micromegas_jupyter.executors.ingest_worker import serve_ingest

                serve_ingest(self._front, self._options, take_log=self._log.take)
                return
            if message[0] == protocol.LEARN:
                self._learn(message[1])  # an error ends the process: the next request must have exactly one response
            else:
                self._answer(*message)

    def _answer(self, kind: bytes, body: bytes) -> None:
        self._size = _ResultSize(Output())
        self._knows_tables = kind in {protocol.CHECK, protocol.MAINTAIN, protocol.REFRESH}
        try:
            if os.fstat(2).st_size > _MAX_ERROR_BYTES:
                os.ftruncate(2, 0)
            self._started, self._cpu_seconds, self._planned_at = time.perf_counter(), time.process_time(), None
            self._reads = None
            self._begin(kind, body)
        except BaseException as error:  # noqa: BLE001 - a panic of the engine is no Exception
            self._planned = None
            self._outbox.report(None)
            # A panic may leave the engine in any state.
            cause = error.__cause__ or error
            is_broken = not self._knows_tables or isinstance(error, InternalError) or not isinstance(cause, Exception)
            facts = {**self._statistics(), "is_broken": is_broken}
            if self._reads is not None:
                facts["reads"] = self._reads
            if self._size.rows:
                facts["rows"] = self._size.rows
            else:
                self._outbox.drop()
            self._send(protocol.ERROR, protocol.build_error(protocol.describe_error(error), facts))

    def _begin(self, kind: bytes, body: bytes) -> None:
        planned, self._planned = self._planned, None  # another caller's plan is dropped before this request
        match kind:
            case protocol.PLAN | protocol.RUN:
                statement, output, plan_id, partitions, tables = protocol.unpack_statement(body)
                self._take_tables(tables)
                if planned is None or plan_id != self._plan_id or kind == protocol.PLAN:
                    planned = self._plan(statement, partitions)
                if kind == protocol.RUN:
                    self._run(planned, output)
                    return
                self._planned, self._plan_id = planned, plan_id
                schema = with_estimate(planned) if statement.is_estimated else planned.schema
                schemas = {
                    "reads_tables": planned.reads_tables,
                    "schema": schema.serialize().to_pybytes().hex(),
                    "parameters": planned.parameter_schema.serialize().to_pybytes().hex(),
                    "change": msgspec.to_builtins(planned.change),
                }
                self._send(protocol.PLANNED, schemas)
            case protocol.TABLES:
                caller, tables = pickle.loads(body)  # noqa: S301 - from the front end
                self._take_tables(tables)
                self._list(caller)
            case protocol.CHECK:
                check_scans()
                hides_deleted_rows()  # logs problems; tables with deleted rows are then rejected
                self._send(protocol.END, {})
            case protocol.CALL:
                function, arguments, tables = pickle.loads(body)  # noqa: S301 - from the front end
                self._take_tables(tables)
                with _cpu_limit(self._options.planning_seconds):
                    answer = function(self._tables, *arguments)
                self._planned_at = time.perf_counter()
                self._send(protocol.ANSWER, {"answer": answer})
                self._send(protocol.END, self._statistics())
            case protocol.MAINTAIN:
                (seen,) = pickle.loads(body)  # noqa: S301 - from the front end
                self._send(protocol.END, {**self._maintain(seen), **self._statistics()})
            case protocol.REFRESH:
                name, rebuilt = pickle.loads(body)  # noqa: S301 - from the front end
                self._send(protocol.END, {**self._refresh(name, rebuilt), **self._statistics()})
            case _:
                raise InternalError("An executor received an unknown request.")

    def _plan(self, statement: Statement, partitions: int | None) -> PlannedQuery:
        parameters = decode_parameters(statement.parameters, limits=_PARAMETER_LIMITS) if statement.parameters else None
        request = StatementRequest(
            sql=statement.sql,
            parameters=parameters,
            time_range=statement.time_range,
            row_limit=statement.row_limit,
            preserve_dictionary=statement.preserve_dictionary,
            partitions=partitions,
            messages=statement.messages,
            running=statement.running,
            tail=statement.tail,
            is_estimated=statement.is_estimated,
            is_read_only=statement.is_read_only,
        )
        with _cpu_limit(self._options.planning_seconds):
            planned = self._engine.plan(request, statement.caller)
        self._planned_at = time.perf_counter()
        return planned

    def _run(self, planned: PlannedQuery, output: Output) -> None:
        self._planned_at = self._planned_at or time.perf_counter()
        encoder = FlightDataEncoder(planned.schema, compression=output.compression)
        schema = encoder.encode_schema()
        size = self._size = _ResultSize(output)
        outbox = self._outbox
        # They are sent with the first rows, so that every row read is recorded regardless of the statement's outcome.
        self._add_reads(planned.reads)
        outbox.add(protocol.FRAME, len(schema), schema)
        outbox.report(planned.progress)
        with _cpu_limit(self._options.planning_seconds):  # plans are optimized when they start
            batches = planned.batches()
        for batch in batches:
            if planned.reads is not self._reads:  # a different row of parameters was planned
                self._add_reads(planned.reads)
            fitting = size.fit(batch)
            for frame in encoder.encode_pieces(fitting):
                length = sum(map(len, frame))
                size.check_message(length)
                outbox.add(protocol.FRAME, length, *frame)
            size.count_rows(fitting.num_rows, of=batch.num_rows)
        outbox.report(None)
        self._send(protocol.END, {**self._statistics(planned), "rows": size.rows, "bytes": size.bytes})

    def _add_reads(self, reads: Reads) -> None:
        self._reads = reads
        body = msgspec.json.encode(reads)
        self._outbox.add(protocol.READS, len(body), body)

    def _learn(self, body: bytes) -> None:
        packed = BytesIO(body)
        known = {one.name: one for one in self._tables}
        while packed.tell() < len(body):
            (found,) = pickle.load(packed)  # noqa: S301 - from the front end
            self._learned.append(found.apply(known[found.table.name]) if isinstance(found, TableChange) else found)

    def _take_tables(self, positions: Sequence[int] | None) -> None:
        if positions is not None:
            known = (*self._tables, *self._learned)
            self._tables, self._learned = tuple(known[one] for one in positions), []
        self._knows_tables = True

    def _list(self, caller: AuthContext) -> None:
        """Send the tables that a caller can see, in parts of at least one table."""
        tables: list[list[str]] = []
        size = total = 0
        for name, schema in self._engine.tables(caller):
            tables.append([name, with_remarks(name, schema).serialize().to_pybytes().hex()])
            size += len(tables[-1][1])
            total += len(tables[-1][1])
            if total > _MAX_LISTED_CHARACTERS:
                raise ResourcesExhausted(
                    "Your tables have more columns than one call can list.",
                    remedy="Query information_schema.tables, then the columns of one table at a time.",
                    limit="memory",
                )
            if size > _MIB:
                self._send(protocol.LISTED, {"tables": tables})
                tables, size = [], 0
        self._send(protocol.LISTED, {"tables": tables})
        self._send(protocol.END, self._statistics())

    def _maintain(self, seen: tuple[str, float] | None) -> dict[str, object]:
        from micromegas_jupyter.lake.lease import ObservedLease
        from micromegas_jupyter.lake.maintenance import run_round

        if self._options.lake is None:
            raise InternalError("This executor doesn't have a lake to maintain.")
        report = run_round(Storage(self._options.lake), seen=None if seen is None else ObservedLease(*seen))
        return {"seen": report.seen, "status": None if report.status is None else msgspec.to_builtins(report.status)}

    def _refresh(self, name: str, rebuilt: tuple[datetime, datetime] | None) -> dict[str, object]:
        from micromegas_jupyter.executors.views import refresh_view

        if self._options.lake is None:
            raise InternalError("This executor doesn't have a lake to maintain.")
        return refresh_view(Storage(self._options.lake), self._options.engine, name, rebuilt)

    def _statistics(self, planned: PlannedQuery | None = None) -> dict[str, object]:
        """Return the statement's statistics so far, and the process's memory."""
        private_bytes, peak_bytes = self._memory.measure()
        cpu_seconds = time.process_time()
        facts: dict[str, object] = {
            "cpu_seconds": cpu_seconds - self._cpu_seconds,
            "process_cpu_seconds": cpu_seconds,
            "peak_memory_bytes": peak_bytes,
            "private_bytes": private_bytes,
        }
        if self._planned_at is not None:
            facts["planning_seconds"] = self._planned_at - self._started
        if planned is not None:
            statistics = planned.statistics
            facts |= msgspec.to_builtins(statistics) | {"peak_memory_bytes": peak_bytes}
            facts["reads_tables"] = planned.reads_tables
            if planned.reached is not None:
                facts["reached"] = planned.reached
            if statistics.files_total and not planned.hides_rows:
                facts |= {"shows_counts": True, "explained": planned.explained}
        if self._denials is not None and self._denials.has_changed:
            self._denials.has_changed = False
            facts["has_changed_denials"] = True
        if records := self._log.take():
            facts["log"] = records
        return facts

    def _send(self, kind: bytes, facts: object) -> None:
        body = msgspec.json.encode(facts)
        self._outbox.add(kind, len(body), body, at_once=True)


def with_estimate(planned: PlannedQuery) -> pa.Schema:
    """Return a schema with the statement's estimated reads, if its caller sees all rows of its tables."""
    if planned.hides_rows:
        return planned.schema
    tables = planned.explained
    sizes, rows = [one.size for one in tables], [one.rows for one in tables]
    estimate = {
        "files": sum(one.files for one in tables),
        "rows": None if None in rows else sum(filter(None, rows)),
        "bytes": None if None in sizes else sum(filter(None, sizes)),
        "tables": [one._asdict() for one in tables[:_MAX_ESTIMATED]],
    }
    return planned.schema.with_metadata(
        {**(planned.schema.metadata or {}), ESTIMATE_KEY: msgspec.json.encode(estimate)}
    )


class _ResultSize:
    """Counts the rows and bytes of one result, and stops at the limits."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self.rows = 0
        self.bytes = 0

    def fit(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the part of the next rows that fits within the limits."""
        max_rows = self._output.max_rows
        return batch if max_rows is None else batch.slice(0, max_rows - self.rows)

    def check_message(self, size: int) -> None:
        if self._output.max_bytes is not None and self.bytes + size > self._output.max_bytes:
            sent = f"at least {self.rows:,} rows were sent" if self.rows else "it ended within its first rows"
            raise self._output.too_large(sent)
        self.bytes += size

    def count_rows(self, sent: int, *, of: int) -> None:
        self.rows += sent
        if sent < of:
            raise self._output.too_many_rows(self.rows)


@contextlib.contextmanager
def _cpu_limit(seconds: float) -> Iterator[None]:
    """Let the system kill this process (SIGPROF) if the body uses more CPU time; suspended time does not count."""
    if not hasattr(signal, "setitimer"):
        yield
        return
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


class _MemoryMeter:
    """Measures this process's memory in addition to its memory at startup; 0 if unknown."""

    def __init__(self) -> None:
        # The file stays open, because it is read for every statement, and getrusage(2) is slow with many threads.
        self._status = -1
        with contextlib.suppress(OSError):
            self._status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        self.first_private, self.first_peak, self.first_resident = self._read()
        self._last_peak = self.first_peak

    def measure(self) -> tuple[int, int]:
        """Return the current private memory, and the peak since the last call."""
        private, peak, resident = self._read()
        has_grown, self._last_peak = peak > self._last_peak, peak
        highest = peak if has_grown else resident
        return max(0, private - self.first_private), max(0, highest - self.first_resident)

    def _read(self) -> tuple[int, int, int]:
        if self._status < 0:
            return 0, 0, 0
        text = os.pread(self._status, 4096, 0)
        return _kilobytes(text, b"RssAnon:"), _kilobytes(text, b"VmHWM:"), _kilobytes(text, b"VmRSS:")


def _kilobytes(text: bytes, name: bytes) -> int:
    start = text.find(name)
    return 0 if start < 0 else int(text[start + len(name) : text.index(b"kB", start)]) * 1024


def run(front: socket.socket, options: WorkerOptions) -> None:
    """Serve as an executor until the front end exits."""
    folder = Path(options.spill_directory) / str(os.getpid())  # for temporary files and standard error
    folder.mkdir(mode=0o700, exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    with (folder / STANDARD_ERROR).open("ab") as stream:
        os.dup2(stream.fileno(), 2)
    limit_process(options)
    front.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    Worker(front, options).serve()


def _end_with(parent: int) -> None:
    """Exit when the parent has exited, on systems that do not do so automatically."""
    while os.getppid() == parent:
        threading.Event().wait(0.5)
    os._exit(1)


def main() -> None:
    """Run an executor that was not forked: options as argument, the socket as standard input."""
    options = msgspec.convert(json.loads(sys.argv[1]), WorkerOptions)
    if sys.platform == "win32":
        front = socket.fromshare(sys.stdin.buffer.read())
    else:
        front = socket.socket(fileno=os.dup(0))
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        run(front, options)
    except BaseException:  # noqa: BLE001 - the front end reads it from the folder
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
