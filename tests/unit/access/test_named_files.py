"""Tests of `access.named_files`."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.access.jwks import mark_of_named_file, read_named_file

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_at_the_cap_is_read_and_one_beyond_it_is_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)

    assert read_named_file(str(path), 10) == b"x" * 10
    with pytest.raises(OSError, match="too large"):
        read_named_file(str(path), 9)


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "link").symlink_to("file")

    assert read_named_file(str(tmp_path / "link"), 10) == b"text"


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(OSError, match="not an ordinary file"):
        read_named_file(str(tmp_path / "pipe"), 10)


def test_a_file_that_everybody_may_change_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"text")
    path.chmod(0o666)

    with pytest.raises(PermissionError, match="Every user"):
        read_named_file(str(path), 10)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory"):
        read_named_file(str(tmp_path), 10)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        read_named_file(str(tmp_path / "missing"), 10)

    assert caught.value.errno == errno.ENOENT


def test_a_file_has_one_mark_until_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    first = mark_of_named_file(str(path))

    assert first is not None
    assert mark_of_named_file(str(path)) == first
    (tmp_path / "new").write_bytes(b"two")
    (tmp_path / "new").replace(path)
    assert mark_of_named_file(str(path)) != first


@pytest.mark.parametrize("name", ["missing", "a\0b"])
def test_what_cannot_be_looked_at_has_no_mark(tmp_path: Path, name: str) -> None:
    assert mark_of_named_file(f"{tmp_path}/{name}") is None
