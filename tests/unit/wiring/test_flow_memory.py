"""Tests of `wiring.flow_memory`."""

from __future__ import annotations

import json
import os
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.wiring import remember_flow, remembered_flow
from micromegas_jupyter.wiring.client_side import MAX_PROFILES

if TYPE_CHECKING:
    from pathlib import Path

FLAT = ClientSettings()
WORK = ClientSettings(profile="work")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"MICROMEGAS_CONFIG_DIR": str(tmp_path / "config")}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "config").mkdir(mode=0o700)
    return tmp_path / "config" / "choices.json"


def test_a_choice_is_remembered_for_its_profile(environ):
    remember_flow(WORK, Flow.PASTE, environ)
    remember_flow(FLAT, Flow.DEVICE, environ)

    assert remembered_flow(WORK, environ) is Flow.PASTE
    assert remembered_flow(FLAT, environ) is Flow.DEVICE
    assert remembered_flow(ClientSettings(profile="other"), environ) is None


def test_a_choice_replaces_the_one_before_and_can_be_forgotten(environ):
    remember_flow(WORK, Flow.PASTE, environ)
    remember_flow(WORK, Flow.BROWSER, environ)
    assert remembered_flow(WORK, environ) is Flow.BROWSER

    remember_flow(WORK, None, environ)
    assert remembered_flow(WORK, environ) is None


def test_a_setting_that_says_auto_wins_over_the_memory(environ):
    remember_flow(FLAT, Flow.DEVICE, environ)

    assert remembered_flow(ClientSettings(origins=(("flow", "MICROMEGAS_OIDC_FLOW"),)), environ) is None


def test_file_and_folder_are_open_to_their_owner_only(environ, tmp_path):
    before = os.umask(0)
    try:
        remember_flow(WORK, Flow.PASTE, environ)
    finally:
        os.umask(before)

    folder = tmp_path / "config"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}
    assert modes == {"config": 0o700, "choices.json": 0o600}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"profiles": []}',
        b'{"profiles": {"work": "paste"}}',
        b'{"profiles": {"work": {"flow": "carrier-pigeon"}}}',
        b'{"profiles": {"work": {"flow": ["paste"]}}}',
        b'{"flow": 5, "profiles": {"../work": {"flow": "paste"}}}',
        b" " * 70_000,
    ],
)
def test_a_damaged_file_holds_nothing_and_the_next_choice_replaces_it(environ, file, content):
    file.write_bytes(content)
    assert remembered_flow(WORK, environ) is None

    remember_flow(WORK, Flow.PASTE, environ)

    assert remembered_flow(WORK, environ) is Flow.PASTE
    assert json.loads(file.read_bytes()) == {"flow": None, "profiles": {"work": {"flow": "paste"}}}


def test_a_link_is_neither_read_nor_written_through(environ, file, tmp_path):
    target = tmp_path / "target.json"
    target.write_text('{"profiles": {"work": {"flow": "paste"}}}')
    file.symlink_to(target)

    assert remembered_flow(WORK, environ) is None
    with pytest.raises(ConfigurationError, match=r"choices\.json is a symbolic link"):
        remember_flow(WORK, Flow.DEVICE, environ)
    assert "paste" in target.read_text()


def test_of_very_many_profiles_the_oldest_are_forgotten(environ, file):
    listed = {f"p{number}": {"flow": "paste"} for number in range(MAX_PROFILES)}
    file.write_text(json.dumps({"profiles": listed, "flow": "device"}))

    remember_flow(WORK, Flow.BROWSER, environ)

    assert remembered_flow(ClientSettings(profile="p0"), environ) is None
    assert remembered_flow(ClientSettings(profile="p1"), environ) is Flow.PASTE
    assert remembered_flow(WORK, environ) is Flow.BROWSER
    assert remembered_flow(FLAT, environ) is Flow.DEVICE


def test_a_file_is_whole_whoever_writes_at_the_same_time(environ, file):
    profiles = [ClientSettings(profile=f"p{number}") for number in range(8)]
    threads = [threading.Thread(target=remember_flow, args=(each, Flow.PASTE, environ)) for each in profiles]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert json.loads(file.read_bytes())["profiles"]
    assert [path.name for path in file.parent.iterdir()] == ["choices.json"]
