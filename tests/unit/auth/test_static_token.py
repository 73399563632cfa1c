from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth import AuthProvider, StaticTokenAuthProvider
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_token_is_given_without_the_white_space_around_it() -> None:
    provider = StaticTokenAuthProvider("  sesame\n")

    assert provider.get_token() == "sesame"
    assert isinstance(provider, AuthProvider)


def test_a_secret_is_taken_as_it_is() -> None:
    assert StaticTokenAuthProvider(Secret("sesame")).get_token() == "sesame"


@pytest.mark.parametrize("token", ["", "  ", "two words", "new\nline", "é", "\x00"])
def test_anything_but_one_word_of_ascii_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        StaticTokenAuthProvider(token)

    assert str(caught.value).startswith("The token is not one word")


def test_a_variable_that_is_not_set_is_refused_with_what_to_look_at() -> None:
    with pytest.raises(ConfigurationError, match="NoneType, not a string") as caught:
        StaticTokenAuthProvider(None)  # type: ignore[arg-type]

    assert "is the variable" in str(caught.value.remedy)


def test_a_token_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("sesame\n")

    assert StaticTokenAuthProvider.from_file(path).get_token() == "sesame"


def test_a_file_that_others_can_read_is_taken_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "key"
    path.write_text("sesame")
    path.chmod(0o644)

    assert StaticTokenAuthProvider.from_file(path).get_token() == "sesame"
    assert len(caplog.records) == 1
    assert "chmod 600" in caplog.text
    assert "sesame" not in caplog.text


def test_a_file_that_is_closed_to_others_needs_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "key"
    path.write_text("sesame")
    path.chmod(0o600)

    StaticTokenAuthProvider.from_file(path)

    assert caplog.records == []


def test_a_file_that_others_can_change_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("sesame")
    path.chmod(0o666)

    with pytest.raises(ConfigurationError, match="can be changed by everybody"):
        StaticTokenAuthProvider.from_file(path)


def test_a_file_under_home_is_found(home: Path) -> None:
    (home / "key").write_text("sesame")

    assert StaticTokenAuthProvider.from_file("~/key").get_token() == "sesame"


def test_a_file_that_is_missing_a_folder_huge_or_binary_is_refused(tmp_path: Path) -> None:
    (tmp_path / "huge").write_bytes(b"a" * 300_000)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")

    for name in ("missing", ".", "huge", "binary"):
        with pytest.raises(ConfigurationError):
            StaticTokenAuthProvider.from_file(tmp_path / name)


def test_the_token_is_neither_shown_nor_pickled() -> None:
    provider = StaticTokenAuthProvider("sesame")

    assert repr(provider) == "StaticTokenAuthProvider(***)"
    with pytest.raises(TypeError):
        pickle.dumps(provider)
