"""A caller stops their statements with another call, by a key that nobody else can name."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from micromegas_jupyter.executors.reports import Cause
from micromegas_jupyter.server.queries import CancelStatus, RunningQueries, query_key

if TYPE_CHECKING:
    import pytest

ALICE = ("https://id.example", "alice")
KEY = query_key(ALICE, b"ticket")


class Statement:
    """As much of a `RunningStatement` as stopping it needs; `is_stubborn` ones do not end."""

    def __init__(self, *, is_stubborn: bool = False) -> None:
        self.has_ended = asyncio.Event()
        self.causes: list[Cause] = []
        self._is_stubborn = is_stubborn

    def end(self, cause: Cause) -> None:
        self.causes.append(cause)
        if not self._is_stubborn:
            self.has_ended.set()


def test_all_statements_with_the_key_are_ended_and_no_other() -> None:
    running, mine, other = RunningQueries(), [Statement(), Statement()], Statement()

    async def scenario() -> tuple[CancelStatus, CancelStatus]:
        with (
            running.listed(KEY, mine[0]),  # type: ignore[arg-type]
            running.listed(KEY, mine[1]),  # type: ignore[arg-type]
            running.listed(query_key(("https://id.example", "bob"), b"ticket"), other),  # type: ignore[arg-type]
        ):
            status = await running.cancel([KEY])
        return status, await running.cancel([KEY])

    assert asyncio.run(scenario()) == (CancelStatus.CANCELLED, CancelStatus.NOT_CANCELLABLE)
    assert [one.causes for one in (*mine, other)] == [[Cause.CANCELLED], [Cause.CANCELLED], []]


def test_a_statement_that_does_not_end_in_time_is_told_as_cancelling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("micromegas_jupyter.server.queries._CANCEL_SECONDS", 0.01)
    running, stubborn = RunningQueries(), Statement(is_stubborn=True)

    async def scenario() -> CancelStatus:
        with running.listed(KEY, stubborn):  # type: ignore[arg-type]
            return await running.cancel([KEY])

    assert asyncio.run(scenario()) is CancelStatus.CANCELLING


def test_several_keys_have_one_status() -> None:
    running, mine = RunningQueries(), Statement()

    async def scenario() -> CancelStatus:
        with running.listed(KEY, mine):  # type: ignore[arg-type]
            return await running.cancel([KEY, query_key(ALICE, b"other")])

    assert asyncio.run(scenario()) is CancelStatus.CANCELLED


def test_a_key_does_not_run_its_parts_together() -> None:
    keys = {query_key(caller, name) for caller, name in [(("a", "b"), b"c"), (("ab", ""), b"c"), (("a", ""), b"bc")]}

    assert len(keys) == 3
