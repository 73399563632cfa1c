import getpass
import os
import platform
import subprocess
from pathlib import Path

import psutil
import pytest

from micromegas_jupyter.server import process_facts
from micromegas_jupyter.server.process_facts import describe_process


def test_a_process_is_described_by_its_surroundings() -> None:
    process = describe_process("id", exe="server", insert_time_ns=7, properties={"role": "demo"})

    assert (process.process_id, process.exe, process.insert_time_ns) == ("id", "server", 7)
    assert (process.username, process.computer) == (getpass.getuser(), platform.node())
    assert process.distro
    assert process.cpu_brand
    assert process.start_time_ns == round(psutil.Process().create_time() * 100) * 10_000_000
    assert process.properties == {
        "process.pid": str(os.getpid()),
        "python.version": platform.python_version(),
        "role": "demo",
    }


def test_attributes_are_bounded() -> None:
    process = describe_process("id", exe="x" * 1000, insert_time_ns=7, properties={"k" * 1000: "v" * 10_000})

    assert len(process.exe.encode()) == 255
    assert max(len(name.encode()) for name in process.properties) == 255
    assert max(len(value.encode()) for value in process.properties.values()) == 1024


def test_what_the_system_does_not_tell_has_a_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise OSError(2, "No such file or directory")

    def no_process() -> psutil.Process:
        raise psutil.NoSuchProcess(1)

    monkeypatch.setattr(process_facts, "_CPU_INFO", Path("/nonexistent"))
    monkeypatch.setattr(process_facts.getpass, "getuser", fail)
    monkeypatch.setattr(process_facts.platform, "freedesktop_os_release", fail)
    monkeypatch.setattr(process_facts.psutil, "Process", no_process)

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
