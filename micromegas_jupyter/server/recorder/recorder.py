"""Records a process's log and measurements in the lake, as ordinary exports.

It never interrupts the application: exports that can't be stored wait, up to a limit, and lost rows are counted.
"""

import contextlib
import getpass
import itertools
import logging
import os
import platform
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from micromegas_jupyter import __version__
from micromegas_jupyter.access.audit import utc_text
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import MicromegasError, Unavailable
from micromegas_jupyter.otlp.exchange import ExportReport, ExportRequest, Signal
from micromegas_jupyter.server.recorder.log_records import LogRow, RecordingHandler
from micromegas_jupyter.telemetry.levels import Level
from micromegas_jupyter.telemetry.tables import nanoseconds_since_epoch
from micromegas_jupyter.telemetry.text import bound_text

TARGET = "micromegas_jupyter.recorder"
SAMPLE_SECONDS = 1.0
WARNING_SECONDS = 60.0
STORE_SECONDS = 60.0
MAX_MEASURES = 50_000
MAX_EXPORT_BYTES: Final = 4 * 1024 * 1024
MAX_EXPORT_ROWS: Final = 4000
MAX_WAITING_BYTES = 32 * 1024 * 1024
MAX_SENT_AT_ONCE = 16
SAMPLER_TARGET = "micromegas_jupyter.process_sampler"
PERCENT, BYTES, COUNT, BYTES_PER_SECOND, PER_SECOND = "percent", "bytes", "count", "bytes/s", "count/s"
_RATES: Final = frozenset({BYTES_PER_SECOND, PER_SECOND})
_MAX_ATTRIBUTE_BYTES: Final = 255
_CPU_INFO: Final = Path("/proc/cpuinfo")
_MAX_CPU_INFO_BYTES: Final = 64 * 1024
_PACKAGE_LOGGER = logging.getLogger("micromegas_jupyter")
_LOG = logging.getLogger("micromegas_jupyter.server.recorder")
Send = Callable[[ExportRequest], Future[ExportReport]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureRow:
    """One measured value in this unit."""

    time_ns: int
    target: str
    name: str
    unit: str
    value: float
    properties: Mapping[str, str] = field(default_factory=dict)


class EncodedRows(NamedTuple):
    """Rows in a single export."""

    request: ExportRequest
    row_count: int


class ExportEncoder:
    """Encodes rows as exports of the resource with these attributes; skips empty ones."""

    def __init__(self, attributes: Mapping[str, str], *, max_bytes: int = MAX_EXPORT_BYTES) -> None:
        self._resource = Resource()
        _set_attributes(self._resource, {name: value for name, value in attributes.items() if value})
        self._max_bytes = max_bytes

    def encode(self, signal: Signal, rows: Sequence[Any]) -> list[EncodedRows]:
        """Return exports of log rows or measures; an export with several rows is never too large."""
        build: Callable[[Sequence[Any]], Any] = self._build_log if signal is Signal.LOGS else self._build_measures
        exports = []
        parts = [rows[start : start + MAX_EXPORT_ROWS] for start in range(0, len(rows), MAX_EXPORT_ROWS)]
        while parts:
            part = parts.pop(0)
            body: bytes = build(part).SerializeToString()
            if len(body) > self._max_bytes and len(part) > 1:
                half = len(part) // 2
                parts[:0] = [part[:half], part[half:]]
            else:
                request = ExportRequest(signal=signal, body=body, is_trusted=True, is_own=True)
                exports.append(EncodedRows(request, len(part)))
        return exports

    def _build_log(self, rows: Sequence[LogRow]) -> ExportLogsServiceRequest:
        request = ExportLogsServiceRequest()
        logs = request.resource_logs.add(resource=self._resource)
        for target, group in itertools.groupby(rows, key=lambda row: row.target):
            records = logs.scope_logs.add(scope=InstrumentationScope(name=target)).log_records
            for row in group:
                severity: Any = 25 - 4 * row.level  # the first of the level's four numbers
                record = records.add(time_unix_nano=row.time_ns, severity_number=severity)
                record.body.string_value = row.msg
                _set_attributes(record, row.properties)
        return request

    def _build_measures(self, rows: Sequence[MeasureRow]) -> ExportMetricsServiceRequest:
        request = ExportMetricsServiceRequest()
        metrics = request.resource_metrics.add(resource=self._resource)
        scopes: dict[str, Any] = {}
        points: dict[tuple[str, str, str], Any] = {}
        for row in rows:
            key = row.target, row.name, row.unit
            if key not in points:
                if row.target not in scopes:
                    scopes[row.target] = metrics.scope_metrics.add(scope=InstrumentationScope(name=row.target))
                points[key] = scopes[row.target].metrics.add(name=row.name, unit=row.unit).gauge.data_points
            _set_attributes(points[key].add(time_unix_nano=row.time_ns, as_double=row.value), row.properties)
        return request


def _set_attributes(message: Any, attributes: Mapping[str, str]) -> None:
    for name, value in attributes.items():
        message.attributes.add(key=name).value.string_value = value


class Recorder:
    """Records this process from `attach` to `stop`; use it once.

    One daemon thread samples, and stores exports with `send`, which returns immediately. `_measures_lock` guards
    measures from other threads; everything else belongs to that thread. The process appears under the name `exe`.
    Records of `logger` (by default the root's) can be queried after one interval and the time of one commit.
    """

    def __init__(
        self,
        send: Send,
        *,
        exe: str,
        clock: Clock = SYSTEM_CLOCK,
        commit_interval_seconds: float = 10.0,
        logger: logging.Logger | None = None,
    ) -> None:
        self._send = send
        self._exe = exe
        self._clock = clock
        self._commit_interval_seconds = commit_interval_seconds
        self._sample_interval_seconds = min(SAMPLE_SECONDS, commit_interval_seconds)
        self._logger = logger or logging.getLogger()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._handler = RecordingHandler(wake=self._wake.set)
        self._undo = contextlib.ExitStack()
        self._sampler = ProcessSampler()
        self._waiting = WaitingExports()
        self._measures_lock = threading.Lock()
        self._measures: list[MeasureRow] = []
        self._dropped_measures = 0
        self._encoder: ExportEncoder | None = None
        self._failed_flushes = 0
        self._warn_after = 0.0
        self._sample_at = self._commit_at = 0.0
        self._thread: threading.Thread | None = None

    def attach(self) -> None:
        """Start collecting log records, which are stored after `start`."""
        logger = self._logger
        # A logger with a handler doesn't automatically print warnings, but users who watch stderr still want them.
        if not logger.hasHandlers() and logging.lastResort is not None:
            logger.addHandler(logging.lastResort)
            self._undo.callback(logger.removeHandler, logging.lastResort)
        logger.addHandler(self._handler)
        self._undo.callback(logger.removeHandler, self._handler)
        if _PACKAGE_LOGGER.level == logging.NOTSET:
            # Sign-ins and the query audit are logged at INFO, which the root logger's default level would hide.
            _PACKAGE_LOGGER.setLevel(logging.INFO)
            self._undo.callback(_PACKAGE_LOGGER.setLevel, logging.NOTSET)

    def start(self) -> None:
        """Start measuring and storing; return immediately, even if the lake fails."""
        self._thread = threading.Thread(target=self._run, name="micromegas-recorder", daemon=True)
        self._thread.start()

    def stop(self, *, timeout_seconds: float = 5.0) -> bool:
        """Flush everything and stop, and return whether everything was stored in time; safe to call twice."""
        self._undo.close()
        self._stopping.set()
        self._wake.set()
        if self._thread is None:
            return True
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive() and self._waiting.row_count == 0

    def add_measures(self, rows: Iterable[MeasureRow]) -> None:
        """Add externally measured values; never block on I/O, and drop values over the limit."""
        added = list(rows)
        with self._measures_lock:
            free = MAX_MEASURES - len(self._measures)
            self._measures += added[:free]
            self._dropped_measures += max(0, len(added) - free)
            is_half_full = len(self._measures) > MAX_MEASURES // 2
        if is_half_full:
            self._wake.set()

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stopping.is_set()
            due = self._clock.monotonic() + self._sample_interval_seconds
            self._run_once(is_last=is_last)
            if not is_last and not self._stopping.is_set():
                self._wake.wait(max(0.0, due - self._clock.monotonic()))

    def _run_once(self, *, is_last: bool = False) -> None:
        try:
            monotonic_seconds = self._clock.monotonic()
            is_due = is_last or monotonic_seconds >= self._commit_at
            self._sample(monotonic_seconds, is_last=is_last)
            if is_due or self._wake.is_set():
                self._wake.clear()
                self._encode()
            if is_due:
                self._commit_at = monotonic_seconds + self._commit_interval_seconds
                self._waiting.store(self._send)
        except Exception as error:  # noqa: BLE001 - nothing here must end the recording
            self._note_failure(error)

    def _sample(self, monotonic_seconds: float, *, is_last: bool) -> None:
        if is_last or monotonic_seconds >= self._sample_at:
            # Rounds that were triggered early by a full queue don't sample.
            self._sample_at = monotonic_seconds + 0.9 * self._sample_interval_seconds
            self.add_measures(self._sampler.sample(time_ns=self._now_ns(), monotonic_seconds=monotonic_seconds))

    def _encode(self) -> None:
        """Convert log records and measures to exports that wait to be stored."""
        if self._encoder is None:
            self._encoder = ExportEncoder(describe_process(self._exe))
        logged, dropped_records = self._handler.drain()
        with self._measures_lock:
            measured, self._measures = self._measures, []
            dropped_measures, self._dropped_measures = self._dropped_measures, 0
        counts = {
            "log_records": dropped_records,
            "measures": dropped_measures,
            "stored_rows": self._waiting.take_lost_count(),
        }
        if any(counts.values()):
            lost = {name: str(count) for name, count in counts.items() if count}
            row = LogRow(
                time_ns=self._now_ns(), target=TARGET, level=Level.WARNING, msg="telemetry was dropped", properties=lost
            )
            logged.append(row)
        for export in self._encoder.encode(Signal.LOGS, logged) + self._encoder.encode(Signal.METRICS, measured):
            self._waiting.add(export)

    def _now_ns(self) -> int:
        return nanoseconds_since_epoch(self._clock.now().timestamp())

    def _note_failure(self, error: Exception) -> None:
        self._failed_flushes += 1
        now = self._clock.monotonic()
        if now >= self._warn_after:
            self._warn_after = now + WARNING_SECONDS
            is_known = isinstance(error, MicromegasError)
            _LOG.warning(
                "telemetry could not be stored",
                extra={
                    "failed_flushes": self._failed_flushes,
                    "waiting_rows": self._waiting.row_count,
                    **({"reason": str(error)} if is_known else {}),
                },
                exc_info=None if is_known else error,
            )


@dataclass(slots=True, eq=False)
class _Waiting:
    export: EncodedRows
    outcome: Future[ExportReport] | None = None  # while it is being stored


class WaitingExports:
    """Exports in order of creation; the oldest are dropped if they take up too much space. For one thread.

    An export with an unknown outcome is resent unchanged: its ID is derived from its content, so it is stored once.
    """

    def __init__(self, *, max_bytes: int = MAX_WAITING_BYTES) -> None:
        self._max_bytes = max_bytes
        self._waiting: list[_Waiting] = []
        self._bytes = 0
        self._lost_rows = 0

    @property
    def row_count(self) -> int:
        """The number of waiting rows."""
        return sum(one.export.row_count for one in self._waiting)

    def add(self, export: EncodedRows) -> None:
        """Add an export to the queue."""
        self._waiting.append(_Waiting(export))
        self._bytes += len(export.request.body)
        while self._bytes > self._max_bytes:
            self._lost_rows += self._remove(self._waiting[0])

    def store(self, send: Send, *, timeout_seconds: float = STORE_SECONDS) -> None:
        """Store all waiting exports; keep failed ones waiting, and raise the last error."""
        failures: dict[Signal, Exception] = {}
        while chosen := [one for one in self._waiting if one.export.request.signal not in failures][:MAX_SENT_AT_ONCE]:
            for one in chosen:
                one.outcome = one.outcome or send(one.export.request)
            wait([one.outcome for one in chosen if one.outcome is not None], timeout=timeout_seconds)
            for one in chosen:
                try:
                    self._settle(one)
                except Exception as error:  # noqa: BLE001 - records of the other signal are stored
                    failures[one.export.request.signal] = error
        for failure in failures.values():
            raise failure

    def take_lost_count(self) -> int:
        """Return how many rows were dropped or rejected since the last call."""
        lost, self._lost_rows = self._lost_rows, 0
        return lost

    def _settle(self, one: _Waiting) -> None:
        """Remove a stored export; raise an error if it must keep waiting."""
        outcome = one.outcome
        if outcome is None or not outcome.done():
            raise Unavailable("The lake is not responding.")
        one.outcome = None
        self._lost_rows += outcome.result().refused
        self._remove(one)

    def _remove(self, one: _Waiting) -> int:
        self._waiting.remove(one)
        self._bytes -= len(one.export.request.body)
        return one.export.row_count


class Reading(NamedTuple):
    """One value from psutil; for a rate, the count so far. `label` is a distinguishing property."""

    name: str
    unit: str
    value: float
    label: tuple[str, str] | None = None


def build_measures(
    previous: list[Reading], current: list[Reading], *, elapsed_seconds: float, time_ns: int
) -> list[MeasureRow]:
    """Return a sample's rows: rates as growth per second, other values unchanged.

    New or decreasing rates are skipped, and so is the first percentage, because it is measured between calls.
    """
    before = {(reading.name, reading.label): reading.value for reading in previous}
    rows: list[MeasureRow] = []
    for reading in current:
        value = reading.value
        if reading.unit in _RATES:
            growth = value - before.get((reading.name, reading.label), float("inf"))
            if elapsed_seconds <= 0 or growth < 0:
                continue
            value = growth / elapsed_seconds
        elif reading.unit == PERCENT and not previous:
            continue
        rows.append(
            MeasureRow(
                time_ns=time_ns,
                target=SAMPLER_TARGET,
                name=reading.name,
                unit=reading.unit,
                value=float(value),
                properties={} if reading.label is None else dict([reading.label]),
            )
        )
    return rows


def _attributes(measured: Any, unit: str, **names: str) -> list[Reading]:
    """Return a reading for each psutil attribute, with the given names."""
    return [Reading(name, unit, getattr(measured, attribute)) for attribute, name in names.items()]


def _read_processors() -> list[Reading]:
    cores = psutil.cpu_percent(percpu=True)
    return [
        Reading("cpu_usage", PERCENT, sum(cores) / len(cores)),
        *(Reading("cpu_core_usage", PERCENT, value, ("core", str(core))) for core, value in enumerate(cores)),
    ]


def _read_memory() -> list[Reading]:
    names = {name: f"{name}_memory" for name in ("total", "used", "free", "available")}
    averages = zip(("1", "5", "15"), psutil.getloadavg(), strict=True)
    return [
        *_attributes(psutil.virtual_memory(), BYTES, **names),
        *_attributes(psutil.swap_memory(), BYTES, total="total_swap", used="used_swap"),
        *(Reading("load_average", COUNT, value, ("minutes", minutes)) for minutes, value in averages),
    ]


def _read_disks() -> list[Reading]:
    counters = psutil.disk_io_counters()
    return [
        *_attributes(counters, BYTES_PER_SECOND, read_bytes="disk_read", write_bytes="disk_written"),
        *_attributes(counters, PER_SECOND, read_count="disk_reads", write_count="disk_writes"),
    ]


def _read_network() -> list[Reading]:
    counters = psutil.net_io_counters()
    lost = counters.errin + counters.errout + counters.dropin + counters.dropout
    return [
        *_attributes(counters, BYTES_PER_SECOND, bytes_recv="network_received", bytes_sent="network_sent"),
        Reading("network_packets_lost", PER_SECOND, lost),
    ]


def _read_process(process: psutil.Process) -> list[Reading]:
    switches = process.num_ctx_switches()
    return [
        # May exceed 100, because each busy core counts as 100.
        Reading("process_cpu_usage", PERCENT, process.cpu_percent()),
        Reading("process_context_switches", PER_SECOND, switches.voluntary + switches.involuntary),
        *_attributes(process.memory_info(), BYTES, rss="process_resident_bytes", vms="process_virtual_bytes"),
        Reading("process_threads", COUNT, process.num_threads()),
    ]


def _read_process_files(process: psutil.Process) -> list[Reading]:
    names = {"read_bytes": "process_disk_read", "write_bytes": "process_disk_written"}
    return [
        Reading("process_open_files", COUNT, process.num_fds()),
        *_attributes(process.io_counters(), BYTES_PER_SECOND, **names),
    ]


class ProcessSampler:
    """Samples the machine and this process, and stores the last sample for computing rates. For one thread."""

    def __init__(self) -> None:
        process = psutil.Process()
        self._readers: tuple[Callable[[], list[Reading]], ...] = (
            _read_processors,
            _read_memory,
            _read_disks,
            _read_network,
            lambda: _read_process(process),
            lambda: _read_process_files(process),
        )
        self._previous: list[Reading] = []
        self._previous_seconds = 0.0

    def sample(self, *, time_ns: int, monotonic_seconds: float) -> list[MeasureRow]:
        """Take a sample."""
        current: list[Reading] = []
        for read in self._readers:
            # Containers hide files under /proc, and other systems and machines without a network don't provide all
            # values.
            with contextlib.suppress(psutil.Error, OSError, RuntimeError, AttributeError):
                current += read()
        rows = build_measures(
            self._previous, current, elapsed_seconds=monotonic_seconds - self._previous_seconds, time_ns=time_ns
        )
        self._previous, self._previous_seconds = current, monotonic_seconds
        return rows


def describe_process(exe: str) -> dict[str, str]:
    """Return this process's resource attributes, each limited in size."""
    attributes = {
        "service.name": exe,
        "service.instance.id": str(uuid.uuid4()),
        "service.version": __version__,
        "process.pid": str(os.getpid()),
        "process.owner": _username(),
        "user.full_name": _realname(),
        "process.runtime.name": platform.python_implementation(),
        "process.runtime.version": platform.python_version(),
        "host.name": platform.node(),
        "host.cpu.model.name": _cpu_brand(),
        "os.description": _distro(),
    }
    with contextlib.suppress(psutil.Error):
        attributes["process.creation.time"] = utc_text(datetime.fromtimestamp(psutil.Process().create_time(), UTC))
    return {name: bound_text(value, max_bytes=_MAX_ATTRIBUTE_BYTES) for name, value in attributes.items()}


def _username() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        # A container's arbitrary user ID may not have a name.
        return str(os.getuid()) if hasattr(os, "getuid") else ""


def _realname() -> str:
    with contextlib.suppress(ImportError, KeyError):
        import pwd

        # The first field of the comment is the name, followed by the office and telephone number.
        return pwd.getpwuid(os.getuid()).pw_gecos.partition(",")[0]
    return ""


def _distro() -> str:
    with contextlib.suppress(OSError, KeyError):
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    return f"{platform.system()} {platform.release()}"


def _cpu_brand() -> str:
    with contextlib.suppress(OSError), _CPU_INFO.open(encoding="utf-8", errors="replace") as stream:
        for line in stream.read(_MAX_CPU_INFO_BYTES).splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()
