"""A call that is interrupted wherever it waits leaves nothing behind: no place, no executor, no file."""

import asyncio
import os
import signal
from contextlib import suppress
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import QueryCancelled, ResourcesExhausted
from micromegas_jupyter.executors.ingest import IngestCall, IngestProcess
from micromegas_jupyter.executors.pool import ClientGone, RunningStatement
from micromegas_jupyter.executors.protocol import Output, Statement, Upload
from micromegas_jupyter.executors.scheduling import Cause, RunningLimit
from micromegas_jupyter.executors.settings import IngestSettings
from micromegas_jupyter.lake.lake import Lake
from tests.fakes.fixed_tables import CALLER, FixedTables, encode_stream, write_log_entries
from tests.fakes.servers import HUGE, NUMBERS, build_pool
from tests.fakes.waiting import until

ANN, BOB = ("none", "ann"), ("none", "bob")
_MOST_SWEEPS = 5


class Interrupted:
    """Awaits a coroutine, and calls `interrupt` when it waits for the `at`-th time, or when that wait is over.

    `place` has the names of the functions that waited then, the outermost first; empty when it was not interrupted.
    """

    def __init__(self, work, *, at, interrupt, is_late, on_wait):
        self._work, self._at, self._interrupt, self._is_late, self._on_wait = work, at, interrupt, is_late, on_wait
        self.place = ()

    def __await__(self):
        error = None
        for waits in count(1):
            try:
                waited_for = self._work.send(None) if error is None else self._work.throw(error)
            except StopIteration as end:
                return end.value
            place = _find_place(self._work)
            if waits == self._at:
                self.place = place
                if self._is_late and asyncio.isfuture(waited_for):
                    # Before the task's own callback, which is added when this generator yields.
                    waited_for.add_done_callback(lambda _: self._interrupt())
                else:
                    self._interrupt()
            self._on_wait(place)
            error = None
            try:
                yield waited_for
            except BaseException as raised:  # noqa: BLE001 - it is the coroutine's to handle
                error = raised


def _find_place(work):
    names = []
    while hasattr(work, "cr_code"):
        names.append(work.cr_code.co_name)
        work = work.cr_await
    return tuple(names)


def stop(process):
    """Stop all threads of a process, and wait until they are."""
    process.send_signal(signal.SIGSTOP)
    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        while any(_is_active(task) for task in Path(f"/proc/{process.pid}/task").iterdir()):
            os.sched_yield()


def _is_active(task):
    """Whether a thread is neither stopped nor dead (proc_pid_stat(5))."""
    return (task / "stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] not in "TZX"


class StoppedStatement(RunningStatement):
    """One whose executor is stopped while it is asked something, so that the call has to wait for the answer."""

    async def request(self, kind, body):
        if self.executor is not None:
            stop(self.executor.process)
        await super().request(kind, body)

    def signal(self, number):
        if self.executor is not None:
            self.executor.process.send_signal(number)


class StoppedUpload(IngestCall):
    """One whose process is stopped while it is asked something."""

    async def _request(self, kind, body):
        if self._process._executor is not None:
            stop(self._process._executor.process)
        return await super()._request(kind, body)

    def signal(self, number):
        if self._process._executor is not None:
            self._process._executor.process.send_signal(number)


class Scene:
    """One call on a pool, made anew for each interruption."""

    waits_in = frozenset({"read"})
    fails_with = None
    sql = f"{NUMBERS} WHERE n > 0"

    def __init__(self, pool):
        self.pool = pool
        self.loop = asyncio.get_running_loop()
        self.running = StoppedStatement(pool, ANN)
        self.held_places = 0
        self.held = []

    async def prepare(self):
        """Bring about what the call has to wait for."""

    async def call(self):
        async with self.running:
            await self.running.run(Statement(sql=self.sql, caller=CALLER), output=Output(), write=self.write)

    async def write(self, _frame):
        """Take a frame, as a client that is not always ready for it."""
        taken = self.loop.create_future()
        self.loop.call_soon(lambda: taken.done() or taken.set_result(None))
        await taken

    def on_wait(self, place):
        """Let that happen for which the call waits."""
        self.loop.call_soon(self.running.signal, signal.SIGCONT)

    async def settle(self):
        """Wait until what the call left behind in another process has ended."""

    def clean_up(self, _place):
        """Give back what `prepare` took, after the call has ended or was interrupted in a place."""
        while self.held_places:
            self.held_places -= 1
            self.pool.slots.release(ANN)
        while self.held:
            self.pool.release(self.held.pop(), private_bytes=0)


class Running(Scene):
    """A statement that reads a table, so that the tables are listed first."""

    waits_in = frozenset({"_refresh_listing", "read", "write"})
    sql = "SELECT msg FROM log_entries"


class WaitingForPlace(Scene):
    """A statement of a caller whose other ones run."""

    waits_in = frozenset({"acquire", "read"})

    async def prepare(self):
        for _ in range(self.pool.settings.max_per_caller):
            await self.pool.slots.acquire(ANN)
            self.held_places += 1

    def on_wait(self, place):
        super().on_wait(place)
        if "acquire" in place:
            self.held_places -= 1
            self.loop.call_soon(self.pool.slots.release, ANN)


class WaitingForExecutor(Scene):
    """A statement while every executor is busy."""

    waits_in = frozenset({"take", "read"})

    async def prepare(self):
        self.pool._refill = lambda: None  # none is started meanwhile
        self.held = [await self.pool.take() for _ in range(self.pool.idle_count)]

    def clean_up(self, place):
        del self.pool._refill
        super().clean_up(place)
        self.pool._refill()

    def on_wait(self, place):
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

    async def write(self, _frame):
        raise ClientGone


class Uploading(Scene):
    """Rows that are sent into a table, by a client that is slow to send them."""

    waits_in = frozenset({"begin_upload", "send_rows", "commit_upload", "write"})
    _numbers = count()

    def __init__(self, pool):
        super().__init__(pool)
        self.table = f"notes{next(self._numbers)}"
        self.limit = RunningLimit(max_running=1, max_per_caller=1, queue_timeout_seconds=60)
        self.uploading = StoppedUpload(pool.ingest_process, ANN, slots=self.limit)

    def on_wait(self, place):
        self.loop.call_soon(self.uploading.signal, signal.SIGCONT)

    async def call(self):
        request = WriteRequest(table=self.table, mode=WriteMode.CREATE)
        upload = Upload(request=request, limits=IngestSettings(), row_count=None)
        async with self.uploading:
            await self.uploading.begin_upload(upload)
            for frame in encode_stream(pa.table({"n": [1, 2, 3]})):
                await self.write(frame)
                await self.uploading.send_rows(frame)
            assert await self.uploading.commit_upload() == 3

    async def settle(self):
        await until(lambda: self.limit.running_count == 0, "the place is free")

    def clean_up(self, place):
        tables = Lake(Storage(self.pool.options.lake)).snapshot()
        files = [file for table in tables if table.name == self.table for file in table.files]
        stored = sum(pq.read_metadata(file.path).num_rows for file in files)
        assert stored in ({0, 3} if "commit_upload" in place else {0} if place else {3})


# How a call is interrupted, whether only when the wait is over, and how it ends then.
MODES = {
    "cancelled": (lambda _scene, task: task.cancel(), False, asyncio.CancelledError),
    "cancelled when the wait is over": (lambda _scene, task: task.cancel(), True, asyncio.CancelledError),
    "ended by another call": (lambda scene, _task: scene.running.end(Cause.CANCELLED), False, QueryCancelled),
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    (lake := folder / "lake").mkdir(mode=0o700)
    with asyncio.Runner() as runner:
        tables = FixedTables([write_log_entries(folder, 1)])
        pool = build_pool(tables, worker={"lake": str(lake)}, max_per_caller=2, max_ended_per_caller=0)
        pool.ingest_process = IngestProcess(pool)
        runner.run(pool.open())
        yield runner, pool
        runner.run(pool.close())


# An upload has no id by which another call could end it.
CASES = [
    (kind, mode)
    for kind in Scene.__subclasses__()
    for mode in MODES
    if (kind, mode) != (Uploading, "ended by another call")
]


@pytest.mark.parametrize(("kind", "mode"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_a_call_that_is_interrupted_anywhere_leaves_the_pool_as_it_was(bench, kind, mode):
    runner, pool = bench
    seen = set()

    for _ in range(_MOST_SWEEPS):
        places = runner.run(_interrupt_everywhere(pool, kind, MODES[mode]))
        seen |= {name for place in places for name in place}
        if kind.waits_in <= seen:
            break  # else a wait was passed over because one before it came once more or less than the last time

    assert kind.waits_in <= seen


async def _interrupt_everywhere(pool, kind, mode):
    """Run a scene again and again, each time interrupted one wait later, until it comes to its end."""
    places = []
    for at in count(1):
        scene = kind(pool)
        await scene.prepare()
        place, error = await _interrupt(scene, mode, at)
        await scene.settle()
        scene.clean_up(place)
        await _check_that_nothing_is_left(pool)
        if not place:
            assert type(error) is (kind.fails_with or type(None))
            break
        # What has ended when it is told to end has its own outcome.
        assert isinstance(error, mode[2] | (kind.fails_with or mode[2])), place
        places.append(place)
    return places


async def _interrupt(scene, mode, at):
    interrupted = Interrupted(
        scene.call(), at=at, interrupt=lambda: mode[0](scene, task), is_late=mode[1], on_wait=scene.on_wait
    )

    async def call():
        await interrupted

    task = asyncio.create_task(call())
    await asyncio.wait({task})
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    return interrupted.place, error


async def _check_that_nothing_is_left(pool):
    assert (pool.slots.running_count, pool.slots.waiting_count, pool.running) == (0, 0, set())
    await until(
        lambda: pool.idle_count == pool.executor_count >= pool.settings.spare_executors, "every executor is idle"
    )
    frames = []

    async def write(frame):
        frames.append(frame)

    async with RunningStatement(pool, BOB) as running:
        statement = Statement(sql=NUMBERS, caller=CALLER)
        await running.run(statement, output=Output(), write=write)
    assert (len(frames), running.report.rows, running.report.cause) == (2, 3, None)
