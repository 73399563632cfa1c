"""Tests of the file of API keys in `access.api_keys`."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from micromegas_jupyter.access import api_keys as key_file
from micromegas_jupyter.access.api_keys import KeyFile, NewApiKey, make_api_key
from micromegas_jupyter.core.system import SYSTEM_RANDOMNESS
from micromegas_jupyter.errors import ConfigurationError, Unavailable, UsageError
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from pathlib import Path


def new_key(name: str = "report") -> NewApiKey:
    return make_api_key(name, randomness=SYSTEM_RANDOMNESS, now=FakeClock().now(), scopes=frozenset({"read"}))


def add(path: Path, name: str = "report") -> NewApiKey:
    made = new_key(name)
    KeyFile(path).change(lambda keys: (*keys, made.setting), creates=True)
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_a_new_key_is_a_prefix_and_256_random_bits_and_only_its_digest_is_kept() -> None:
    made = new_key()

    text = made.secret.reveal()
    assert (text[:4], len(text)) == ("mmk_", 47)
    assert len(base64.urlsafe_b64decode(text[4:] + "=")) == 32
    assert made.setting.sha256 == hashlib.sha256(text.encode()).digest()
    assert made.setting.key is None
    assert text not in repr(made)


def test_the_file_holds_no_key_and_belongs_to_its_owner_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        made = add(path)
    finally:
        os.umask(before)

    assert made.secret.reveal() not in path.read_text()
    assert {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()} == {0o600}


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o660])
def test_reading_and_changing_leave_the_mode_of_the_file(path: Path, mode: int) -> None:
    add(path, "old")
    path.chmod(mode)

    KeyFile(path).load()
    add(path, "new")

    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert len(KeyFile(path).load()) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[", b"{}", b'[{"name": "x"}]', b'[{"name": "x", "key": "k", "colour": "red"}]', b"\xff",
        b'[{"name": "x", "key": "k"}, {"name": "y", "key": "k"}]',
    ],
    ids=["empty", "half", "object", "no key", "unknown name", "not text", "one key twice"],
)  # fmt: skip
def test_a_file_that_is_no_list_of_keys_is_refused_and_left_as_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    with pytest.raises(ConfigurationError, match=r"keys\.json"):
        KeyFile(path).load()
    with pytest.raises(ConfigurationError, match=r"keys\.json"):
        add(path)
    assert path.read_bytes() == content


def test_a_missing_file_is_an_error_that_says_how_to_make_one(path: Path) -> None:
    for use in (KeyFile(path).load, lambda: KeyFile(path).change(lambda keys: keys)):
        with pytest.raises(UsageError, match="keys create"):
            use()
    assert not path.exists()


def make_link(path: Path) -> None:
    target = path.with_name("target")
    target.write_text("[]")
    path.symlink_to(target)


@pytest.mark.parametrize("make", [make_link, os.mkfifo, os.mkdir], ids=["link", "pipe", "folder"])
@pytest.mark.parametrize("name", ["keys.json", "keys.json.lock"])
def test_what_is_not_a_regular_file_is_not_used(tmp_path: Path, make: object, name: str) -> None:
    make(tmp_path / name)  # type: ignore[operator]

    with pytest.raises(UsageError):
        add(tmp_path / "keys.json")

    if make is make_link:
        assert (tmp_path / "target").read_text() == "[]"


def test_waiting_for_another_writer_ends(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_file, "LOCK_TIMEOUT_SECONDS", 0.05)

    with FileLock(f"{path}.lock"), pytest.raises(Unavailable):
        add(path)


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_writer_that_is_killed_leaves_the_old_keys_and_no_lock(path: Path, step: str) -> None:
    add(path, "old")
    program = (
        "import os, pathlib, signal\n"
        "def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"setattr({'pathlib.Path' if step == 'replace' else 'os'}, {step!r}, die)\n"
        "from tests.unit.access.test_api_key_file import add\n"
        f"add(pathlib.Path({str(path)!r}), 'new')\n"
    )

    killed = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    names = [key.name for key in KeyFile(path).load()]
    add(path, "next")

    assert killed.returncode == -9
    assert names == ["old"]
    assert {key.name for key in KeyFile(path).load()} == {"next", "old"}
    assert not list(path.parent.glob(".*"))
