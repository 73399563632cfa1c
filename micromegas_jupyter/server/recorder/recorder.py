"""Records a process into the lake: its log, its measurements and that it is alive.

It never stops the application: what cannot be stored waits, up to a bound, and what is lost is counted.
"""

import contextlib
import getpass
import logging
import os
import platform
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil
import pyarrow as pa

from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.lake.writer import LakeWriter
from micromegas_jupyter.server.recorder.log_records import RecordingHandler
from micromegas_jupyter.telemetry.tables import (
    LOG_ENTRIES,
    MEASURES,
    PROCESSES,
    STREAMS,
    BlockOrigin,
    Level,
    LogRow,
    MeasureRow,
    ProcessInfo,
    StreamInfo,
    build_log_batch,
    build_measure_batch,
    build_process_batch,
    build_stream_batch,
    nanoseconds_since_epoch,
)
from micromegas_jupyter.telemetry.text import bound_text

TARGET = "micromegas_jupyter.recorder"
HEARTBEAT_SECONDS = 60.0
SAMPLE_SECONDS = 1.0
WARNING_SECONDS = 60.0
STORE_SECONDS = 60.0
MAX_MEASURES = 50_000
MAX_WAITING_ROWS = 200_000
# There is no encoded payload behind these rows, only the rows.
STREAM_FORMAT = "rows/v1"
SAMPLER_TARGET = "micromegas_jupyter.process_sampler"
PERCENT, BYTES, COUNT, BYTES_PER_SECOND, PER_SECOND = "percent", "bytes", "count", "bytes/s", "count/s"
_RATES: Final = frozenset({BYTES_PER_SECOND, PER_SECOND})
_MAX_ATTRIBUTE_BYTES: Final = 255
_CPU_INFO: Final = Path("/proc/cpuinfo")
_MAX_CPU_INFO_BYTES: Final = 64 * 1024
LOG_TAG, METRICS_TAG = "log", "metrics"
_PACKAGE_LOGGER = logging.getLogger("micromegas_jupyter")
_LOG = logging.getLogger("micromegas_jupyter.server.recorder")


class Recorder:
    """Records this process from `start` to `stop`; use it once.

    One daemon thread samples and stores. `_measures_lock` covers the measures that others hand in; all else belongs to
    that thread. The process appears under the name `exe`; what `logger` gets (by default the root's) can be queried
    after one interval and the time of one commit. The writer is closed by whoever made it.
    """

    def __init__(  # noqa: PLR0913 - options by keyword
        self,
        writer: LakeWriter,
        *,
        exe: str,
        clock: Clock = SYSTEM_CLOCK,
        commit_interval_seconds: float = 10.0,
        sample_interval_seconds: float = SAMPLE_SECONDS,
        logger: logging.Logger | None = None,
    ) -> None:
        self._process_uuid = uuid.uuid4()
        self._writer = writer
        self._exe = exe
        self._clock = clock
        self._commit_interval_seconds = commit_interval_seconds
        self._sample_interval_seconds = min(sample_interval_seconds, commit_interval_seconds)
        self._logger = logger or logging.getLogger()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._handler = RecordingHandler(wake=self._wake.set)
        self._undo = contextlib.ExitStack()
        self._sampler = ProcessSampler()
        self._backlog = Backlog()
        self._measures_lock = threading.Lock()
        self._measures: list[MeasureRow] = []
        self._dropped_measures = 0
        self._streams: RecordedStreams | None = None
        self._failed_flushes = 0
        self._warn_after = 0.0
        self._sample_at = self._commit_at = 0.0
        self._thread: threading.Thread | None = None

    @property
    def process_id(self) -> str:
        """The id under which this process appears in every table."""
        return str(self._process_uuid)

    def start(self) -> None:
        """Begin to record; returns at once, and a disk that fails is not an error here."""
        self._attach_handler()
        self._thread = threading.Thread(target=self._run, name="micromegas-recorder", daemon=True)
        self._thread.start()

    def stop(self, *, timeout_seconds: float = 5.0) -> bool:
        """Flush everything and end, and return whether all is stored in time; safe to call twice."""
        self._undo.close()
        self._stopping.set()
        self._wake.set()
        if self._thread is None:
            return True
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive() and self._backlog.waiting_rows == 0

    def add_measures(self, rows: Iterable[MeasureRow]) -> None:
        """Record values that were measured elsewhere; never blocks for I/O, drops what is over the bound."""
        added = list(rows)
        with self._measures_lock:
            free = MAX_MEASURES - len(self._measures)
            self._measures += added[:free]
            self._dropped_measures += max(0, len(added) - free)

    def _attach_handler(self) -> None:
        logger = self._logger
        # With its first handler a logger stops printing warnings by itself; whoever watches stderr still wants them.
        if not logger.hasHandlers() and logging.lastResort is not None:
            logger.addHandler(logging.lastResort)
            self._undo.callback(logger.removeHandler, logging.lastResort)
        logger.addHandler(self._handler)
        self._undo.callback(logger.removeHandler, self._handler)
        if _PACKAGE_LOGGER.level == logging.NOTSET:
            # Sign-ins and the query audit are logged at INFO, which the root's default would hide.
            _PACKAGE_LOGGER.setLevel(logging.INFO)
            self._undo.callback(_PACKAGE_LOGGER.setLevel, logging.NOTSET)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stopping.is_set()
            self._wake.clear()
            due = self._clock.monotonic() + self._sample_interval_seconds
            self._run_once(is_last=is_last)
            if not is_last and not self._stopping.is_set():
                self._wake.wait(max(0.0, due - self._clock.monotonic()))

    def _run_once(self, *, is_last: bool = False) -> None:
        try:
            self._collect()
            if is_last or self._clock.monotonic() >= self._commit_at:
                self._commit_at = self._clock.monotonic() + self._commit_interval_seconds
                self._backlog.store(self._writer)
        except Exception as error:  # noqa: BLE001 - nothing here must end the recording
            self._note_failure(error)

    def _collect(self) -> None:
        """Move what was logged and measured into the backlog."""
        now_ns = nanoseconds_since_epoch(self._clock.now().timestamp())
        monotonic_seconds = self._clock.monotonic()
        if self._streams is None:
            self._streams = RecordedStreams(describe_process(self.process_id, exe=self._exe, insert_time_ns=now_ns))
        log_rows, dropped_records = self._handler.drain()
        with self._measures_lock:
            measures, self._measures = self._measures, []
            dropped_measures, self._dropped_measures = self._dropped_measures, 0
        counts = {
            "log_records": dropped_records,
            "measures": dropped_measures,
            "stored_rows": self._backlog.take_lost_count(),
        }
        if any(counts.values()):
            lost = {name: str(count) for name, count in counts.items() if count}
            log_rows.append(
                LogRow(time_ns=now_ns, target=TARGET, level=Level.WARN, msg="telemetry was dropped", properties=lost)
            )
        if monotonic_seconds >= self._sample_at or self._stopping.is_set():
            # A round that a full queue brought forward takes no sample.
            self._sample_at = monotonic_seconds + 0.9 * self._sample_interval_seconds
            measures += self._sampler.sample(time_ns=now_ns, monotonic_seconds=monotonic_seconds)
        batches = self._streams.build_batches(
            log_rows, measures, now_ns=now_ns, monotonic_seconds=monotonic_seconds, is_last=self._stopping.is_set()
        )
        for table_name, batch in batches:
            self._backlog.add(table_name, batch)

    def _note_failure(self, error: Exception) -> None:
        self._failed_flushes += 1
        now = self._clock.monotonic()
        if now >= self._warn_after:
            self._warn_after = now + WARNING_SECONDS
            _LOG.warning(
                "telemetry could not be stored",
                extra={"failed_flushes": self._failed_flushes, "waiting_rows": self._backlog.waiting_rows},
                exc_info=error,
            )


class Backlog:
    """Batches for each table in the order of their arrival; the oldest go when there are too many. For one thread.

    A write whose outcome is not known is repeated as it was, or goes as a whole: a part of it could be stored twice.
    """

    def __init__(self, *, max_rows: int = MAX_WAITING_ROWS) -> None:
        self._max_rows = max_rows
        self._waiting: dict[str, list[pa.RecordBatch]] = {}
        # Of a write whose outcome is not known, its id and how many batches it has: it is repeated as it was.
        self._unknown: dict[str, tuple[str, int]] = {}
        self._lost_rows = 0

    @property
    def waiting_rows(self) -> int:
        """How many rows wait."""
        return sum(batch.num_rows for batches in self._waiting.values() for batch in batches)

    def add(self, table_name: str, batch: pa.RecordBatch) -> None:
        """Let a batch wait; drops whole batches of the fullest table when there are too many rows."""
        self._waiting.setdefault(table_name, []).append(batch)
        while self.waiting_rows > self._max_rows:
            name, waiting = max(self._waiting.items(), key=lambda item: sum(batch.num_rows for batch in item[1]))
            _, sent = self._unknown.get(name, ("", 0))
            if sent == len(waiting):
                del self._unknown[name]
            dropped = slice(sent, sent + 1) if sent < len(waiting) else slice(None)
            self._lost_rows += sum(batch.num_rows for batch in waiting[dropped])
            del waiting[dropped]

    def store(self, writer: LakeWriter) -> None:
        """Store all that waits; what fails keeps waiting, and the last error is raised."""
        failure: Exception | None = None
        writes = []
        for table_name, batches in self._waiting.items():
            if batches:
                write_id, count = self._unknown.get(table_name, (uuid.uuid4().hex, len(batches)))
                try:
                    outcome = writer.append(table_name, pa.Table.from_batches(batches[:count]), write_id=write_id)
                except Exception as error:  # noqa: BLE001 - the rows of other tables are stored
                    failure = error
                else:
                    self._unknown[table_name] = write_id, count
                    writes.append((table_name, count, outcome))
        for table_name, count, outcome in writes:
            try:
                outcome.result(timeout=STORE_SECONDS)
            except Exception as error:  # noqa: BLE001 - the same
                failure = error
            else:
                del self._waiting[table_name][:count]
                del self._unknown[table_name]
        if failure is not None:
            raise failure

    def take_lost_count(self) -> int:
        """Return how many rows were dropped since the last call."""
        lost, self._lost_rows = self._lost_rows, 0
        return lost


class RecordedStreams:
    """What one process has recorded so far; for one thread."""

    def __init__(self, process: ProcessInfo) -> None:
        self._process = process
        self._streams = {
            tag: StreamInfo(
                stream_id=str(uuid.uuid5(uuid.UUID(process.process_id), tag)),
                process_id=process.process_id,
                tags=(tag,),
                format=STREAM_FORMAT,
                insert_time_ns=process.insert_time_ns,
            )
            for tag in (LOG_TAG, METRICS_TAG)
        }
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
    ) -> list[tuple[str, pa.RecordBatch]]:
        """Return the batches of one flush; a sign of life first, when one is due."""
        batches: list[tuple[str, pa.RecordBatch]] = []
        if log_rows:
            batches.append((LOG_ENTRIES.name, build_log_batch(log_rows, self._open_block(LOG_TAG, now_ns))))
        if measures:
            batches.append((MEASURES.name, build_measure_batch(measures, self._open_block(METRICS_TAG, now_ns))))
        if is_last or self._heartbeat_at is None or monotonic_seconds >= self._heartbeat_at:
            self._heartbeat_at = monotonic_seconds + HEARTBEAT_SECONDS
            batches = [*self._build_states(now_ns), *batches]
        return batches

    def _open_block(self, tag: str, now_ns: int) -> BlockOrigin:
        stream_id = self._streams[tag].stream_id
        block_id = str(uuid.uuid5(uuid.UUID(stream_id), str(self._next_block)))
        self._next_block += 1
        self._last_block_end_ns = now_ns
        return BlockOrigin(process=self._process, stream_id=stream_id, block_id=block_id, insert_time_ns=now_ns)

    def _build_states(self, now_ns: int) -> list[tuple[str, pa.RecordBatch]]:
        state = build_process_batch(
            self._process, last_update_time_ns=now_ns, last_block_end_time_ns=self._last_block_end_ns
        )
        streams = [build_stream_batch(stream, last_update_time_ns=now_ns) for stream in self._streams.values()]
        return [(PROCESSES.name, state), *((STREAMS.name, batch) for batch in streams)]


class Reading(NamedTuple):
    """One value as psutil gives it: of a rate, the count so far. `label` is a property that distinguishes it."""

    name: str
    unit: str
    value: float
    label: tuple[str, str] | None = None


def build_measures(
    previous: list[Reading], current: list[Reading], *, elapsed_seconds: float, time_ns: int
) -> list[MeasureRow]:
    """Return the rows of a sample: rates as growth per second, all else as it is.

    A rate that is new or ran backwards gives no row; nor does a percentage at first, measured between calls.
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
    """Return a reading for each of psutil's attributes, under the name given for it."""
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
        # May be above 100: each busy core counts 100.
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
    """Takes samples of the machine and of this process; remembers the last one for the rates. For one thread."""

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
        """Measure now."""
        current: list[Reading] = []
        for read in self._readers:
            # Containers hide files under /proc; other systems lack a value, and without a network there are none.
            with contextlib.suppress(psutil.Error, OSError, RuntimeError, AttributeError):
                current += read()
        rows = build_measures(
            self._previous, current, elapsed_seconds=monotonic_seconds - self._previous_seconds, time_ns=time_ns
        )
        self._previous, self._previous_seconds = current, monotonic_seconds
        return rows


def describe_process(process_id: str, *, exe: str, insert_time_ns: int) -> ProcessInfo:
    """Return the attributes of this process in `processes`, each bounded; it began now if the system does not tell."""
    username, start_time_ns = _username(), insert_time_ns
    with contextlib.suppress(psutil.Error):
        start_time_ns = nanoseconds_since_epoch(psutil.Process().create_time())
    attributes = {
        "exe": exe,
        "username": username,
        "realname": _realname() or username,
        "computer": platform.node(),
        "distro": _distro(),
        "cpu_brand": _cpu_brand(),
    }
    return ProcessInfo(
        process_id=process_id,
        start_time_ns=start_time_ns,
        insert_time_ns=insert_time_ns,
        properties={"process.pid": str(os.getpid()), "python.version": platform.python_version()},
        **{name: bound_text(value, max_bytes=_MAX_ATTRIBUTE_BYTES) for name, value in attributes.items()},
    )


def _username() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        # A container's arbitrary user id has no name.
        return str(os.getuid()) if hasattr(os, "getuid") else ""


def _realname() -> str:
    with contextlib.suppress(ImportError, KeyError):
        import pwd

        # The first field of the comment is the name; office and telephone follow.
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
