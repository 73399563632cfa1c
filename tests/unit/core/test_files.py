"""Tests of `private_files`; how it serves the token file is tested with `auth`."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.core.files import (
    FileProblem,
    FileTooLarge,
    NoSuchFile,
    mark_of,
    read_private_file,
    read_shared_file,
    write_private_file,
)

if TYPE_CHECKING:
    from pathlib import Path

READERS = [read_private_file, read_shared_file]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


@pytest.mark.parametrize("read", READERS)
def test_a_file_as_large_as_the_limit_is_read_and_one_byte_more_is_not(path: Path, read: object) -> None:
    assert read(path, max_bytes=7)[0] == b"content"  # type: ignore[operator]
    with pytest.raises(FileTooLarge):
        read(path, max_bytes=6)  # type: ignore[operator]


@pytest.mark.parametrize("read", READERS)
def test_a_missing_file_is_told_from_one_that_cannot_be_used(path: Path, read: object) -> None:
    with pytest.raises(NoSuchFile):
        read(path.with_name("missing"))  # type: ignore[operator]
    with pytest.raises(FileProblem) as caught:
        read(path.parent)  # type: ignore[operator]
    assert not isinstance(caught.value, NoSuchFile)


@pytest.mark.parametrize("read", READERS)
def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path, read: object) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(FileProblem, match="regular"):
        read(tmp_path / "pipe")  # type: ignore[operator]


def test_a_shared_file_may_be_a_link_and_stays_as_open_as_it_is(path: Path) -> None:
    path.chmod(0o644)
    link = path.with_name("link")
    link.symlink_to(path)

    content, found = read_shared_file(link)

    assert content == b"content"
    assert stat.S_IMODE(found.st_mode) == stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_private_file_may_not_be_a_link(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)

    with pytest.raises(FileProblem, match=r"^is a symbolic link$"):
        read_private_file(link)
    with pytest.raises(FileProblem, match=r"^is a symbolic link$"):
        write_private_file(link, b"new")


def test_a_shared_file_whose_links_lead_nowhere_cannot_be_opened(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(link)

    with pytest.raises(FileProblem, match="cannot be opened"):
        read_shared_file(link)


def test_a_mark_is_that_of_the_link_or_of_what_it_points_to(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)

    assert mark_of(link, follows_links=True) == mark_of(path)
    assert mark_of(link) != mark_of(path)
    assert mark_of(path.with_name("missing"), follows_links=True) is None


def test_problems_name_neither_file_nor_folder(path: Path) -> None:
    problems = []
    for use in (lambda: read_private_file(path.parent), lambda: write_private_file(path.parent, b"")):
        with pytest.raises(FileProblem) as caught:
            use()
        problems.append(str(caught.value))

    assert str(path.parent) not in str(problems)


def test_a_private_file_is_closed_to_others_unless_the_reader_leaves_it(path: Path) -> None:
    path.chmod(0o640)

    read_private_file(path, closes=False)
    left = stat.S_IMODE(path.stat().st_mode)
    read_private_file(path)

    assert (left, stat.S_IMODE(path.stat().st_mode)) == (0o640, 0o600)


@pytest.mark.parametrize(("keeps_rights", "expected"), [(True, 0o640), (False, 0o600)])
def test_a_file_that_is_replaced_keeps_its_mode_only_when_that_is_asked_for(
    path: Path, keeps_rights: bool, expected: int
) -> None:
    path.chmod(0o640)

    write_private_file(path, b"new", keeps_rights=keeps_rights)

    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", expected)


def test_a_new_file_is_private_also_when_rights_are_kept(tmp_path: Path) -> None:
    write_private_file(tmp_path / "new", b"new", keeps_rights=True)

    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to another group")
def test_a_file_that_is_replaced_keeps_its_group(path: Path) -> None:
    os.chown(path, -1, 12345)

    write_private_file(path, b"new", keeps_rights=True)

    assert (path.stat().st_uid, path.stat().st_gid) == (0, 12345)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to another group")
def test_where_a_group_cannot_be_kept_nothing_is_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    os.chown(path, -1, 12345)
    monkeypatch.setattr(os, "fchown", refuse)

    with pytest.raises(FileProblem, match="group"):
        write_private_file(path, b"new", keeps_rights=True)
    assert [each.name for each in path.parent.iterdir()] == ["file"]
    assert path.read_bytes() == b"content"
