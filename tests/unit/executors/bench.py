"""A real pool for the tests of a module, and statements on it."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from micromegas_jupyter.executors.pool import RunningStatement, StatementReport, plan_statement, run_statement
from micromegas_jupyter.executors.protocol import Output, Statement
from tests.fakes.fixed_tables import CALLER
from tests.fakes.servers import build_pool
from tests.fakes.waiting import until
from tests.integration.flight_harness import decode_rows

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    import pyarrow as pa

    from micromegas_jupyter.core.protocols import AuthContext, TableSource
    from micromegas_jupyter.executors.pool import Pool


@dataclass
class Run:
    """A statement that has run: its rows, what it took and the id of the process that ran it."""

    pid: int = 0
    frames: list[bytes] = field(default_factory=list)
    report: StatementReport = field(default_factory=StatementReport)

    @property
    def rows(self) -> pa.Table:
        return decode_rows(self.frames)


@dataclass
class Bench:
    """A pool and the event loop that it belongs to."""

    runner: asyncio.Runner
    pool: Pool

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    async def run(self, sql: str, caller: AuthContext = CALLER, **more: Any) -> Run:
        """Run a statement to its end."""
        found = Run()
        running = RunningStatement(self.pool, (caller.issuer, caller.subject))

        async def write(frame: bytes) -> None:
            found.frames.append(frame)

        def note_start() -> None:
            assert running.executor is not None
            found.pid = running.executor.process.pid

        statement = Statement(sql=sql, caller=caller, **more)
        async with running:
            await run_statement(self.pool, statement, running, output=Output(), write=write, on_running=note_start)
        found.report = running.report
        return found

    async def plan(self, sql: str, caller: AuthContext = CALLER) -> int:
        """Plan a statement; return the id of the process that keeps the plan, 0 where one did already."""
        async with RunningStatement(self.pool, (caller.issuer, caller.subject)) as running:
            await plan_statement(self.pool, Statement(sql=sql, caller=caller), running)
            return 0 if running.executor is None else running.executor.process.pid

    async def settle(self) -> None:
        """Wait until every executor is idle."""
        settings = self.pool.settings
        await until(
            lambda: self.pool.idle_count == self.pool.executor_count >= settings.spare_executors, "all are idle"
        )


@contextmanager
def opened_bench(tables: TableSource | None = None, **settings: Any) -> Iterator[Bench]:
    """Open a pool; `settings` are fields of `PoolSettings`, and `worker` those of `WorkerOptions`."""
    with asyncio.Runner() as runner:
        pool = build_pool(tables, **settings)
        runner.run(pool.open())
        try:
            yield Bench(runner, pool)
        finally:
            runner.run(pool.close())
