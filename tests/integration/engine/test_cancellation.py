"""A query that nobody waits for any more stops working."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.engine import DataFusionEngine, EngineSettings, StatementRequest
from tests.fakes.fixed_tables import CALLER, FixedTables, write_log_entries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

WAIT_SECONDS = 60
# What two seconds of all processors are.
LONGEST_COMPUTING_SECONDS = 2.0 * (os.cpu_count() or 1)
ENDLESS = "generate_series(1, 100000000000000)"
SHAPES = {
    "scan": f"SELECT count(*) FROM {ENDLESS} WHERE value % 7 = 8",
    "aggregate": f"SELECT max(value * 2) FROM {ENDLESS}",
    "groups": f"SELECT value % 1000 AS k, sum(value) FROM {ENDLESS} GROUP BY k",
    "latest": f"SELECT value FROM {ENDLESS} ORDER BY value % 1000 DESC LIMIT 10",
    "window": f"SELECT count(*) FROM (SELECT sum(value) OVER (ORDER BY value) AS s FROM {ENDLESS}) WHERE s < 0",
    "recursion": "WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r) SELECT count(*) FROM r",
    "join": f"SELECT count(*) FROM {ENDLESS} AS e JOIN log_entries AS l ON l.level = e.value % 100000",
}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[DataFusionEngine]:
    engine = DataFusionEngine(FixedTables([write_log_entries(tmp_path, 2)]), EngineSettings(planning_threads=1))
    yield engine
    engine.close()


def busy_share() -> float:
    """Return the share of one processor that this process takes during a tenth of a second."""
    before, began = time.process_time(), time.monotonic()
    threading.Event().wait(0.1)
    return (time.process_time() - before) / (time.monotonic() - began)


async def wait_until_at_work() -> None:
    """Wait until the process has computed something, however busy the machine is."""
    deadline, enough = time.monotonic() + WAIT_SECONDS, time.process_time() + 0.3
    while time.process_time() < enough:
        assert time.monotonic() < deadline, "the query never began"
        await asyncio.sleep(0.02)


async def computed_until_at_rest() -> float:
    """Wait until the process is at rest, and return for how many seconds it computed before."""
    deadline, began = time.monotonic() + WAIT_SECONDS, time.process_time()
    while await asyncio.to_thread(busy_share) > 0.2:
        assert time.monotonic() < deadline, "the query never ended"
    return time.process_time() - began


async def drain(engine: DataFusionEngine, sql: str) -> None:
    planned = await engine.plan(StatementRequest(sql=sql), CALLER)
    async for _ in planned.batches():
        pass


@pytest.mark.parametrize("shape", SHAPES)
def test_cancelling_the_task_stops_the_work_within_two_seconds(engine: DataFusionEngine, shape: str) -> None:
    async def scenario() -> float:
        task = asyncio.create_task(drain(engine, SHAPES[shape]))
        await wait_until_at_work()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        return await computed_until_at_rest()

    assert asyncio.run(scenario()) < LONGEST_COMPUTING_SECONDS


def test_a_deadline_stops_the_work(engine: DataFusionEngine) -> None:
    async def scenario() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await drain(engine, SHAPES["aggregate"])
        return await computed_until_at_rest()

    assert asyncio.run(scenario()) < LONGEST_COMPUTING_SECONDS


def test_closing_the_batches_stops_the_work(engine: DataFusionEngine) -> None:
    async def scenario() -> float:
        endless = await engine.plan(StatementRequest(sql=f"SELECT value FROM {ENDLESS}"), CALLER)
        batches = endless.batches()
        async for batch in batches:
            assert batch.num_rows > 0
            break
        await batches.aclose()
        return await computed_until_at_rest()

    assert asyncio.run(scenario()) < LONGEST_COMPUTING_SECONDS
