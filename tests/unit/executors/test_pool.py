"""Executors are lent to who can use them best, replaced when they are worn, and no more are kept than are allowed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.errors import ResourcesExhausted, ServerUnavailable
from tests.fakes.clock import FakeClock
from tests.fakes.fixed_tables import FixedTables, write_log_entries
from tests.fakes.servers import HUGE, NUMBERS, WAITING
from tests.fakes.waiting import until
from tests.unit.executors.bench import Bench, opened_bench

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COUNT = "SELECT count(*) AS n FROM log_entries"


@pytest.fixture
def tables(tmp_path: Path) -> FixedTables:
    return FixedTables([write_log_entries(tmp_path, 1)])


@pytest.fixture
def bench(tables: FixedTables) -> Iterator[Bench]:
    with opened_bench(tables, spare_executors=2) as opened:
        opened.do(opened.settle())
        yield opened


def test_a_plan_is_run_where_it_is_kept_and_other_statements_run_elsewhere(bench: Bench) -> None:
    async def scenario() -> tuple[int, int, int, int]:
        keeping = await bench.plan(COUNT)
        again = await bench.plan(COUNT)
        other = await bench.run(NUMBERS)
        found = await bench.run(COUNT)
        assert found.rows.to_pylist() == [{"n": 4}]
        return keeping, again, other.pid, found.pid

    keeping, again, other, found = bench.do(scenario())

    assert again == 0
    assert found == keeping
    assert other != keeping


def test_a_plan_of_tables_that_have_changed_is_not_run(bench: Bench, tables: FixedTables, tmp_path: Path) -> None:
    async def scenario() -> list[dict[str, int]]:
        await bench.plan(COUNT)
        tables.tables = [write_log_entries(tmp_path, 3)]
        return (await bench.run(COUNT)).rows.to_pylist()

    assert bench.do(scenario()) == [{"n": 12}]


def test_a_plan_is_kept_for_a_moment(tables: FixedTables) -> None:
    async def scenario(bench: Bench, clock: FakeClock) -> tuple[int, int]:
        bench.pool.clock = clock
        first = await bench.plan(COUNT)
        clock.advance(60)
        return first, await bench.plan(COUNT)

    with opened_bench(tables) as bench:
        first, second = bench.do(scenario(bench, FakeClock()))

    assert first
    assert second


def test_an_executor_with_much_memory_is_replaced(bench: Bench) -> None:
    async def scenario() -> tuple[int, set[int]]:
        found = await bench.run("SELECT octet_length(repeat('x', 150000000)) AS n")
        assert found.rows.to_pylist() == [{"n": 150_000_000}]
        await bench.settle()
        return found.pid, set(bench.pool._executors)

    pid, left = bench.do(scenario())

    assert pid not in left


def test_an_executor_runs_one_statement_after_the_other(bench: Bench) -> None:
    async def scenario() -> list[int]:
        return [(await bench.run(NUMBERS)).pid for _ in range(5)]

    assert len(set(bench.do(scenario()))) == 1


def test_no_more_idle_ones_are_kept_than_are_allowed() -> None:
    async def scenario(bench: Bench) -> int:
        await asyncio.gather(*(bench.run(NUMBERS) for _ in range(6)))
        await bench.settle()
        return bench.pool.idle_count

    with opened_bench(max_idle_executors=3, spare_executors=1) as bench:
        assert bench.do(scenario(bench)) <= 3


def test_no_more_statements_run_than_are_allowed() -> None:
    async def scenario(bench: Bench) -> tuple[int, int]:
        tasks = [asyncio.ensure_future(bench.run(WAITING)) for _ in range(5)]
        await until(lambda: len(bench.pool.running) == 3, "three run")
        await until(lambda: bench.pool.slots.waiting_count == 2, "two wait")
        found = len(bench.pool.running), bench.pool.executor_count
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return found

    with opened_bench(max_executors=3, max_uploads=1, spare_executors=1) as bench:
        running, executors = bench.do(scenario(bench))

    assert running == 3
    assert executors <= 5


def test_a_statement_that_ends_its_executor_is_followed_by_one_that_works(bench: Bench) -> None:
    async def scenario() -> int:
        for _ in range(5):
            with pytest.raises(ResourcesExhausted):
                await bench.run(HUGE)
        return (await bench.run(NUMBERS)).rows.num_rows

    assert bench.do(scenario()) == 3


def test_a_pool_closes_while_its_zygote_is_started_again() -> None:
    async def scenario(bench: Bench) -> None:
        running = asyncio.ensure_future(bench.run(WAITING))
        await until(lambda: bool(bench.pool.running), "it runs")
        bench.pool._launcher._zygote.kill()  # type: ignore[union-attr]
        with pytest.raises(ServerUnavailable):
            await running

    with opened_bench(lasts=False) as bench:
        bench.do(scenario(bench))
