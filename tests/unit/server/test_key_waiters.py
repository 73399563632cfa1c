"""Calls wait for keys on the event loop."""

import asyncio
from concurrent.futures import Future

import pytest

from micromegas_jupyter.oidc.keys import KeySet
from micromegas_jupyter.server import authentication
from micromegas_jupyter.server.authentication import Authenticator

KEYS = KeySet(keys=(), ignored_count=0)


def _authenticator() -> Authenticator:
    return Authenticator(None, check_seconds=10)


def test_all_who_wait_go_on_when_the_keys_are_here() -> None:
    async def wait() -> list[bool]:
        waiters, fetch = _authenticator(), Future[KeySet | None]()
        waiting = [asyncio.create_task(waiters._wait_for_keys(fetch)) for _ in range(100)]
        await asyncio.sleep(0)
        await asyncio.to_thread(fetch.set_result, KEYS)
        return await asyncio.gather(*waiting)

    assert asyncio.run(wait()) == [True] * 100


def test_a_fetch_that_brings_nothing_ends_the_wait_too() -> None:
    async def wait() -> bool:
        waiters, fetch = _authenticator(), Future[KeySet | None]()
        waiting = asyncio.create_task(waiters._wait_for_keys(fetch))
        await asyncio.sleep(0)
        fetch.set_result(None)
        return await waiting

    assert asyncio.run(wait()) is False


def test_a_fetch_that_has_ended_is_not_waited_for() -> None:
    fetch = Future[KeySet | None]()
    fetch.set_result(KEYS)

    assert asyncio.run(_authenticator()._wait_for_keys(fetch)) is True


def test_too_many_who_wait_get_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "_BRIEF_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(authentication, "_MAX_PATIENT_WAITERS", 2)

    async def wait() -> tuple[bool, list[bool]]:
        waiters, fetch = _authenticator(), Future[KeySet | None]()
        patient = [asyncio.create_task(waiters._wait_for_keys(fetch)) for _ in range(2)]
        await asyncio.sleep(0)
        hasty = await waiters._wait_for_keys(fetch)
        fetch.set_result(KEYS)
        return hasty, await asyncio.gather(*patient)

    assert asyncio.run(wait()) == (False, [True, True])


def test_who_leaves_makes_room_and_ends_nobody_elses_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "_BRIEF_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(authentication, "_MAX_PATIENT_WAITERS", 1)

    async def wait() -> bool:
        waiters, fetch = _authenticator(), Future[KeySet | None]()
        leaving = asyncio.create_task(waiters._wait_for_keys(fetch))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        patient = asyncio.create_task(waiters._wait_for_keys(fetch))
        await asyncio.wait([patient], timeout=0.1)
        fetch.set_result(KEYS)
        return await patient

    assert asyncio.run(wait()) is True


def test_a_fetch_may_end_after_the_loop_has_been_closed() -> None:
    fetch = Future[KeySet | None]()

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_authenticator()._wait_for_keys(fetch), 0.01)

    asyncio.run(leave())

    fetch.set_result(KEYS)
    assert fetch.result(0) is KEYS
