"""`micromegas logout` as a person runs it; nothing listens at the provider's address."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.cli.main import run

if TYPE_CHECKING:
    from pathlib import Path

ISSUER = "http://127.0.0.1:1"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MICROMEGAS_CONFIG_DIR", str(tmp_path))
    return tmp_path


def keep(path: Path) -> None:
    token = {"access_token": "very-secret", "refresh_token": "very-secret-too"}
    path.write_text(json.dumps({"issuer": ISSUER, "client_id": "notebook", "token": token}))


@pytest.mark.usefixtures("folder")
def test_it_is_no_failure_when_nobody_was_signed_in(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["logout"]) == 0

    assert capsys.readouterr().out == "Nobody was signed in.\n"


def test_a_sign_in_ends_here_and_one_line_says_that_the_provider_was_out_of_reach(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(folder / "tokens.json")

    assert run(["logout"]) == 0

    out = capsys.readouterr().out
    assert re.match(
        r"Signed out of 127\.0\.0\.1:\d+: 1 file removed\. 127\.0\.0\.1:\d+ could not be reached to revoke everything "
        r"\(the connection was refused\): you are signed out here, but the refresh token is still valid there\.",
        out,
    )
    assert out.count("\n") == 1
    assert "very-secret" not in out
    assert not (folder / "tokens.json").exists()


def test_only_the_profile_that_is_named_ends(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"profiles": {"work": {}, "home": {}}}))
    keep(folder / "tokens-work.json")
    keep(folder / "tokens-home.json")

    assert run(["logout", "--profile", "work"]) == 0

    assert sorted(path.name for path in folder.glob("tokens-*.json")) == ["tokens-home.json"]


@pytest.mark.parametrize("name", ["..", "a/b", "none"])
def test_a_profile_that_does_not_exist_is_a_usage_error(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "config.json").write_text(json.dumps({"profiles": {"work": {}}}))

    assert run(["logout", "--profile", name]) == 2
    assert capsys.readouterr().out == ""


def test_a_sign_in_that_cannot_be_removed_is_a_failure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "tokens.json").mkdir()

    assert run(["logout"]) != 0

    assert "tokens.json" in capsys.readouterr().err
