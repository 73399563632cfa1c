"""A call that is interrupted wherever it waits leaves nothing behind: no place, no executor, no file."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.errors import QueryCancelled, ResourcesExhausted
from micromegas_jupyter.executors.pool import ClientGone, RunningStatement
from micromegas_jupyter.executors.protocol import Output, Statement, Upload
from micromegas_jupyter.executors.scheduling import Cause, RunningLimit
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.server.settings import IngestSettings
from tests.fakes.fixed_tables import CALLER, FixedTables, encode_stream, write_log_entries
from tests.fakes.servers import HUGE, NUMBERS, build_pool
from tests.fakes.waiting import until
from tests.unit.executors.interruption import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from micromegas_jupyter.executors.launcher import Executor
    from micromegas_jupyter.executors.pool import Pool

ANN, BOB = ("none", "ann"), ("none", "bob")
SETTINGS = IngestSettings()


class StoppedStatement(RunningStatement):
    """One whose executor is stopped while it is asked something, so that the call has to wait for the answer."""

    async def request(self, kind: bytes, body: bytes) -> None:
        self.signal(signal.SIGSTOP)
        await super().request(kind, body)

    def signal(self, number: int) -> None:
        if self.executor is not None:
            self.executor.process.signal(number)


class Scene:
    """One call on a pool, made anew for each interruption."""

    waits_in: frozenset[str] = frozenset({"read"})
    fails_with: type[Exception] | None = None
    sql = f"{NUMBERS} WHERE n > 0"

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.loop = asyncio.get_running_loop()
        self.running = StoppedStatement(pool, ANN)
        self.held_places = 0
        self.held: list[Executor] = []

    async def prepare(self) -> None:
        """Bring about what the call has to wait for."""

    async def call(self) -> None:
        async with self.running:
            await self.running.run(self.statement, output=Output(), write=self.write)

    async def write(self, _frame: bytes) -> None:
        """Take a frame, as a client that is not always ready for it."""
        taken: asyncio.Future[None] = self.loop.create_future()
        self.loop.call_soon(_finish, taken)
        await taken

    def on_wait(self, place: tuple[str, ...]) -> None:
        """Let that happen for which the call waits."""
        self.loop.call_soon(self.running.signal, signal.SIGCONT)

    def clean_up(self, _place: tuple[str, ...]) -> None:
        """Give back what `prepare` took, after the call has ended or was interrupted in a place."""
        while self.held_places:
            self.held_places -= 1
            self.pool.slots.release(ANN)
        while self.held:
            self.pool.release(self.held.pop(), private_bytes=0)

    @property
    def statement(self) -> Statement:
        return Statement(sql=self.sql, caller=CALLER)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Running(Scene):
    """A statement that reads a table, so that the tables are listed first."""

    waits_in = frozenset({"refresh", "read", "write"})
    sql = "SELECT msg FROM log_entries"


class WaitingForPlace(Scene):
    """A statement of a caller whose other ones run."""

    waits_in = frozenset({"acquire", "read"})

    async def prepare(self) -> None:
        for _ in range(self.pool.settings.max_per_caller):
            await self.pool.slots.acquire(ANN)
            self.held_places += 1

    def on_wait(self, place: tuple[str, ...]) -> None:
        super().on_wait(place)
        if "acquire" in place:
            self.held_places -= 1
            self.loop.call_soon(self.pool.slots.release, ANN)


class WaitingForExecutor(Scene):
    """A statement while every executor is busy."""

    waits_in = frozenset({"take", "read"})

    async def prepare(self) -> None:
        self.pool._refill = lambda: None  # type: ignore[method-assign]  # none is started meanwhile
        self.held = [await self.pool.take() for _ in range(self.pool.idle_count)]

    def clean_up(self, place: tuple[str, ...]) -> None:
        del self.pool._refill  # type: ignore[method-assign]
        super().clean_up(place)
        self.pool._refill()

    def on_wait(self, place: tuple[str, ...]) -> None:
        super().on_wait(place)
        if "take" in place and self.held:
            executor = self.held.pop()
            self.loop.call_soon(lambda: self.pool.release(executor, private_bytes=0))


class Crashing(Scene):
    """A statement that ends its executor."""

    fails_with = ResourcesExhausted
    sql = HUGE


class Leaving(Scene):
    """A statement whose client leaves while its rows come."""

    waits_in = frozenset({"read", "await_end"})
    fails_with = ClientGone

    async def write(self, _frame: bytes) -> None:
        raise ClientGone


class Uploading(Scene):
    """Rows that are sent into a table, by a client that is slow to send them."""

    waits_in = frozenset({"begin_upload", "send_rows", "commit_upload", "write"})
    _numbers = count()

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self.table = f"notes{next(self._numbers)}"
        self.limit = RunningLimit(max_running=1, max_per_caller=1, queue_timeout_seconds=60)
        self.running = StoppedStatement(pool, ANN, slots=self.limit)

    async def call(self) -> None:
        upload = Upload(
            request=WriteRequest(table=self.table, mode=WriteMode.CREATE),
            decoding=SETTINGS.decode_limits(),
            row_count=None,
            max_rows=SETTINGS.max_rows,
            max_bytes=SETTINGS.max_bytes,
            max_row_bytes=SETTINGS.max_row_bytes,
        )
        async with self.running:
            await self.running.begin_upload(upload)
            for frame in encode_stream(pa.table({"n": [1, 2, 3]})):
                await self.write(frame)
                await self.running.send_rows(frame)
            assert await self.running.commit_upload() == 3

    def clean_up(self, place: tuple[str, ...]) -> None:
        assert self.limit.running_count == 0
        root = Path(self.pool.options.lake or "")
        if "await_end" not in place:
            assert list(root.rglob("*.tmp")) == []
        tables = Lake(root).snapshot()
        files = [file for table in tables if table.name == self.table for file in table.files]
        stored = sum(pq.read_metadata(file).num_rows for file in files)
        assert stored in ({0, 3} if "commit_upload" in place else {0} if place else {3})


@dataclass
class Mode:
    """How a call is interrupted."""

    interrupt: Callable[[Scene, asyncio.Task[object]], object]
    is_late: bool
    error: type[BaseException]


MODES = {
    "cancelled": Mode(lambda _scene, task: task.cancel(), False, asyncio.CancelledError),
    "cancelled when the wait is over": Mode(lambda _scene, task: task.cancel(), True, asyncio.CancelledError),
    "ended by another call": Mode(lambda scene, _task: scene.running.end(Cause.CANCELLED), False, QueryCancelled),
}


@dataclass
class Bench:
    """A pool on an event loop of its own."""

    runner: asyncio.Runner
    pool: Pool


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("tables")
    (lake := folder / "lake").mkdir(mode=0o700)
    with asyncio.Runner() as runner:
        tables = FixedTables([write_log_entries(folder, 1)])
        pool = build_pool(tables, worker={"lake": str(lake)}, max_per_caller=2, max_ended_per_caller=0)
        runner.run(pool.open())
        yield Bench(runner, pool)
        runner.run(pool.close())


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("kind", Scene.__subclasses__(), ids=lambda kind: kind.__name__)
def test_a_call_that_is_interrupted_anywhere_leaves_the_pool_as_it_was(
    bench: Bench, kind: type[Scene], mode: Mode
) -> None:
    places = bench.runner.run(_interrupt_everywhere(bench.pool, kind, mode))

    assert kind.waits_in <= {name for place in places for name in place}


async def _interrupt_everywhere(pool: Pool, kind: type[Scene], mode: Mode) -> list[tuple[str, ...]]:
    """Run a scene again and again, each time interrupted one wait later, until it comes to its end."""
    places: list[tuple[str, ...]] = []
    for at in count(1):
        scene = kind(pool)
        await scene.prepare()
        place, error = await _interrupt(scene, mode, at)
        scene.clean_up(place)
        await _check_that_nothing_is_left(pool)
        if not place:
            assert type(error) is (kind.fails_with or type(None))
            break
        # What has ended when it is told to end has its own outcome.
        assert isinstance(error, mode.error | (kind.fails_with or mode.error)), place
        places.append(place)
    return places


async def _interrupt(scene: Scene, mode: Mode, at: int) -> tuple[tuple[str, ...], BaseException | None]:
    interrupted = Interrupted(
        scene.call(),
        at=at,
        interrupt=lambda: mode.interrupt(scene, task),
        is_late=mode.is_late,
        on_wait=scene.on_wait,
    )

    async def call() -> None:
        await interrupted

    task = asyncio.create_task(call())
    await asyncio.wait({task})
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    return interrupted.place, error


async def _check_that_nothing_is_left(pool: Pool) -> None:
    assert (pool.slots.running_count, pool.slots.waiting_count, pool.running) == (0, 0, set())
    await until(
        lambda: pool.idle_count == pool.executor_count >= pool.settings.spare_executors, "every executor is idle"
    )
    frames: list[bytes] = []

    async def write(frame: bytes) -> None:
        frames.append(frame)

    async with RunningStatement(pool, BOB) as running:
        statement = Statement(sql=NUMBERS, caller=CALLER)
        await running.run(statement, output=Output(), write=write)
    assert (len(frames), running.report.rows, running.report.cause) == (2, 3, None)
