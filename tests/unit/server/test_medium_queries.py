"""Medium queries wait for each other; they keep neither small ones nor heavy ones waiting."""

import asyncio

import pytest

from micromegas_jupyter.errors import ResourcesExhausted
from micromegas_jupyter.server import admission as module
from tests.unit.server.test_admission import ALICE, BOB, _admission, _until


def test_medium_queries_wait_for_each_other_and_for_nobody_else() -> None:
    async def scenario() -> None:
        admission = _admission(8, 8)

        async def run_medium() -> None:
            async with admission.turn(ALICE) as turn:
                await turn.become_medium()
                await asyncio.Event().wait()

        tasks = [asyncio.create_task(run_medium()) for _ in range(3)]
        await _until(lambda: (admission.medium_count, admission.waiting_medium_count) == (1, 2))

        async with admission.turn(BOB) as small, admission.turn(BOB) as heavy:
            small.become_small()
            await heavy.become_heavy()
            assert (admission.small_count, admission.heavy_count) == (1, 1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (admission.small_count, admission.medium_count, admission.waiting_medium_count) == (0, 0, 0)

    asyncio.run(scenario())


def test_a_medium_query_that_works_for_long_makes_room_and_counts_as_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONG_SECONDS", 0.01)

    async def scenario() -> None:
        admission = _admission(4, 4)
        async with admission.turn(ALICE) as first, admission.turn(BOB) as second:
            await first.become_medium()
            await second.become_medium()  # comes back when the first one has made room
            await _until(lambda: (admission.medium_count, admission.heavy_count) == (0, 2))
        assert (admission.medium_count, admission.heavy_count, admission.small_count) == (0, 0, 0)

    asyncio.run(scenario())


def test_a_small_query_that_works_for_a_while_keeps_medium_ones_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEDIUM_SECONDS", 0.01)
    monkeypatch.setattr(module, "LONG_SECONDS", 3600.0)

    async def scenario() -> None:
        admission = _admission(4, 4, wait_seconds=0.01)
        async with admission.turn(ALICE) as turn:
            turn.become_small()
            await _until(lambda: admission.medium_count == 1)
            async with admission.turn(BOB) as other:
                with pytest.raises(ResourcesExhausted) as caught:
                    await other.become_medium()
        assert caught.value.limit == "queue"
        assert (admission.small_count, admission.medium_count) == (0, 0)

    asyncio.run(scenario())
