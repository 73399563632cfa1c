"""Few clients are waited for at once, and those who are silent make room for others."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.errors import DeadlineExceeded, ResourcesExhausted
from micromegas_jupyter.flightsql.framing import ParameterLimits
from micromegas_jupyter.server import message_waits
from micromegas_jupyter.server.message_waits import MessageWaits

if TYPE_CHECKING:
    from collections.abc import Coroutine

ALICE = ("https://id.example", "alice")
BOB = ("https://id.example", "bob")
LIMITS = ParameterLimits()


async def _never() -> bytes | None:
    await asyncio.Event().wait()
    return None


async def _at_once() -> bytes | None:
    return b"message"


async def _with_others(
    silent: list[Coroutine[object, object, object]], own: Coroutine[object, object, object]
) -> object:
    """Return what `own` returns, begun after the others have begun to wait."""
    tasks = [asyncio.create_task(one) for one in silent]
    await asyncio.sleep(0)
    try:
        return await own
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)


def test_a_message_that_does_not_come_ends_its_call() -> None:
    with pytest.raises(DeadlineExceeded, match="did not come in time") as caught:
        asyncio.run(MessageWaits(silent_seconds=0.01).message(_never, ALICE))

    assert caught.value.limit == "silent_client"


def test_clients_of_one_caller_that_are_silent_keep_no_other_caller_waiting() -> None:
    async def scenario() -> object:
        waits = MessageWaits()
        return await _with_others(
            [waits.message(_never, ALICE) for _ in range(100)], asyncio.wait_for(waits.message(_at_once, BOB), 30)
        )

    assert asyncio.run(scenario()) == b"message"


@pytest.mark.parametrize("callers", [1, 40])
def test_clients_that_are_silent_make_room_when_others_come(monkeypatch: pytest.MonkeyPatch, callers: int) -> None:
    monkeypatch.setattr(message_waits, "_SURE_SECONDS", 0.01)

    async def scenario() -> object:
        waits = MessageWaits()
        silent = [waits.message(_never, ("https://id.example", str(number % callers))) for number in range(40)]
        return await _with_others(silent, asyncio.wait_for(waits.message(_at_once, ("https://id.example", "0")), 30))

    assert asyncio.run(scenario()) == b"message"


def test_a_message_of_more_than_a_mebibyte_is_refused() -> None:
    async def large() -> bytes | None:
        return bytes(1024 * 1024 + 1)

    with pytest.raises(ResourcesExhausted, match="1 MiB"):
        asyncio.run(MessageWaits().message(large, ALICE))


def test_values_that_never_end_are_not_waited_for_beyond_a_time_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_waits, "_VALUES_SECONDS", 0.05)

    async def trickle() -> bytes | None:
        await asyncio.sleep(0.01)
        return b"frame"

    with pytest.raises(DeadlineExceeded):
        asyncio.run(MessageWaits().values(b"first", trickle, ALICE, limits=ParameterLimits(max_messages=10**9)))


def test_values_whose_sender_falls_silent_are_not_waited_for() -> None:
    with pytest.raises(DeadlineExceeded):
        asyncio.run(MessageWaits(silent_seconds=0.01).values(b"first", _never, ALICE, limits=LIMITS))


def test_values_over_the_limit_are_refused_as_they_come() -> None:
    with pytest.raises(ResourcesExhausted, match="larger"):
        asyncio.run(MessageWaits().values(b"first", _at_once, ALICE, limits=ParameterLimits(max_messages=3)))


def test_the_time_of_something_else_is_not_taken_for_a_silent_client() -> None:
    async def late() -> bytes | None:
        raise TimeoutError

    for waiting in (MessageWaits().message(late, ALICE), MessageWaits().values(b"", late, ALICE, limits=LIMITS)):
        with pytest.raises(TimeoutError):
            asyncio.run(waiting)  # type: ignore[arg-type]


def test_what_refused_clients_still_send_is_not_waited_for_in_many_calls() -> None:
    async def scenario() -> object:
        waits = MessageWaits()
        return await _with_others(
            [waits.rest(_never, ALICE) for _ in range(8)], asyncio.wait_for(waits.rest(_never, ALICE), 30)
        )

    assert asyncio.run(scenario()) is None
