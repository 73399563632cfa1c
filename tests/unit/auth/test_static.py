"""API keys and other tokens that somebody else looks after."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth import AuthProvider, StaticTokenAuthProvider
from micromegas_jupyter.auth.static import read_api_key_file
from micromegas_jupyter.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def write_key(path: Path, *, mode: int = 0o600) -> Path:
    path.write_text("sesame\n")
    path.chmod(mode)
    return path


@pytest.mark.parametrize(("mode", "is_readable"), [(0o600, False), (0o400, False), (0o644, True), (0o604, True)])
def test_the_key_comes_with_whether_others_can_read_it(tmp_path, mode, is_readable):
    file = read_api_key_file(write_key(tmp_path / "key", mode=mode))

    assert (file.name, file.text.reveal(), file.is_readable_by_others) == ("key", "sesame\n", is_readable)


def test_a_link_is_followed_and_what_it_leads_to_is_what_counts(tmp_path):
    target = write_key(tmp_path / "target")
    link = tmp_path / "key"
    link.symlink_to(target)

    assert read_api_key_file(link).text.reveal() == "sesame\n"
    target.chmod(0o666)
    with pytest.raises(ConfigurationError, match="can be changed"):
        read_api_key_file(link)


def test_a_token_is_given_without_the_white_space_around_it():
    provider = StaticTokenAuthProvider("  sesame\n")

    assert provider.get_token() == "sesame"
    assert isinstance(provider, AuthProvider)


@pytest.mark.parametrize("token", ["", "  ", "two words", "new\nline", "é", "\x00"])
def test_anything_but_one_word_of_ascii_is_refused_without_being_shown(token):
    with pytest.raises(ConfigurationError) as caught:
        StaticTokenAuthProvider(token)

    assert str(caught.value).startswith("The token is not one word")


def test_a_token_comes_from_a_file(tmp_path):
    path = tmp_path / "key"
    path.write_text("sesame\n")

    assert StaticTokenAuthProvider.from_file(path).get_token() == "sesame"


def test_a_file_that_others_can_read_is_taken_with_one_warning(tmp_path, caplog):
    path = tmp_path / "key"
    path.write_text("sesame")
    path.chmod(0o644)

    assert StaticTokenAuthProvider.from_file(path).get_token() == "sesame"
    assert len(caplog.records) == 1
    assert "chmod 600" in caplog.text
    assert "sesame" not in caplog.text


def test_a_file_that_others_can_change_is_refused(tmp_path):
    path = tmp_path / "key"
    path.write_text("sesame")
    path.chmod(0o666)

    with pytest.raises(ConfigurationError, match="can be changed by everybody"):
        StaticTokenAuthProvider.from_file(path)


def test_a_file_that_is_missing_a_folder_huge_or_binary_is_refused(tmp_path):
    (tmp_path / "huge").write_bytes(b"a" * 300_000)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")

    for name in ("missing", ".", "huge", "binary"):
        with pytest.raises(ConfigurationError):
            StaticTokenAuthProvider.from_file(tmp_path / name)
