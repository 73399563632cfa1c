"""Tests of `access.issuer_files`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.access.config import check_issuer_files, warn_of_issuer_files
from micromegas_jupyter.config.access import IssuerSetting
from micromegas_jupyter.errors import ConfigurationError
from tests.fakes.mint import ISSUER, ec_key

if TYPE_CHECKING:
    from pathlib import Path

PLACE = "FILE.issuers[0]"
GOOD = json.dumps({"keys": [ec_key().jwk()]})


def setting(**members: str) -> IssuerSetting:
    return IssuerSetting(issuer=ISSUER, place=PLACE, **members)  # type: ignore[arg-type]


def refusal(**members: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        check_issuer_files([setting(**members)])
    return caught.value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text(GOOD)
    return path


def test_files_that_are_there_are_fine(path: Path) -> None:
    check_issuer_files([setting(jwks_file=str(path), ca_file=str(path), bearer_token_file=str(path)), setting()])


@pytest.mark.parametrize("member", ["jwks_file", "ca_file"])
@pytest.mark.parametrize("name", ["missing", "a\0b"])
def test_a_missing_file_is_refused_by_the_setting_and_not_by_its_path(tmp_path: Path, member: str, name: str) -> None:
    error = refusal(**{member: f"{tmp_path}/{name}"})

    assert error.key == f"{PLACE}.{member}"
    assert str(tmp_path) not in str(error)


def test_a_token_may_come_later(tmp_path: Path) -> None:
    check_issuer_files([setting(bearer_token_file=str(tmp_path / "missing"))])


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"[", "JSON"), (b"\xff", "JSON"), (b"[]", "key set"), (b"x" * 1_000_001, "too large")],
)
def test_a_key_file_that_holds_no_keys_is_refused(path: Path, content: bytes, problem: str) -> None:
    path.write_bytes(content)

    error = refusal(jwks_file=str(path))

    assert (error.key, problem in error.what) == (f"{PLACE}.jwks_file", True)


@pytest.mark.parametrize("member", ["jwks_file", "ca_file", "bearer_token_file"])
def test_a_file_that_everybody_may_change_is_refused(path: Path, member: str) -> None:
    path.chmod(0o666)

    assert "every user" in refusal(**{member: str(path)}).what


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file away")
@pytest.mark.parametrize(
    ("member", "is_refused"), [("jwks_file", True), ("ca_file", True), ("bearer_token_file", False)]
)
def test_a_file_of_another_user_is_refused_unless_it_holds_a_token(path: Path, member: str, is_refused: bool) -> None:
    os.chown(path, 12345, -1)

    if is_refused:
        assert "another user" in refusal(**{member: str(path)}).what
    else:
        check_issuer_files([setting(**{member: str(path)})])


def test_files_that_their_group_may_change_are_told_once_each(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.chmod(0o660)

    warn_of_issuer_files([setting(ca_file=str(path), bearer_token_file="/missing"), setting(ca_file=str(path))])

    assert [vars(record)["setting"] for record in caplog.records] == [f"{PLACE}.ca_file"]
