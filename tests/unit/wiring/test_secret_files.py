from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from micromegas_jupyter.core.files import find_exposure
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.wiring.credentials import read_secret_file, read_secret_line

ME = 1000
ROOT = 0


def found(mode: int, owner: int) -> os.stat_result:
    return os.stat_result((stat.S_IFREG | mode, 1, 1, 1, owner, owner, 10, 0, 0, 0))


def write(path: Path, content: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_that_only_its_owner_reads_is_read(tmp_path: Path, mode: int) -> None:
    file = write(tmp_path / "secret", "s3same\n", mode)

    assert read_secret_file(file, setting="client_secret_file") == Secret("s3same\n")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o666, 0o611])
def test_a_file_that_others_can_reach_is_refused_with_the_remedy_and_left_as_it_is(tmp_path: Path, mode: int) -> None:
    file = write(tmp_path / "secret", "s3same", mode)

    with pytest.raises(ConfigurationError, match="by others") as caught:
        read_secret_file(file, setting="client_secret_file")

    assert "chmod 600" in caught.value.remedy
    assert caught.value.key == "client_secret_file"
    assert stat.S_IMODE(file.stat().st_mode) == mode
    assert "s3same" not in str(caught.value)


def test_a_link_to_a_closed_file_is_followed(tmp_path: Path) -> None:
    write(tmp_path / "secret", "s3same")
    (tmp_path / "link").symlink_to("secret")

    assert read_secret_line(tmp_path / "link", setting="client_secret_file") == Secret("s3same")


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "secret", "s3same")

    assert read_secret_line(Path("~/secret"), setting="client_secret_file") == Secret("s3same")


def test_a_file_system_that_says_nothing_of_itself_counts_as_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_path: object) -> os.statvfs_result:
        raise OSError

    monkeypatch.setattr(os, "statvfs", unknown)
    file = write(tmp_path / "secret", "s3same")

    assert read_secret_file(file, setting="client_secret_file") == Secret("s3same")
    file.chmod(0o644)
    with pytest.raises(ConfigurationError):
        read_secret_file(file, setting="client_secret_file")


def test_a_missing_file_is_told_by_its_setting_not_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="client_secret_file names does not exist") as caught:
        read_secret_file(tmp_path / "secret", setting="client_secret_file")

    assert str(tmp_path) not in str(caught.value)


def test_a_pipe_and_a_folder_are_refused_and_hold_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)

    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ConfigurationError, match="is not a regular file"):
            read_secret_file(path, setting="client_secret_file")


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "secret", b"x" * 70_000)

    with pytest.raises(ConfigurationError, match="too large"):
        read_secret_file(file, setting="client_secret_file")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "secret", b"\xff\xfe")

    with pytest.raises(ConfigurationError, match="is not UTF-8 text"):
        read_secret_file(file, setting="client_secret_file")


@pytest.mark.parametrize("content", ["s3same", "s3same\n", "  s3same \r\n", "\ns3same\n"])
def test_white_space_around_a_secret_is_dropped(tmp_path: Path, content: str) -> None:
    assert read_secret_line(write(tmp_path / "secret", content), setting="client_secret_file") == Secret("s3same")


@pytest.mark.parametrize("content", ["", " \n", "one\ntwo", "one\x00two"])
def test_a_file_without_one_line_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    with pytest.raises(ConfigurationError, match="does not hold one line") as caught:
        read_secret_line(write(tmp_path / "secret", content), setting="client_secret_file")

    assert "two" not in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "owner", "is_mounted_read_only", "expected"),
    [
        (0o600, ME, False, None),
        (0o400, ME, False, None),
        (0o440, ME, False, "can be read by others"),
        (0o444, ME, True, "can be read by others"),
        (0o620, ME, False, "can be changed by others"),
        (0o600, 1001, False, "belongs to another user"),
        (0o444, 1001, True, "belongs to another user"),
        (0o440, ROOT, False, None),
        (0o640, ROOT, False, None),
        (0o660, ROOT, False, "can be changed by others"),
        (0o644, ROOT, False, "can be read by others"),
        (0o644, ROOT, True, None),
        (0o444, ROOT, True, None),
        (0o440, ROOT, True, None),
    ],
)
def test_who_may_reach_a_secret(mode: int, owner: int, is_mounted_read_only: bool, expected: str | None) -> None:
    assert find_exposure(found(mode, owner), user_id=ME, is_mounted_read_only=is_mounted_read_only) == expected


def test_a_file_of_root_is_its_own_for_a_program_that_runs_as_root() -> None:
    assert find_exposure(found(0o640, ROOT), user_id=ROOT, is_mounted_read_only=False) == "can be read by others"
    assert find_exposure(found(0o644, ROOT), user_id=ROOT, is_mounted_read_only=True) is None
