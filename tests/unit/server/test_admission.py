"""Slots are bounded over all and for each caller; waiting is bounded in time and number."""

import asyncio
from collections.abc import Callable

import pytest

from micromegas_jupyter.errors import ResourcesExhausted
from micromegas_jupyter.server import admission as module
from micromegas_jupyter.server.admission import Admission, AdmissionLimits

ALICE = ("https://id.example", "alice")
BOB = ("https://id.example", "bob")
CAROL = ("https://id.example", "carol")


def _admission(max_queries: int, max_per_caller: int, *, max_heavy: int = 1, wait_seconds: float = 10) -> Admission:
    return Admission(
        AdmissionLimits(
            max_queries=max_queries,
            max_per_caller=max_per_caller,
            max_heavy=max_heavy,
            max_medium=1,
            wait_seconds=wait_seconds,
        )
    )


def test_a_query_waits_for_its_turn() -> None:
    async def scenario() -> list[str]:
        admission = _admission(1, 1, wait_seconds=10)
        order: list[str] = []
        is_inside = asyncio.Event()

        async def second() -> None:
            await is_inside.wait()
            async with admission.turn(BOB):
                order.append("second in")

        waiting = asyncio.create_task(second())
        async with admission.turn(ALICE):
            is_inside.set()
            await asyncio.sleep(0)
            order.append("first out")
        await waiting
        assert admission.small_count == 0
        return order

    assert asyncio.run(scenario()) == ["first out", "second in"]


def test_a_query_that_waits_too_long_is_refused() -> None:
    async def scenario() -> None:
        admission = _admission(1, 1, wait_seconds=0.01)
        async with admission.turn(ALICE):
            with pytest.raises(ResourcesExhausted):
                async with admission.turn(BOB):
                    pass
        async with admission.turn(BOB):
            assert admission.small_count == 1

    asyncio.run(scenario())


def test_one_caller_cannot_take_every_slot() -> None:
    async def scenario() -> None:
        admission = _admission(2, 1, wait_seconds=0.01)
        async with admission.turn(ALICE):
            with pytest.raises(ResourcesExhausted):
                async with admission.turn(ALICE):
                    pass
            async with admission.turn(BOB):
                assert admission.small_count == 2

    asyncio.run(scenario())


def test_a_waiting_caller_without_slots_does_not_hold_up_the_next() -> None:
    async def scenario() -> str:
        admission = _admission(2, 1, wait_seconds=10)
        entered: asyncio.Queue[str] = asyncio.Queue()

        async def hold(caller: tuple[str, str], name: str, leave: asyncio.Event) -> None:
            async with admission.turn(caller):
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
        assert admission.small_count == 0
        return next_in

    assert asyncio.run(scenario()) == "bob 2"


def test_the_queue_is_bounded() -> None:
    async def scenario() -> None:
        admission = _admission(1, 1, wait_seconds=10)

        async def take() -> None:
            async with admission.turn(BOB):
                pass

        async with admission.turn(ALICE):
            waiting = [asyncio.create_task(take()) for _ in range(4)]
            await asyncio.sleep(0)
            with pytest.raises(ResourcesExhausted):
                async with asyncio.timeout(1), admission.turn(BOB):
                    pass
        await asyncio.gather(*waiting)

    asyncio.run(scenario())


def test_a_cancelled_wait_loses_no_slot_even_in_the_moment_of_its_turn() -> None:
    async def scenario() -> int:
        admission = _admission(1, 1, wait_seconds=10)

        async def take() -> None:
            async with admission.turn(BOB):
                pass

        async with admission.turn(ALICE):
            early, late = asyncio.create_task(take()), asyncio.create_task(take())
            await asyncio.sleep(0)
            early.cancel()
        late.cancel()  # its turn has come, and it has not run since
        await asyncio.gather(early, late, return_exceptions=True)
        return admission.small_count

    assert asyncio.run(scenario()) == 0


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - a count has no event
            await asyncio.sleep(0.001)


def test_a_small_query_does_not_wait_for_heavy_ones() -> None:
    async def scenario() -> None:
        admission = _admission(1, 1)

        async def run_heavy() -> None:
            async with admission.turn(ALICE) as turn:
                await turn.become_heavy()
                await asyncio.Event().wait()

        heavy = [asyncio.create_task(run_heavy()) for _ in range(3)]
        await _until(lambda: (admission.heavy_count, admission.waiting_heavy_count) == (1, 1))

        async with admission.turn(BOB) as turn:
            turn.become_small()
            assert (admission.small_count, admission.heavy_count) == (1, 1)
        for task in heavy:
            task.cancel()
        await asyncio.gather(*heavy, return_exceptions=True)
        assert (admission.small_count, admission.heavy_count, admission.waiting_heavy_count) == (0, 0, 0)

    asyncio.run(scenario())


def test_heavy_turns_go_round_the_callers_that_wait() -> None:
    async def scenario() -> list[str]:
        admission = _admission(16, 16)
        order: list[str] = []
        leave = asyncio.Event()

        async def run_heavy(caller: tuple[str, str]) -> None:
            async with admission.turn(caller) as turn:
                await turn.become_heavy()
                order.append(caller[1])
                await leave.wait()

        tasks = []
        for number, caller in enumerate([ALICE, ALICE, ALICE, ALICE, BOB, CAROL, BOB], start=1):
            tasks.append(asyncio.create_task(run_heavy(caller)))
            await _until(lambda number=number: admission.heavy_count + admission.waiting_heavy_count == number)
        leave.set()
        await asyncio.gather(*tasks)
        return order

    assert asyncio.run(scenario()) == ["alice", "alice", "bob", "carol", "alice", "bob", "alice"]


def test_one_caller_cannot_fill_the_queue_for_heavy_turns() -> None:
    async def scenario() -> str | None:
        admission = _admission(4, 2)

        async def run_heavy() -> None:
            async with admission.turn(ALICE) as turn:
                await turn.become_heavy()
                await asyncio.Event().wait()

        tasks = [asyncio.create_task(run_heavy()) for _ in range(3)]
        await _until(lambda: admission.waiting_heavy_count == 2)
        async with admission.turn(ALICE) as turn:
            with pytest.raises(ResourcesExhausted) as caught:
                await turn.become_heavy()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return caught.value.limit

    assert asyncio.run(scenario()) == "heavy_queue"


def test_a_small_query_that_works_for_long_keeps_heavy_ones_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONG_SECONDS", 0.01)

    async def scenario() -> None:
        admission = _admission(4, 4, wait_seconds=0.01)
        async with admission.turn(ALICE) as turn:
            turn.become_small()
            await _until(lambda: admission.heavy_count == 1)
            async with admission.turn(BOB) as other:
                with pytest.raises(ResourcesExhausted):
                    await other.become_heavy()
        assert (admission.small_count, admission.heavy_count) == (0, 0)

    asyncio.run(scenario())


def test_a_heavy_query_whose_client_takes_nothing_lets_others_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONG_SECONDS", 0.01)

    async def scenario() -> None:
        admission = _admission(4, 4)
        async with admission.turn(ALICE) as stalled:
            await stalled.become_heavy()
            with stalled.idle():
                async with admission.turn(BOB) as other:
                    await other.become_heavy()
                    assert admission.heavy_count == 1
                    await asyncio.sleep(0)
            assert admission.heavy_count == 1
        assert (admission.small_count, admission.heavy_count) == (0, 0)

    asyncio.run(scenario())


def test_a_short_wait_for_the_client_changes_nothing() -> None:
    async def scenario() -> None:
        admission = _admission(4, 4)
        async with admission.turn(ALICE) as turn:
            await turn.become_heavy()
            with turn.idle():
                assert admission.heavy_count == 1
            assert admission.heavy_count == 1

    asyncio.run(scenario())


def test_a_caller_who_fills_the_line_gives_places_to_others() -> None:
    async def scenario() -> tuple[list[str], list[str]]:
        admission = _admission(1, 1, wait_seconds=30)  # four may wait
        done: list[str] = []
        told: list[str] = []

        async def query(caller: tuple[str, str], name: str) -> None:
            try:
                async with admission.turn(caller):
                    done.append(name)
            except ResourcesExhausted as error:
                told.append(f"{name}: {error.what}")

        tasks = []
        async with admission.turn(CAROL):
            for caller, names in ((ALICE, "a1 a2 a3 a4 a5"), (BOB, "b1 b2 b3")):
                for name in names.split():
                    tasks.append(asyncio.create_task(query(caller, name)))
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert admission.waiting_count == 4
        await asyncio.gather(*tasks)
        assert (admission.waiting_count, admission.small_count) == (0, 0)
        return done, told

    done, told = asyncio.run(scenario())

    gave_way = "Most of the queries that wait are yours, and this one gave its place to another caller's."
    full = "The server runs as many queries as it may, for you or in all."
    assert done == ["a1", "b1", "a2", "b2"]
    assert sorted(told) == [f"a3: {gave_way}", f"a4: {gave_way}", f"a5: {full}", f"b3: {full}"]
