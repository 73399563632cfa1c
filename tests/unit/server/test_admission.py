"""Slots are bounded over all and for each caller; waiting is bounded in time and number."""

import asyncio

import pytest

from micromegas_jupyter.errors import ResourcesExhausted
from micromegas_jupyter.server.admission import Admission

ALICE = ("https://id.example", "alice")
BOB = ("https://id.example", "bob")


def test_a_query_waits_for_its_turn() -> None:
    async def scenario() -> list[str]:
        admission = Admission(max_queries=1, max_per_caller=1, wait_seconds=10)
        order: list[str] = []
        is_inside = asyncio.Event()

        async def second() -> None:
            await is_inside.wait()
            async with admission.slot(BOB):
                order.append("second in")

        waiting = asyncio.create_task(second())
        async with admission.slot(ALICE):
            is_inside.set()
            await asyncio.sleep(0)
            order.append("first out")
        await waiting
        assert admission.running_count == 0
        return order

    assert asyncio.run(scenario()) == ["first out", "second in"]


def test_a_query_that_waits_too_long_is_refused() -> None:
    async def scenario() -> None:
        admission = Admission(max_queries=1, max_per_caller=1, wait_seconds=0.01)
        async with admission.slot(ALICE):
            with pytest.raises(ResourcesExhausted):
                async with admission.slot(BOB):
                    pass
        async with admission.slot(BOB):
            assert admission.running_count == 1

    asyncio.run(scenario())


def test_one_caller_cannot_take_every_slot() -> None:
    async def scenario() -> None:
        admission = Admission(max_queries=2, max_per_caller=1, wait_seconds=0.01)
        async with admission.slot(ALICE):
            with pytest.raises(ResourcesExhausted):
                async with admission.slot(ALICE):
                    pass
            async with admission.slot(BOB):
                assert admission.running_count == 2

    asyncio.run(scenario())


def test_a_waiting_caller_without_slots_does_not_hold_up_the_next() -> None:
    async def scenario() -> str:
        admission = Admission(max_queries=2, max_per_caller=1, wait_seconds=10)
        entered: asyncio.Queue[str] = asyncio.Queue()

        async def hold(caller: tuple[str, str], name: str, leave: asyncio.Event) -> None:
            async with admission.slot(caller):
                entered.put_nowait(name)
                await leave.wait()

        leave_first, leave_rest = asyncio.Event(), asyncio.Event()
        tasks = [
            asyncio.create_task(hold(ALICE, "alice 1", leave_rest)),
            asyncio.create_task(hold(BOB, "bob 1", leave_first)),
        ]
        assert {await entered.get(), await entered.get()} == {"alice 1", "bob 1"}
        tasks += [
            asyncio.create_task(hold(ALICE, "alice 2", leave_rest)),
            asyncio.create_task(hold(BOB, "bob 2", leave_rest)),
        ]
        await asyncio.sleep(0)
        leave_first.set()
        next_in = await entered.get()
        leave_rest.set()
        await asyncio.gather(*tasks)
        assert admission.running_count == 0
        return next_in

    assert asyncio.run(scenario()) == "bob 2"


def test_the_queue_is_bounded() -> None:
    async def scenario() -> None:
        admission = Admission(max_queries=1, max_per_caller=1, wait_seconds=10)

        async def take() -> None:
            async with admission.slot(BOB):
                pass

        async with admission.slot(ALICE):
            waiting = [asyncio.create_task(take()) for _ in range(4)]
            await asyncio.sleep(0)
            with pytest.raises(ResourcesExhausted):
                async with asyncio.timeout(1), admission.slot(BOB):
                    pass
        await asyncio.gather(*waiting)

    asyncio.run(scenario())


def test_a_cancelled_wait_loses_no_slot_even_in_the_moment_of_its_turn() -> None:
    async def scenario() -> int:
        admission = Admission(max_queries=1, max_per_caller=1, wait_seconds=10)

        async def take() -> None:
            async with admission.slot(BOB):
                pass

        async with admission.slot(ALICE):
            early, late = asyncio.create_task(take()), asyncio.create_task(take())
            await asyncio.sleep(0)
            early.cancel()
        late.cancel()  # its turn has come, and it has not run since
        await asyncio.gather(early, late, return_exceptions=True)
        return admission.running_count

    assert asyncio.run(scenario()) == 0
