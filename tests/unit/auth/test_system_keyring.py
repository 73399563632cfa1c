from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import keyring.core
import pytest

from micromegas_jupyter.auth import system_keyring
from micromegas_jupyter.auth.system_keyring import (
    KeyringUnusable,
    SystemKeyring,
    session_bus_address,
    usable_keyring,
)
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.errors import TokenStoreError
from tests.fakes.keyring_backend import LockedKeyring, MemoryKeyring

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MEMORY = {"PYTHON_KEYRING_BACKEND": "tests.fakes.keyring_backend.MemoryKeyring"}
LOCKED = {"PYTHON_KEYRING_BACKEND": "tests.fakes.keyring_backend.LockedKeyring"}


@pytest.fixture(autouse=True)
def run_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder in place of the one where the person's own bus may be."""
    monkeypatch.setattr(system_keyring, "RUN_FOLDER", tmp_path / "run")
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    folder = tmp_path / "run" / str(os.getuid())
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def locked() -> Iterator[None]:
    LockedKeyring.release.clear()
    yield
    LockedKeyring.release.set()


def test_a_text_is_kept_read_and_forgotten() -> None:
    kept = SystemKeyring(MemoryKeyring())
    kept.write("name", Secret("text"))

    assert kept.read("name") == Secret("text")
    assert (kept.delete("name"), kept.delete("name"), kept.read("name")) == (True, False, None)


@pytest.mark.usefixtures("locked")
def test_a_keyring_that_waits_for_a_person_is_given_up_in_time() -> None:
    started = time.monotonic()

    with pytest.raises(TokenStoreError, match="does not answer"):
        SystemKeyring(LockedKeyring(), call_seconds=0.1).read("name")

    assert time.monotonic() - started < 9
    LockedKeyring.release.set()
    _until_it_answers()


def test_a_keyring_that_the_person_chose_is_usable() -> None:
    assert isinstance(usable_keyring(MEMORY), SystemKeyring)


def test_a_keyring_that_the_program_set_is_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring.core, "_keyring_backend", MemoryKeyring())

    assert isinstance(usable_keyring({}), SystemKeyring)


def test_a_keyring_that_the_persons_configuration_names_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "python_keyring").mkdir()
    (tmp_path / "python_keyring" / "keyringrc.cfg").write_text(
        "[backend]\ndefault-keyring=keyring.backends.null.Keyring\n"
    )

    assert usable_keyring({}) == KeyringUnusable(reason="keyring.backends.null keeps nothing")


@pytest.mark.usefixtures("locked")
def test_a_locked_keyring_is_not_usable() -> None:
    found = usable_keyring(LOCKED, unlock_seconds=0.1)

    assert isinstance(found, KeyringUnusable)
    assert "unlocked" in found.reason
    LockedKeyring.release.set()
    _until_it_answers()


@pytest.mark.parametrize(
    "name",
    [
        "keyring.backends.fail.Keyring",
        "keyring.backends.null.Keyring",
        "keyring.backends.chainer.ChainerBackend",
        "keyring.backends.kwallet.DBusKeyring",
        "keyrings.alt.file.PlaintextKeyring",
    ],
)
def test_a_keyring_that_keeps_secrets_badly_or_starts_a_bus_is_not_used(name: str) -> None:
    found = usable_keyring({"PYTHON_KEYRING_BACKEND": name, "DBUS_SESSION_BUS_ADDRESS": "unix:path=/nowhere"})

    assert isinstance(found, KeyringUnusable)
    assert found.reason.startswith(name.rpartition(".")[0])


@pytest.mark.parametrize("name", ["no_such_module.Keyring", "keyring.backends.SecretService.NoSuch"])
def test_a_keyring_that_does_not_exist_is_not_usable(name: str) -> None:
    environ = {"PYTHON_KEYRING_BACKEND": name, "DBUS_SESSION_BUS_ADDRESS": "unix:path=/nowhere"}

    assert isinstance(usable_keyring(environ), KeyringUnusable)


def test_a_bus_that_is_gone_means_no_keyring(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    address = f"unix:path={tmp_path}/gone"
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)

    assert isinstance(usable_keyring({"DBUS_SESSION_BUS_ADDRESS": address}), KeyringUnusable)


def test_a_bus_that_never_answers_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    address = f"unix:path={tmp_path}/bus"
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", address)
    started = time.monotonic()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{tmp_path}/bus")
        silent.listen()

        found = usable_keyring({"DBUS_SESSION_BUS_ADDRESS": address}, unlock_seconds=0.2)

    assert isinstance(found, KeyringUnusable)
    assert time.monotonic() - started < 9
    _until_it_answers()


@pytest.mark.parametrize("address", ["autolaunch:", "unix:path=/nowhere;autolaunch:", "tcp:host=localhost,port=1"])
def test_an_address_that_may_start_a_bus_is_none(address: str) -> None:
    assert session_bus_address({"DBUS_SESSION_BUS_ADDRESS": address}) is None


def test_the_bus_that_systemd_runs_for_the_person_is_known(run_folder: Path) -> None:
    path = run_folder / "bus"
    with socket.socket(socket.AF_UNIX) as bus:
        bus.bind(str(path))

        assert session_bus_address({}) == f"unix:path={path}"


def test_a_file_in_place_of_the_bus_is_none(run_folder: Path) -> None:
    (run_folder / "bus").write_text("")

    assert session_bus_address({}) is None


def test_a_bus_of_another_person_is_none(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    person = os.getuid() + 1
    path = run_folder.with_name(str(person)) / "bus"
    path.parent.mkdir()
    monkeypatch.setattr(os, "getuid", lambda: person)
    with socket.socket(socket.AF_UNIX) as bus:
        bus.bind(str(path))

        assert session_bus_address({}) is None


def test_without_the_library_there_is_no_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)

    assert usable_keyring(MEMORY) == KeyringUnusable(reason="the Python package keyring is not installed")


def test_no_program_is_started_and_no_library_loaded_that_would() -> None:
    code = (
        "import sys, psutil\n"
        "from pathlib import Path\n"
        "from micromegas_jupyter.auth import system_keyring\n"
        "system_keyring.RUN_FOLDER = Path('/nowhere')\n"
        "started = []\n"
        "sys.addaudithook(lambda event, _: started.append(event) if event in "
        "{'subprocess.Popen', 'os.fork', 'os.posix_spawn', 'os.exec', 'os.system'} else None)\n"
        "found = system_keyring.usable_keyring()\n"
        "loaded = sorted({'dbus', 'gi', 'keyring.backends.kwallet'} & set(sys.modules))\n"
        "print(found.reason, psutil.Process().children(recursive=True), started, loaded, sep='|')\n"
    )
    environ = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}

    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, check=True, capture_output=True, text=True, timeout=60
    )

    reason, *found = done.stdout.strip().split("|")
    assert reason == "no session bus is running for this session"
    assert found == ["[]", "[]", "[]"]


def _until_it_answers() -> None:
    """Wait until a call that was given up has ended, for no other is made before."""
    deadline = time.monotonic() + 60
    while isinstance(usable_keyring(MEMORY), KeyringUnusable):
        assert time.monotonic() < deadline
