"""A library that takes files reads what was checked, and nothing of it stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from micromegas_jupyter.server import unnamed_files
from micromegas_jupyter.server.unnamed_files import as_files


@pytest.fixture(params=["in memory", "in a folder"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if request.param == "in a folder":
        monkeypatch.setattr(unnamed_files, "_OPEN_FILES", tmp_path / "nothing")


@pytest.mark.usefixtures("_way")
def test_each_file_holds_its_content_and_is_gone_afterwards() -> None:
    with as_files(b"one", b"two") as (first, second):
        assert (first.read_bytes(), second.read_bytes()) == (b"one", b"two")
        assert first.stat().st_mode & 0o077 == 0 or first.parent == Path("/proc/self/fd")

    assert [path for path in (first, second) if path.exists()] == []
