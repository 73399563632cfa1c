from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.static import read_api_key_file
from micromegas_jupyter.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def write_key(path: Path, *, mode: int = 0o600) -> Path:
    path.write_text("sesame\n")
    path.chmod(mode)
    return path


@pytest.mark.parametrize(("mode", "is_readable"), [(0o600, False), (0o400, False), (0o644, True), (0o604, True)])
def test_the_key_comes_with_whether_others_can_read_it(tmp_path: Path, mode: int, is_readable: bool) -> None:
    file = read_api_key_file(write_key(tmp_path / "key", mode=mode))

    assert (file.name, file.text.reveal(), file.is_readable_by_others) == ("key", "sesame\n", is_readable)


def test_reading_changes_no_mode(tmp_path: Path) -> None:
    path = write_key(tmp_path / "key", mode=0o644)

    read_api_key_file(path)

    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("mode", [0o602, 0o666, 0o777])
def test_a_file_that_everybody_can_change_is_refused_with_what_to_do(tmp_path: Path, mode: int) -> None:
    path = write_key(tmp_path / "key", mode=mode)

    with pytest.raises(ConfigurationError, match="can be changed by everybody") as caught:
        read_api_key_file(path)

    assert caught.value.key == "api_key_file"
    assert "chmod 600" in caught.value.remedy
    assert "sesame" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_link_is_followed_and_what_it_leads_to_is_what_counts(tmp_path: Path) -> None:
    target = write_key(tmp_path / "target")
    link = tmp_path / "key"
    link.symlink_to(target)

    assert read_api_key_file(link).text.reveal() == "sesame\n"
    target.chmod(0o666)
    with pytest.raises(ConfigurationError, match="can be changed"):
        read_api_key_file(link)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, make: object) -> None:
    make(tmp_path / "key")  # type: ignore[operator]

    with pytest.raises(ConfigurationError, match="is not a regular file"):
        read_api_key_file(tmp_path / "key")


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="The API key file key does not exist"):
        read_api_key_file(tmp_path / "key")


def test_the_key_is_not_shown(tmp_path: Path) -> None:
    assert "sesame" not in repr(read_api_key_file(write_key(tmp_path / "key")))
