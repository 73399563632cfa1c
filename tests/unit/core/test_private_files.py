from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.core.files import (
    FileProblem,
    FileTooLarge,
    check_replaceable,
    close_to_others,
    ensure_private_folder,
    mark_of,
    read_private_file,
    remove_file,
    remove_leftovers,
    write_private_file,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_was_written_is_read_with_the_same_mark(tmp_path: Path) -> None:
    path = tmp_path / "file"

    mark = write_private_file(path, b"content")

    assert read_private_file(path) == (b"content", mark)
    assert mark_of(path) == mark


@pytest.mark.usefixtures("umask")
def test_files_and_folders_are_private_under_every_umask(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"

    ensure_private_folder(path.parent)
    write_private_file(path, b"content")

    assert (mode_of(path), mode_of(path.parent), mode_of(tmp_path / "a")) == (0o600, 0o700, 0o700)


def test_a_folder_that_was_there_before_is_left_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)

    ensure_private_folder(tmp_path)

    assert mode_of(tmp_path) == 0o755


def test_a_file_that_was_open_to_others_is_closed_by_writing_and_by_reading(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o644)

    assert read_private_file(path)[0] == b"old"
    assert mode_of(path) == 0o600
    path.chmod(0o666)
    write_private_file(path, b"new")
    assert mode_of(path) == 0o600


def test_each_change_gives_another_mark(tmp_path: Path) -> None:
    path = tmp_path / "file"
    marks = [write_private_file(path, b"same") for _ in range(3)]

    assert len(set(marks)) == 3
    assert mark_of(tmp_path / "missing") is None


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(10_000_000_000)

    with pytest.raises(FileTooLarge):
        read_private_file(path)


def make_link(path: Path) -> None:
    target = path.with_name("target")
    target.write_bytes(b"precious")
    path.symlink_to(target)


def make_dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


ODD_PLACES = [make_link, make_dangling_link, os.mkfifo, os.mkdir]


@pytest.mark.parametrize("make", ODD_PLACES, ids=["link", "dangling link", "pipe", "folder"])
def test_what_is_not_a_regular_file_is_neither_read_nor_replaced(make: object, tmp_path: Path) -> None:
    path = tmp_path / "file"
    make(path)  # type: ignore[operator]

    for use in (read_private_file, check_replaceable, lambda place: write_private_file(place, b"new")):
        with pytest.raises(FileProblem):
            use(path)  # type: ignore[operator]

    assert not [entry for entry in tmp_path.iterdir() if entry.name.endswith(".tmp")]
    if make is make_link:
        assert (tmp_path / "target").read_bytes() == b"precious"


def test_a_file_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)

    with pytest.raises(FileProblem):
        read_private_file(path)
    with pytest.raises(FileProblem):
        write_private_file(path, b"new")
    assert path.read_bytes() == b"content"


@pytest.mark.parametrize("step", ["write", "fsync"])
def test_a_write_that_fails_leaves_the_old_file_whole(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_private_file(path, b"old")

    def fail(*_arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(FileProblem, match="No space left"):
        write_private_file(path, b"new")

    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("file", ".file.0123.tmp", ".other.0123.tmp", "file.lock"):
        (tmp_path / name).write_bytes(b"")

    remove_leftovers(tmp_path / "file")

    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".other.0123.tmp", "file", "file.lock"]


def test_removing_says_whether_there_was_something(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")

    assert (remove_file(path), remove_file(path)) == (True, False)


def test_removing_a_link_leaves_what_it_points_to(tmp_path: Path) -> None:
    make_link(tmp_path / "file")

    remove_file(tmp_path / "file")

    assert [entry.name for entry in tmp_path.iterdir()] == ["target"]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(FileProblem):
        ensure_private_folder(tmp_path / "file" / "folder")
    with pytest.raises(FileProblem):
        ensure_private_folder(tmp_path / "file")


def test_a_file_is_closed_to_others_without_being_read_or_replaced(tmp_path: Path) -> None:
    path = tmp_path / "t.lock"
    path.write_text("x")
    path.chmod(0o666)
    inode = path.stat().st_ino

    close_to_others(path)
    close_to_others(tmp_path / "missing")

    found = path.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_ino, path.read_text()) == (0o600, inode, "x")
    assert not (tmp_path / "missing").exists()


def test_a_link_is_not_followed_to_be_closed_to_others(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("x")
    victim.chmod(0o644)
    (tmp_path / "t.lock").symlink_to(victim)

    with pytest.raises(FileProblem, match="symbolic link"):
        close_to_others(tmp_path / "t.lock")

    assert stat.S_IMODE(victim.stat().st_mode) == 0o644
