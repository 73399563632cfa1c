from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.workloads.platforms import TokenFileSource
from micromegas_jupyter.errors import ConfigurationError, LoginFailed
from tests.fakes.mint import mint

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.clock import FakeClock


def source(path: Path, clock: FakeClock, audience: str | None = None) -> TokenFileSource:
    return TokenFileSource(path, audience=audience, setting="workload.token_file", name="kubernetes", clock=clock)


def test_the_file_is_read_each_time(tmp_path: Path, clock: FakeClock) -> None:
    file = tmp_path / "token"
    reader = source(file, clock)
    file.write_text(mint(subject="first") + "\n")
    first = reader.fetch()
    file.write_text(mint(subject="second"))

    second = reader.fetch()

    assert first.text != second.text
    assert reader.is_read_each_time


def test_a_file_as_the_kubelet_lays_it_out_is_followed(tmp_path: Path, clock: FakeClock) -> None:
    token = mint()
    (tmp_path / "..2026_11_24").mkdir()
    (tmp_path / "..2026_11_24" / "token").write_text(token)
    (tmp_path / "..data").symlink_to("..2026_11_24")
    (tmp_path / "token").symlink_to("..data/token")

    assert source(tmp_path / "token", clock).fetch().text.reveal() == token


def test_a_token_that_has_ended_is_a_failed_login(tmp_path: Path, clock: FakeClock) -> None:
    file = tmp_path / "token"
    file.write_text(mint(expires_in=60))
    clock.advance(60)

    with pytest.raises(LoginFailed, match="has ended") as caught:
        source(file, clock).fetch()

    assert "renews the file" in caught.value.remedy


def test_a_token_for_another_audience_is_a_failed_login(tmp_path: Path, clock: FakeClock) -> None:
    file = tmp_path / "token"
    file.write_text(mint(audience="https://kubernetes.default.svc"))

    with pytest.raises(LoginFailed, match="a different audience"):
        source(file, clock, audience="lake").fetch()


@pytest.mark.parametrize("content", [b"", b"opaque", b"a.b.c", b"\xff\xfe", mint(without=["exp"]).encode()])
def test_a_file_without_a_jwt_that_ends_is_a_failed_login(tmp_path: Path, clock: FakeClock, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)

    with pytest.raises(LoginFailed, match=r"workload\.token_file"):
        source(file, clock).fetch()


def test_a_missing_file_is_told_by_the_name_of_its_setting(tmp_path: Path, clock: FakeClock) -> None:
    with pytest.raises(ConfigurationError, match="does not exist") as caught:
        source(tmp_path / "token", clock).fetch()

    assert caught.value.key == "workload.token_file"
    assert str(tmp_path) not in str(caught.value)


def test_a_pipe_or_a_folder_is_no_token_file_and_holds_nobody_up(tmp_path: Path, clock: FakeClock) -> None:
    os.mkfifo(tmp_path / "pipe")

    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ConfigurationError, match="is not a regular file"):
            source(path, clock).fetch()


def test_a_huge_file_is_not_read(tmp_path: Path, clock: FakeClock) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"x" * 70_000)

    with pytest.raises(ConfigurationError, match="too large"):
        source(file, clock).fetch()
