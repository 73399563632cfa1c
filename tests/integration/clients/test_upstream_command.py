"""Upstream's unmodified `micromegas-query` against this server."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import micromegas.cli.query
import pyarrow as pa
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.integration


@pytest.fixture
def query(upstream_profile: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run the command's own `main` with a profile that names this server and an API key."""

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["micromegas-query", "--profile", upstream_profile, *arguments])
        micromegas.cli.query.main()

    return run


def test_it_prints_a_table(query: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    query("SELECT id, word FROM wide WHERE id = 1", "--all")

    assert capsys.readouterr().out.splitlines()[2].split() == ["1", "naïve", "日本語", "\U0001f600"]


def test_it_sends_its_range(query: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    times = ("--begin", "2026-11-24T12:00:00Z", "--end", "2026-11-24T12:00:01Z")

    query("SELECT count(*) AS n FROM measures", *times, "--format", "csv")

    assert capsys.readouterr().out.split() == ["n", "2"]


def test_it_ends_with_what_the_server_says_is_wrong(query: Callable[..., None]) -> None:
    with pytest.raises(pa.ArrowInvalid, match=r"no column named nope.*SQL001"):
        query("SELECT nope FROM many", "--all")
