"""A folder goes with its process, at the latest when somebody looks for those of the dead; nothing else goes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.core.files import TemporaryFolder, remove_abandoned

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PREFIX = "of-a-test-"
NAME = f"{PREFIX}abcdefgh"
CHILD = """
import sys
from micromegas_jupyter.core.files import TemporaryFolder
folder = TemporaryFolder(sys.argv[1], parent=sys.argv[2])
(folder.path / "rows").write_bytes(b"of somebody")
(folder.path / "inside").mkdir()
(folder.path / "inside" / "rows").write_bytes(b"of somebody")
print(folder.path.name, flush=True)
sys.stdin.read()
"""


@contextmanager
def child(parent: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Run a process that has a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, PREFIX, str(parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, parent / process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    with child(tmp_path) as (killed, left), child(tmp_path) as (_, kept), TemporaryClosed(tmp_path) as own:
        killed.kill()
        killed.wait()

        removed = remove_abandoned(PREFIX, parent=str(tmp_path))

        assert removed == 1
        assert not left.exists()
        assert {found.name for found in kept.iterdir()} == {"rows", "inside"}
        assert own.is_dir()


class TemporaryClosed:
    """A folder of this process, closed at the end."""

    def __init__(self, parent: Path) -> None:
        self._folder = TemporaryFolder(PREFIX, parent=str(parent))

    def __enter__(self) -> Path:
        return self._folder.path

    def __exit__(self, *_error: object) -> None:
        self._folder.close()


def test_a_folder_is_its_users_alone_and_goes_when_it_is_closed(tmp_path: Path) -> None:
    folder = TemporaryFolder(PREFIX, parent=str(tmp_path))
    (folder.path / "rows").write_bytes(b"of somebody")
    mode = folder.path.stat().st_mode & 0o777

    folder.close()
    folder.close()

    assert mode == 0o700
    assert not folder.path.exists()


def test_what_only_looks_like_a_folder_of_the_dead_stays(tmp_path: Path) -> None:
    place, elsewhere = tmp_path / "place", tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "kept").touch()
    place.mkdir()
    (place / NAME).symlink_to(elsewhere)
    (place / f"{PREFIX}open____").mkdir(mode=0o755)
    (place / f"{PREFIX}longer_than_made").mkdir(mode=0o700)
    (place / f"another-{NAME}").mkdir(mode=0o700)
    (place / f"{PREFIX}afile___").touch(mode=0o700)
    before = sorted(place.iterdir())

    assert remove_abandoned(PREFIX, parent=str(place)) == 0

    assert sorted(place.iterdir()) == before
    assert (elsewhere / "kept").exists()


def test_another_users_folder_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / NAME).mkdir(mode=0o700)
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)

    assert remove_abandoned(PREFIX, parent=str(tmp_path)) == 0

    assert (tmp_path / NAME).is_dir()
    monkeypatch.undo()
    assert remove_abandoned(PREFIX, parent=str(tmp_path)) == 1


def test_a_link_inside_a_folder_of_the_dead_leads_nowhere(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    (tmp_path / NAME).mkdir(mode=0o700)
    (tmp_path / NAME / "link").symlink_to(kept)
    (tmp_path / NAME / "inside").mkdir()
    (tmp_path / NAME / "inside" / "link").symlink_to(kept)

    assert remove_abandoned(PREFIX, parent=str(tmp_path)) == 1

    assert not (tmp_path / NAME).exists()
    assert (kept / "file").exists()


def test_whoever_looks_while_folders_are_made_takes_none(tmp_path: Path) -> None:
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            remove_abandoned(PREFIX, parent=str(tmp_path))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        folders = [TemporaryFolder(PREFIX, parent=str(tmp_path)) for _ in range(200)]
    finally:
        is_over.set()
        looking.join()

    remove_abandoned(PREFIX, parent=str(tmp_path))

    assert all(folder.path.is_dir() for folder in folders)
    for folder in folders:
        folder.close()


def test_a_place_that_is_not_there_holds_nothing_of_the_dead(tmp_path: Path) -> None:
    assert remove_abandoned(PREFIX, parent=str(tmp_path / "missing")) == 0


def test_a_folder_needs_a_place(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        TemporaryFolder(PREFIX, parent=str(tmp_path / "missing"))
