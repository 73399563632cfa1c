"""Measures and describes this process and its machine, as far as the system tells.

Names and units are upstream's where it measures the same.
"""

import contextlib
import getpass
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil

from micromegas_jupyter.telemetry.rows import MeasureRow, ProcessInfo, nanoseconds_since_epoch
from micromegas_jupyter.telemetry.text import bound_text

TARGET: Final = "micromegas_jupyter.process_sampler"
PERCENT, BYTES, COUNT, BYTES_PER_SECOND, PER_SECOND = "percent", "bytes", "count", "bytes/s", "count/s"
_RATES: Final = frozenset({BYTES_PER_SECOND, PER_SECOND})
MAX_ATTRIBUTE_BYTES: Final = 255
MAX_PROPERTY_BYTES: Final = 1024
_MAX_PROPERTIES: Final = 64
_CPU_INFO: Final = Path("/proc/cpuinfo")
_MAX_CPU_INFO_BYTES: Final = 64 * 1024


class Reading(NamedTuple):
    """One value as psutil gives it: of a rate, the count so far. `label` is a property that distinguishes it."""

    name: str
    unit: str
    value: float
    label: tuple[str, str] | None = None


def build_measures(
    previous: list[Reading], current: list[Reading], *, elapsed_seconds: float, time_ns: int
) -> list[MeasureRow]:
    """Return the rows of a sample: rates as growth per second since the previous one, all else as it is.

    A rate that is new, or whose count ran backwards, gives no row; nor does a percentage at first, since psutil
    measures it from call to call.
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
                target=TARGET,
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
    return [
        *_attributes(psutil.virtual_memory(), BYTES, **names),
        *_attributes(psutil.swap_memory(), BYTES, total="total_swap", used="used_swap"),
    ]


def _read_load() -> list[Reading]:
    averages = zip(("1", "5", "15"), psutil.getloadavg(), strict=True)
    return [Reading("load_average", COUNT, value, ("minutes", minutes)) for minutes, value in averages]


def _read_disks() -> list[Reading]:
    counters = psutil.disk_io_counters()
    if counters is None:
        return []
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


def _read_process_times(process: psutil.Process) -> list[Reading]:
    switches = process.num_ctx_switches()
    return [
        # May be above 100: each busy core counts 100.
        Reading("process_cpu_usage", PERCENT, process.cpu_percent()),
        Reading("process_context_switches", PER_SECOND, switches.voluntary + switches.involuntary),
    ]


def _read_process_memory(process: psutil.Process) -> list[Reading]:
    return [
        *_attributes(process.memory_info(), BYTES, rss="process_resident_bytes", vms="process_virtual_bytes"),
        Reading("process_threads", COUNT, process.num_threads()),
    ]


def _read_process_files(process: psutil.Process) -> list[Reading]:
    return [Reading("process_open_files", COUNT, process.num_fds())]


def _read_process_io(process: psutil.Process) -> list[Reading]:
    names = {"read_bytes": "process_disk_read", "write_bytes": "process_disk_written"}
    return _attributes(process.io_counters(), BYTES_PER_SECOND, **names)


class ProcessSampler:
    """Takes samples of the machine and of this process; remembers the last one for the rates. For one thread."""

    def __init__(self) -> None:
        process = psutil.Process()
        self._readers: tuple[Callable[[], list[Reading]], ...] = (
            _read_processors,
            _read_memory,
            _read_load,
            _read_disks,
            _read_network,
            lambda: _read_process_times(process),
            lambda: _read_process_memory(process),
            lambda: _read_process_files(process),
            lambda: _read_process_io(process),
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


def describe_process(
    process_id: str, *, exe: str, insert_time_ns: int, properties: Mapping[str, str] | None = None
) -> ProcessInfo:
    """Return the attributes of this process in `processes`, each bounded in length.

    Args:
        process_id: UUID text, new for each run.
        exe: The program's name for people.
        insert_time_ns: Now, nanoseconds since 1970 UTC; also the start time if the system does not tell it.
        properties: Anything else worth knowing.
    """
    username, start_time_ns = _username(), insert_time_ns
    with contextlib.suppress(psutil.Error):
        start_time_ns = nanoseconds_since_epoch(psutil.Process().create_time())
    own = list((properties or {}).items())[:_MAX_PROPERTIES]
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
        properties={
            "process.pid": str(os.getpid()),
            "python.version": platform.python_version(),
            **{_bounded(name): bound_text(value, max_bytes=MAX_PROPERTY_BYTES) for name, value in own},
        },
        **{name: _bounded(value) for name, value in attributes.items()},
    )


def _bounded(text: str) -> str:
    return bound_text(text, max_bytes=MAX_ATTRIBUTE_BYTES)


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
