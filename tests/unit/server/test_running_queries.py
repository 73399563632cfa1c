"""A running query ends when its caller says so by another call, wherever it runs."""

import asyncio
import contextlib

import pytest

from micromegas_jupyter.errors import QueryCancelled, ServerUnavailable, Unavailable
from micromegas_jupyter.server.running_queries import CancelStatus, RunningQueries, join_statuses, query_key

ALICE = ("https://id.example", "alice")
KEY = query_key(ALICE, b"ticket")


async def _wait(running: RunningQueries, started: asyncio.Event, key: bytes = KEY) -> str:
    try:
        with running.running(key):
            started.set()
            await asyncio.Event().wait()
    except QueryCancelled:
        return "cancelled"
    return "ended"


def test_a_query_is_cancelled_by_its_key_and_has_ended_then() -> None:
    async def scenario() -> tuple[CancelStatus, bool, str, CancelStatus]:
        running, started = RunningQueries(), asyncio.Event()
        task = asyncio.create_task(_wait(running, started))
        await started.wait()
        status = await running.cancel(KEY)
        await asyncio.sleep(0)
        return status, task.done(), await task, await running.cancel(KEY)

    assert asyncio.run(scenario()) == (CancelStatus.CANCELLED, True, "cancelled", CancelStatus.NOT_CANCELLABLE)


def test_all_queries_with_the_key_are_cancelled_and_no_other() -> None:
    async def scenario() -> tuple[list[str], bool]:
        running, events = RunningQueries(), [asyncio.Event() for _ in range(3)]
        tasks = [asyncio.create_task(_wait(running, started)) for started in events[:2]]
        other = asyncio.create_task(_wait(running, events[2], query_key(("https://id.example", "bob"), b"ticket")))
        for started in events:
            await started.wait()
        await running.cancel(KEY)
        ended = list(await asyncio.gather(*tasks))
        is_other_running = not other.done()
        other.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await other
        return ended, is_other_running

    assert asyncio.run(scenario()) == (["cancelled", "cancelled"], True)


def test_a_query_that_does_not_end_is_told_as_cancelling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("micromegas_jupyter.server.running_queries._END_SECONDS", 0.01)

    async def scenario() -> tuple[list[CancelStatus], str]:
        running, started, may_end = RunningQueries(), asyncio.Event(), asyncio.Event()

        async def stubborn() -> str:
            try:
                with running.running(KEY):
                    started.set()
                    try:
                        await asyncio.Event().wait()
                    finally:
                        await may_end.wait()
            except QueryCancelled:
                return "cancelled"
            return "ended"

        task = asyncio.create_task(stubborn())
        await started.wait()
        statuses = [await running.cancel(KEY), await running.cancel(KEY)]
        may_end.set()
        return statuses, await task

    assert asyncio.run(scenario()) == ([CancelStatus.CANCELLING, CancelStatus.CANCELLING], "cancelled")


def test_a_call_that_ends_otherwise_is_no_cancelled_query() -> None:
    async def scenario() -> None:
        running = RunningQueries()
        with pytest.raises(TimeoutError), running.running(KEY):
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        with pytest.raises(ValueError, match="other"), running.running(KEY):
            raise ValueError("other")
        started = asyncio.Event()
        task = asyncio.create_task(_wait(running, started))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await running.cancel(KEY) is CancelStatus.NOT_CANCELLABLE

    asyncio.run(scenario())


@pytest.mark.parametrize("told", list(CancelStatus))
def test_the_other_processes_are_asked(told: CancelStatus) -> None:
    asked: list[bytes] = []

    async def elsewhere(key: bytes) -> CancelStatus:
        asked.append(key)
        return told

    assert asyncio.run(RunningQueries(elsewhere).cancel(KEY)) is told
    assert asked == [KEY]


def test_when_the_other_processes_cannot_be_asked_the_caller_may_ask_again(caplog: pytest.LogCaptureFixture) -> None:
    async def elsewhere(_key: bytes) -> CancelStatus:
        raise ConnectionError("gone")

    with pytest.raises(ServerUnavailable, match="could not be found out") as caught:
        asyncio.run(RunningQueries(elsewhere).cancel(KEY))

    assert caught.value.retryable
    assert "could not be asked" in caplog.text


def test_a_query_that_ended_here_is_told_as_cancelling_while_nobody_knows_of_the_others() -> None:
    async def elsewhere(_key: bytes) -> CancelStatus:
        raise Unavailable("No answer.")

    async def scenario() -> CancelStatus:
        running, started = RunningQueries(elsewhere), asyncio.Event()
        task = asyncio.create_task(_wait(running, started))
        await started.wait()
        status = await running.cancel(KEY)
        await task
        return status

    assert asyncio.run(scenario()) is CancelStatus.CANCELLING


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], CancelStatus.NOT_CANCELLABLE),
        ([CancelStatus.NOT_CANCELLABLE, CancelStatus.CANCELLED], CancelStatus.CANCELLED),
        ([CancelStatus.CANCELLED, CancelStatus.CANCELLING], CancelStatus.CANCELLING),
    ],
)
def test_several_cancellations_have_one_status(found: list[CancelStatus], expected: CancelStatus) -> None:
    assert join_statuses(found) is expected


def test_a_key_does_not_run_its_parts_together() -> None:
    keys = {
        query_key(("a", "b"), b"c"),
        query_key(("ab", ""), b"c"),
        query_key(("a", ""), b"bc"),
        query_key(ALICE, b""),
    }

    assert len(keys) == 4
