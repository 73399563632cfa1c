import os
import platform
import subprocess
from pathlib import Path

import psutil
import pytest

from micromegas_jupyter.server.recorder import recorder
from micromegas_jupyter.server.recorder.recorder import ProcessSampler, Reading, build_measures, describe_process

TIME_NS = 1_795_521_600_000_000_000


def _counter(value: float, *, core: str = "0") -> Reading:
    return Reading("disk_reads", "count/s", value, ("core", core))


def test_a_counter_is_reported_as_growth_per_second() -> None:
    (row,) = build_measures([_counter(100)], [_counter(150)], elapsed_seconds=2.0, time_ns=TIME_NS)

    assert (row.value, row.properties) == (25.0, {"core": "0"})


@pytest.mark.parametrize(
    ("previous", "elapsed_seconds"),
    [([], 1.0), ([_counter(200)], 1.0), ([_counter(100)], 0.0), ([_counter(100, core="1")], 1.0)],
    ids=["no sample before", "ran backwards", "no time passed", "another core"],
)
def test_a_counter_without_a_meaningful_rate_gives_no_row(previous: list[Reading], elapsed_seconds: float) -> None:
    assert build_measures(previous, [_counter(150)], elapsed_seconds=elapsed_seconds, time_ns=TIME_NS) == []


def test_the_first_sample_has_no_rates() -> None:
    rows = ProcessSampler().sample(time_ns=TIME_NS, monotonic_seconds=5.0)

    assert {row.name for row in rows} >= {"total_memory", "used_memory", "load_average", "process_resident_bytes"}
    assert [row.name for row in rows if row.unit in {"percent", "bytes/s", "count/s"}] == []


def test_the_second_sample_measures_this_process_and_machine() -> None:
    sampler = ProcessSampler()
    sampler.sample(time_ns=TIME_NS, monotonic_seconds=5.0)
    read, write = os.pipe()

    rows = sampler.sample(time_ns=TIME_NS, monotonic_seconds=6.0)

    os.close(read)
    os.close(write)
    values = {(row.name, *row.properties.values()): row.value for row in rows}
    assert values["total_memory",] == psutil.virtual_memory().total
    assert 0 <= values["cpu_usage",] <= 100
    assert ("cpu_core_usage", str(psutil.cpu_count() - 1)) in values
    assert values["process_cpu_usage",] >= 0
    assert values["process_open_files",] >= 5
    assert values["process_threads",] >= 1


def test_what_the_machine_does_not_report_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(recorder.psutil, "disk_io_counters", lambda: None)
    monkeypatch.setattr(recorder.psutil, "net_io_counters", lambda: None)
    monkeypatch.setattr(recorder.psutil, "cpu_percent", refuse)
    sampler = ProcessSampler()
    sampler.sample(time_ns=TIME_NS, monotonic_seconds=5.0)

    names = {row.name for row in sampler.sample(time_ns=TIME_NS, monotonic_seconds=6.0)}

    assert not names & {"disk_read", "network_sent", "cpu_usage"}
    assert {"used_memory", "process_cpu_usage"} <= names


def test_a_process_is_described_by_its_environment() -> None:
    process = describe_process("id", exe="server", insert_time_ns=7)

    assert (process.process_id, process.exe, process.insert_time_ns) == ("id", "server", 7)
    assert (process.username, process.computer) == (psutil.Process().username(), platform.node())
    assert process.distro
    assert process.cpu_brand
    assert process.start_time_ns == round(psutil.Process().create_time() * 100) * 10_000_000
    assert process.properties == {
        "process.pid": str(os.getpid()),
        "python.version": platform.python_version(),
    }


def test_attributes_are_bounded() -> None:
    assert len(describe_process("id", exe="x" * 1000, insert_time_ns=7).exe.encode()) == 255


def test_what_the_system_does_not_report_has_a_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise OSError(2, "No such file or directory")

    def no_process() -> psutil.Process:
        raise psutil.NoSuchProcess(1)

    monkeypatch.setattr(recorder, "_CPU_INFO", Path("/nonexistent"))
    monkeypatch.setattr(recorder.getpass, "getuser", fail)
    monkeypatch.setattr(recorder.platform, "freedesktop_os_release", fail)
    monkeypatch.setattr(recorder.psutil, "Process", no_process)

    process = describe_process("id", exe="server", insert_time_ns=7)

    assert process.username == str(os.getuid())
    assert process.distro == f"{platform.system()} {platform.release()}"
    assert process.cpu_brand == platform.machine()
    assert process.start_time_ns == 7


def test_no_program_is_started_that_would_inherit_the_servers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **_options: started.append(arguments))
    monkeypatch.setattr(platform, "_uname_cache", None)

    describe_process("id", exe="server", insert_time_ns=7)

    assert started == []
