"""Measures this process and its machine: processor, memory, disk, network.

Names and units are upstream's where it measures the same. A rate needs two samples, so the first has none;
how often samples are taken is the recorder's choice.
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import psutil

from micromegas_jupyter.telemetry import MeasureRow

TARGET = "micromegas_jupyter.process_sampler"
PERCENT, BYTES, COUNT, BYTES_PER_SECOND, PER_SECOND = "percent", "bytes", "count", "bytes/s", "count/s"


class Kind(enum.Enum):
    """How a reading becomes a value: as it stands, or by its growth per second."""

    GAUGE = enum.auto()
    COUNTER = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One figure as the operating system gives it; `unit` is that of the measure made of it."""

    name: str
    unit: str
    value: float
    kind: Kind = Kind.GAUGE
    properties: Mapping[str, str] = field(default_factory=dict)
    ceiling: float = float("inf")

    @property
    def key(self) -> tuple[str, tuple[tuple[str, str], ...]]:
        """What tells this figure from others in one sample."""
        return self.name, tuple(self.properties.items())


def build_measures(
    previous: list[Reading], current: list[Reading], *, elapsed_seconds: float, time_ns: int
) -> list[MeasureRow]:
    """Return gauges as they stand and counters as growth per second.

    A counter that was not there before, or that ran backwards, gives no row.
    """
    before = {reading.key: reading.value for reading in previous if reading.kind is Kind.COUNTER}
    rows: list[MeasureRow] = []
    for reading in current:
        value = reading.value
        if reading.kind is Kind.COUNTER:
            growth = value - before.get(reading.key, float("inf"))
            if elapsed_seconds <= 0 or growth < 0:
                continue
            value = min(growth / elapsed_seconds, reading.ceiling)
        rows.append(
            MeasureRow(
                time_ns=time_ns,
                target=TARGET,
                name=reading.name,
                unit=reading.unit,
                value=float(value),
                properties=reading.properties,
            )
        )
    return rows


def read_processors() -> list[Reading]:
    """Processor time of the machine, in all and for each core."""
    # Iowait is idle time on Linux; guest time is part of user time.
    busy = [
        times.user + times.system + sum(getattr(times, name, 0.0) for name in ("nice", "irq", "softirq", "steal"))
        for times in psutil.cpu_times(percpu=True)
    ]
    cores = [
        Reading(
            name="cpu_core_usage",
            unit=PERCENT,
            value=100 * seconds,
            kind=Kind.COUNTER,
            properties={"core": str(core)},
            ceiling=100.0,
        )
        for core, seconds in enumerate(busy)
    ]
    total = Reading(name="cpu_usage", unit=PERCENT, value=100 * sum(busy) / len(busy), kind=Kind.COUNTER, ceiling=100.0)
    return [total, *cores]


def read_memory() -> list[Reading]:
    """Memory and swap space of the machine."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    return [
        Reading(name="total_memory", unit=BYTES, value=memory.total),
        Reading(name="used_memory", unit=BYTES, value=memory.used),
        Reading(name="free_memory", unit=BYTES, value=memory.free),
        Reading(name="available_memory", unit=BYTES, value=memory.available),
        Reading(name="total_swap", unit=BYTES, value=swap.total),
        Reading(name="used_swap", unit=BYTES, value=swap.used),
    ]


def read_load() -> list[Reading]:
    """Processes that want to run, averaged over one, five and fifteen minutes."""
    return [
        Reading(name="load_average", unit=COUNT, value=value, properties={"minutes": minutes})
        for minutes, value in zip(("1", "5", "15"), psutil.getloadavg(), strict=True)
    ]


def read_disks() -> list[Reading]:
    """Bytes and calls to all disks together."""
    counters = psutil.disk_io_counters()
    if counters is None:
        return []
    return [
        Reading(name="disk_read", unit=BYTES_PER_SECOND, value=counters.read_bytes, kind=Kind.COUNTER),
        Reading(name="disk_written", unit=BYTES_PER_SECOND, value=counters.write_bytes, kind=Kind.COUNTER),
        Reading(name="disk_reads", unit=PER_SECOND, value=counters.read_count, kind=Kind.COUNTER),
        Reading(name="disk_writes", unit=PER_SECOND, value=counters.write_count, kind=Kind.COUNTER),
    ]


def read_network() -> list[Reading]:
    """Bytes through all network interfaces together, and packets lost."""
    counters = psutil.net_io_counters()
    lost = counters.errin + counters.errout + counters.dropin + counters.dropout
    return [
        Reading(name="network_received", unit=BYTES_PER_SECOND, value=counters.bytes_recv, kind=Kind.COUNTER),
        Reading(name="network_sent", unit=BYTES_PER_SECOND, value=counters.bytes_sent, kind=Kind.COUNTER),
        Reading(name="network_packets_lost", unit=PER_SECOND, value=lost, kind=Kind.COUNTER),
    ]


def _read_process_times(process: psutil.Process) -> list[Reading]:
    times, switches = process.cpu_times(), process.num_ctx_switches()
    return [
        # May be above 100: each busy core counts 100.
        Reading(name="process_cpu_usage", unit=PERCENT, value=100 * (times.user + times.system), kind=Kind.COUNTER),
        Reading(
            name="process_context_switches",
            unit=PER_SECOND,
            value=switches.voluntary + switches.involuntary,
            kind=Kind.COUNTER,
        ),
    ]


def _read_process_memory(process: psutil.Process) -> list[Reading]:
    memory = process.memory_info()
    return [
        Reading(name="process_resident_bytes", unit=BYTES, value=memory.rss),
        Reading(name="process_virtual_bytes", unit=BYTES, value=memory.vms),
        Reading(name="process_threads", unit=COUNT, value=process.num_threads()),
    ]


def _read_process_files(process: psutil.Process) -> list[Reading]:
    return [Reading(name="process_open_files", unit=COUNT, value=process.num_fds())]


def _read_process_io(process: psutil.Process) -> list[Reading]:
    counters = process.io_counters()
    return [
        Reading(name="process_disk_read", unit=BYTES_PER_SECOND, value=counters.read_bytes, kind=Kind.COUNTER),
        Reading(name="process_disk_written", unit=BYTES_PER_SECOND, value=counters.write_bytes, kind=Kind.COUNTER),
    ]


class ProcessSampler:
    """Takes samples of the machine and of one process; remembers the last one for the rates. For one thread."""

    def __init__(self, process: psutil.Process | None = None) -> None:
        measured = process or psutil.Process()
        self._readers: tuple[Callable[[], list[Reading]], ...] = (
            read_processors,
            read_memory,
            read_load,
            read_disks,
            read_network,
            lambda: _read_process_times(measured),
            lambda: _read_process_memory(measured),
            lambda: _read_process_files(measured),
            lambda: _read_process_io(measured),
        )
        self._previous: list[Reading] = []
        self._previous_seconds = 0.0

    def sample(self, *, time_ns: int, monotonic_seconds: float) -> list[MeasureRow]:
        """Measure now; what this machine does not tell is left out.

        Args:
            time_ns: The time that the rows bear, nanoseconds since 1970 UTC.
            monotonic_seconds: The time that rates are reckoned by.
        """
        current = [reading for reader in self._readers for reading in _read_if_told(reader)]
        rows = build_measures(
            self._previous, current, elapsed_seconds=monotonic_seconds - self._previous_seconds, time_ns=time_ns
        )
        self._previous, self._previous_seconds = current, monotonic_seconds
        return rows


def _read_if_told(reader: Callable[[], list[Reading]]) -> list[Reading]:
    try:
        return reader()
    except (psutil.Error, OSError, RuntimeError, AttributeError):
        # Containers hide files under /proc; other systems lack a figure, and without a network there are no counters.
        return []
