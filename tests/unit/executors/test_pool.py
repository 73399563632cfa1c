"""Executors are lent, reused and replaced; nothing depends on who was served before; listings are shared."""

import asyncio
import itertools
import os
import random
import signal
import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple
from unittest.mock import AsyncMock, MagicMock, Mock

import msgspec
import pytest

from micromegas_jupyter.core.protocols import TableAccess, TableSnapshot
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.engine.contract import ANY
from micromegas_jupyter.errors import (
    DeadlineExceeded,
    InternalError,
    MicromegasError,
    ResourcesExhausted,
    Unavailable,
)
from micromegas_jupyter.executors import pool as module
from micromegas_jupyter.executors import protocol
from micromegas_jupyter.executors.ingest import IngestProcess
from micromegas_jupyter.executors.launcher import Executor, can_fork
from micromegas_jupyter.executors.listing import Listing
from micromegas_jupyter.executors.pool import (
    _REPORTED,
    ClientGone,
    Pool,
    RunningStatement,
    StatementReport,
    parse_reads,
)
from micromegas_jupyter.executors.protocol import Output, Statement
from micromegas_jupyter.executors.scheduling import Cause
from micromegas_jupyter.server.monitoring import ServerMetrics
from tests.fakes.fixed_tables import CALLER, LOG_SCHEMA, FixedTables, write_ledger, write_log_entries
from tests.fakes.servers import ENDLESS, NUMBERS, build_pool
from tests.fakes.waiting import until
from tests.integration.flight_harness import decode_rows

ADMIN = replace(CALLER, is_admin=True)
ONE = Statement(sql="SELECT 1", caller=CALLER)


class Bench(NamedTuple):
    """A pool and the event loop that it belongs to."""

    runner: asyncio.Runner
    pool: Pool

    def do(self, work):
        return self.runner.run(work)

    async def run(self, sql, caller=CALLER):
        """Run a statement to its end; return its rows and the id of the process that ran it."""
        frames = []

        async def write(frame):
            frames.append(frame)

        async with RunningStatement(self.pool, (caller.issuer, caller.subject)) as running:
            await running.run(Statement(sql=sql, caller=caller), output=Output(), write=write)
            return decode_rows(frames).to_pylist(), running.executor.process.pid

    async def plan(self, sql, caller):
        async with RunningStatement(self.pool, (caller.issuer, caller.subject)) as running:
            await running.plan(Statement(sql=sql, caller=caller))

    async def settle(self):
        pool = self.pool
        await until(lambda: pool.idle_count == pool.executor_count >= pool.settings.spare_executors, "all are idle")


@contextmanager
def opened_bench(tables=None, **settings):
    """Open a pool; `settings` are fields of `PoolSettings`."""
    with asyncio.Runner() as runner:
        pool = build_pool(tables, **settings)
        runner.run(pool.open())
        try:
            yield Bench(runner, pool)
        finally:
            runner.run(pool.close())


def test_statements_that_wait_to_start_are_counted_as_waiting():
    async def scenario(bench):
        pool, metrics = bench.pool, ServerMetrics()
        metrics.watch_pool(pool)

        def count():
            names = ("queries_running", "queries_waiting")
            return [metrics.registry.get_sample_value(f"micromegas_server_{name}") for name in names]

        for place in range(pool.settings.processors):
            assert pool.starts.try_enter(place)
        waiting = asyncio.create_task(bench.run(NUMBERS))
        await until(lambda: pool.starts.waiting_count, "it waits to start")
        counts = count()
        pool.starts.leave(0)
        await waiting
        return counts, count()

    with opened_bench() as bench:
        assert bench.do(scenario(bench)) == ([0, 1], [0, 0])


def test_paths_that_are_not_utf8_reach_the_executors(tmp_path):
    denials = str(tmp_path / "j\u00fcrgen \udcff.json")

    with asyncio.Runner() as runner:
        pool = build_pool(worker={"denials_file": denials}, lasts=False)
        runner.run(pool.open())
        rows, _ = runner.run(Bench(runner, pool).run("SELECT * FROM list_query_denials()", ADMIN))
        runner.run(pool.close())

    assert rows == []


def test_an_executor_with_much_memory_is_replaced():
    async def scenario(bench):
        await bench.settle()
        rows, pid = await bench.run("SELECT octet_length(repeat('x', 150000000)) AS n")
        await bench.settle()
        return rows, pid in bench.pool._executors

    with opened_bench(spare_executors=2) as bench:
        assert bench.do(scenario(bench)) == ([{"n": 150_000_000}], False)


def test_a_statement_that_was_planned_needs_no_executor_until_the_tables_change(tmp_path):
    tables = FixedTables([write_log_entries(tmp_path, 1)])
    sql = "SELECT * FROM log_entries"

    async def plan(bench, caller=CALLER):
        async with RunningStatement(bench.pool, (caller.issuer, caller.subject)) as running:
            schemas = await running.plan(Statement(sql=sql, caller=caller))
            return schemas, running.executor is not None

    async def scenario(bench):
        first, again = await plan(bench), await plan(bench)
        other = await plan(bench, replace(CALLER, subject="another"))
        tables.tables = [write_log_entries(tmp_path, 2)]
        return first, again, other, await plan(bench)

    with opened_bench(tables) as bench:
        (schemas, is_planned), *later = bench.do(scenario(bench))

    assert is_planned
    assert later == [(schemas, False), (schemas, True), (schemas, True)]


def test_no_more_idle_ones_are_kept_than_are_allowed():
    async def scenario(bench):
        await asyncio.gather(*(bench.run(NUMBERS) for _ in range(6)))
        await bench.settle()
        return bench.pool.idle_count

    with opened_bench(max_idle_executors=3, spare_executors=1) as bench:
        assert bench.do(scenario(bench)) <= 3


@pytest.mark.skipif(not can_fork(), reason="priorities are those of Linux")
def test_callers_who_use_much_run_at_a_lower_priority_on_executors_that_only_they_get():
    other = replace(CALLER, subject="another")

    async def run(bench, caller):
        _, pid = await bench.run(NUMBERS, caller)
        return pid, os.getpriority(os.PRIO_PROCESS, pid)

    async def scenario(bench):
        await bench.settle()
        bench.pool.use.charge((CALLER.issuer, CALLER.subject), 100.0)
        found = [await run(bench, caller) for caller in (other, CALLER, other, CALLER)]
        # All three processes that there may be are wanted: the one at the lower priority makes room for a new one.
        taken = [await bench.pool.take() for _ in range(3)]
        return found, [executor.niceness for executor in taken]

    with opened_bench(max_executors=2, spare_executors=1) as bench:
        (first, heavy, second, again), niceness = bench.do(scenario(bench))

    assert [priority for _, priority in (first, heavy, second, again)] == [0, 5, 0, 5]
    assert again == heavy
    assert niceness == [0, 0, 0]


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="without it none is stopped")
def test_statements_of_a_caller_who_uses_much_take_turns_before_they_are_long():
    heavy, light = ("id", "heavy"), ("id", "light")

    async def scenario(bench):
        pool, now = bench.pool, SYSTEM_CLOCK.monotonic()
        pool.use.charge(heavy, 100.0)
        pool.use.note_start(light)
        began = {"started_at": now - 0.5, "slice_at": now - 0.5, "is_stopped": False, "waits_for_client_since": None}
        statements = [Mock(caller_key=caller, **began) for caller in (heavy, light) for _ in range(3)]
        pool.running.update(statements)
        pool.governor._schedule(now)
        pool.running.clear()
        calls = [
            (one.caller_key, call.kwargs["is_stopped"]) for one in statements for call in one.set_stopped.mock_calls
        ]
        return sorted(calls)

    with opened_bench(processors=2) as bench:
        assert bench.do(scenario(bench)) == [(heavy, False), (heavy, False), (heavy, True)]


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="without it none is stopped")
def test_an_executor_that_was_stopped_after_its_last_answer_serves_the_next_statement():
    async def scenario(bench):
        await bench.settle()
        statement = Statement(sql=NUMBERS, caller=CALLER)
        async with RunningStatement(bench.pool, (CALLER.issuer, CALLER.subject)) as running:
            await running.run(statement, output=Output(), write=AsyncMock())
            running.set_stopped(SYSTEM_CLOCK.monotonic(), is_stopped=True)
        _, pid = await bench.run(NUMBERS)
        return pid == running.executor.process.pid

    with opened_bench(spare_executors=1) as bench:
        assert bench.do(scenario(bench))


def test_a_caller_is_charged_with_what_the_system_has_counted(monkeypatch):
    charged = []

    async def scenario(bench):
        monkeypatch.setattr(bench.pool.use, "charge", lambda caller, seconds: charged.append((caller, seconds)))
        await bench.run("SELECT sum(value) FROM generate_series(1, 3000000)")
        await bench.settle()

    with opened_bench() as bench:
        bench.do(scenario(bench))

    assert {caller for caller, _ in charged} == {(CALLER.issuer, CALLER.subject)}
    assert sum(seconds for _, seconds in charged) > 0.001  # summing 3 million numbers takes more on any machine


ROUNDS = 150


def _caller(name, **filters):
    return replace(CALLER, subject=name, issuer="https://id.example", table_access=TableAccess(filters=filters))


CALLERS = [
    replace(CALLER, subject="root", is_admin=True),
    _caller("all", log_entries=(), ledger=()),
    _caller("some", log_entries=("level = 4",), ledger=("shown",)),
    _caller("own", log_entries=("exe = 'job' AND level > 3", "msg LIKE 'start%'"), ledger=("secret = current_user()",)),
    _caller("one", ledger=("x = 1",)),
    _caller("none"),
]
STATEMENTS = [
    "SELECT msg, level FROM log_entries ORDER BY time",
    "SELECT count(*) AS n, max(level) AS most FROM log_entries",
    "SELECT id, secret FROM ledger ORDER BY id",
    "SELECT l.id, e.msg FROM ledger AS l JOIN log_entries AS e ON l.x + 3 = e.level ORDER BY l.id, e.msg",
    "SELECT current_user() AS who, is_admin() AS is_admin",
    "SELECT table_name FROM information_schema.tables ORDER BY table_name",
    "SELECT count(DISTINCT secret) AS n FROM ledger WHERE x > 0",
    "SELECT CAST(secret AS INT) AS n FROM ledger ORDER BY id",
    "SELECT * FROM nothing_of_the_kind",
    "SELECT 1 / (x - 5) AS n FROM ledger ORDER BY id",
    "DESCRIBE log_entries",
]


@pytest.fixture(scope="module")
def one_executor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    tables = FixedTables([write_log_entries(folder, 2), write_ledger(folder, "ledger", with_hidden=True)])
    with opened_bench(tables, spare_executors=1) as opened:
        yield opened


async def _outcome(one_executor, sql, caller):
    """Return a statement's rows, or its error, and the process that ran it."""
    try:
        return await one_executor.run(sql, caller)
    except MicromegasError as error:
        return f"{error.code} {error}", 0


async def _on_a_new_executor(one_executor, sql, caller):
    for executor in list(one_executor.pool._idle):
        one_executor.pool._idle.remove(executor)
        one_executor.pool.discard(executor)
    await one_executor.settle()
    outcome, _ = await _outcome(one_executor, sql, caller)
    return outcome


def test_rows_do_not_depend_on_who_was_served_before(one_executor):
    async def expected():
        return {
            (number, place): await _on_a_new_executor(one_executor, sql, caller)
            for number, sql in enumerate(STATEMENTS)
            for place, caller in enumerate(CALLERS)
        }

    async def scenario():
        chance = random.Random(13)
        wanted, wrong, pids = await expected(), [], set()
        for _ in range(ROUNDS):
            number, place = chance.randrange(len(STATEMENTS)), chance.randrange(len(CALLERS))
            if chance.random() < 0.3:
                with_plan = asyncio.ensure_future(one_executor.plan(STATEMENTS[number], CALLERS[place]))
                await asyncio.wait({with_plan})
                with_plan.exception()
            outcome, pid = await _outcome(one_executor, STATEMENTS[number], CALLERS[place])
            pids.add(pid)
            if outcome != wanted[number, place]:
                wrong.append(f"{STATEMENTS[number]} of {CALLERS[place].subject}: {outcome}")
        # Otherwise each caller could have seen the rows of all.
        assert len({repr(wanted[0, place]) for place in range(len(CALLERS))}) >= 4
        return wrong, pids - {0}

    wrong, pids = one_executor.do(scenario())

    assert wrong == []
    assert len(pids) <= 3


class SlowTables:
    """A source that reads its tables at once and then takes until it is told to go on."""

    def __init__(self, *names, may_end=True):
        self.names = names
        self.begun = 0
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        self.failure = None
        if may_end:
            self.may_end.set()

    def snapshot(self, sql=None):
        self.begun += 1
        found = [TableSnapshot(name=name, schema=LOG_SCHEMA, files=()) for name in self.names]
        self.has_begun.set()
        assert self.may_end.wait(30)
        if self.failure is not None:
            raise self.failure
        return found


def test_a_statement_sees_what_was_committed_before_it_came_in_and_shares_the_next_listing():
    async def scenario():
        source = SlowTables("old", may_end=False)
        listing = Listing(source)
        first = asyncio.create_task(listing.refresh())
        assert await asyncio.to_thread(source.has_begun.wait, 30)
        source.names = ("old", "new")
        others = [asyncio.create_task(listing.refresh()) for _ in range(50)]
        await asyncio.sleep(0)
        source.may_end.set()
        await asyncio.gather(first, *others)
        return [table.name for table in listing.tables], source.begun

    assert asyncio.run(scenario()) == (["old", "new"], 2)


READING = (
    "SELECT 1FROM ledger",
    "SELECT 1 + (SELECT count(*) FROM ledger)",
    "SELECT 1 WHERE EXISTS (SELECT * FROM ledger)",
    "SELECT 'Projection: '\nFROM ledger",
    "SHOW TABLES",
    "DESCRIBE ledger",
    "EXPLAIN SELECT 1",
    "SELECT table_name FROM information_schema.tables",
)
READING_NONE = (
    "SELECT 1",
    "SELECT 'x' AS transform, 'FROM ledger'",
    "SELECT 1 + 1 WHERE true LIMIT 1",
    "VALUES (1), (2)",
)


def test_tables_are_listed_again_for_each_statement_whose_plan_reads_one(tmp_path):
    class CountedTables(FixedTables):
        count = 0

        def snapshot(self, sql=None):
            self.count += 1
            return super().snapshot(sql)

    tables = CountedTables([write_ledger(tmp_path, "ledger", with_hidden=True)])

    async def listed(bench, sql):
        """Return how often the tables are listed when a caller runs a statement for the second time."""
        await bench.run(sql)
        before = tables.count
        await bench.run(sql)
        return tables.count - before

    async def scenario(bench):
        return {sql: await listed(bench, sql) for sql in READING + READING_NONE}

    with opened_bench(tables) as bench:
        counts = bench.do(scenario(bench))

    assert counts == {**dict.fromkeys(READING, 1), **dict.fromkeys(READING_NONE, 0)}


def test_storage_that_fails_concerns_only_statements_whose_plan_reads_a_table(tmp_path):
    class FailingTables(FixedTables):
        fails = False

        def snapshot(self, sql=None):
            if self.fails:
                raise Unavailable("The storage does not answer.")
            return super().snapshot(sql)

    tables = FailingTables([write_ledger(tmp_path, "ledger", with_hidden=True)])

    async def scenario(bench):
        await bench.run("SELECT count(*) FROM ledger")
        tables.fails = True
        for sql in READING_NONE:
            await bench.run(sql)
        for sql in READING:
            with pytest.raises(Unavailable):
                await bench.run(sql)

    with opened_bench(tables) as bench:
        bench.do(scenario(bench))


def test_what_one_callers_executor_reports_of_a_plan_holds_for_that_caller_until_another_report():
    listing = Listing(Mock(snapshot=Mock(return_value=())))
    ann, bob, sql = ("issuer", "ann"), ("issuer", "bob"), "SELECT 1FROM t"
    asyncio.run(listing.refresh())

    listing.note_plan(ann, sql, {"reads_tables": False})
    assert [listing.is_needed(caller, sql) for caller in (ann, bob)] == [False, True]

    listing.note_plan(ann, sql, {"reads_tables": True})
    assert listing.is_needed(ann, sql)


def test_names_of_tables_are_looked_for_in_short_texts_only():
    async def scenario():
        source = Mock(snapshot=Mock(return_value=()))
        listing = Listing(source)
        await listing.refresh()
        for padding in (10, 10_000):
            text = f"SELECT * FROM t -- {'x' * padding}"
            await asyncio.wait({listing.request(text) for _ in range(10)})
        return [call.args[0] for call in source.snapshot.call_args_list]

    first, short, *long = asyncio.run(scenario())

    assert short.count("FROM t") == 10
    assert [first, *long] == [None, None]  # all tables


def test_a_failure_is_told_to_all_who_wait_for_it_and_the_next_listing_is_made_anew():
    async def scenario():
        source = SlowTables("one")
        source.failure = Unavailable("The storage does not answer.")
        listing = Listing(source)
        found = await asyncio.gather(*(listing.refresh() for _ in range(3)), return_exceptions=True)
        source.failure = None
        await listing.refresh()
        return found, listing.version

    found, version = asyncio.run(scenario())

    assert [type(one) for one in found] == [Unavailable] * 3
    assert len({id(one) for one in found}) == 3  # callers add facts to their errors
    assert version == 1


class UnableLauncher:
    """Fails to start processes as often as `failures` has items."""

    def __init__(self, pool, failures):
        self._pool, self._launcher, self._failures = pool, pool._launcher, iter(failures)
        self.close = self._launcher.close

    def start_one(self):
        if next(self._failures, None) is None:
            self._launcher.start_one()
        else:
            asyncio.get_running_loop().call_soon(self._pool._note_failed_start)


class TestQueueTimeout:
    """Each wait before planning ends within the queue timeout, however the other side behaves."""

    @staticmethod
    def fail_starts(pool, *, times=None):
        """Have starting a process fail, as a fork does when the system has no process left."""
        pool._launcher = UnableLauncher(pool, range(10**9 if times is None else times))

    @staticmethod
    def suspend(process_id):
        os.kill(process_id, signal.SIGSTOP)
        os.waitid(os.P_PID, process_id, os.WSTOPPED | os.WNOWAIT)

    @staticmethod
    async def take_all(bench):
        while bench.pool.idle_count:
            await bench.pool.take()

    @staticmethod
    async def kill_idle(bench):
        await bench.settle()
        for executor in list(bench.pool._executors.values()):
            if executor not in bench.pool._detached:
                executor.kill()
        await until(lambda: not bench.pool.executor_count, "all have ended")

    @staticmethod
    async def timed(work):
        """Return the error of `work` and how long it took."""
        began_at = SYSTEM_CLOCK.monotonic()
        with pytest.raises(MicromegasError) as caught:
            await asyncio.wait_for(work, 20)
        return caught.value, SYSTEM_CLOCK.monotonic() - began_at

    def test_a_statement_fails_if_no_process_starts_while_an_ingest_process_lives(self):
        async def scenario(bench):
            await bench.pool.detach()
            self.fail_starts(bench.pool)
            await self.kill_idle(bench)
            return await self.timed(bench.run(NUMBERS))

        with opened_bench() as bench:
            error, _ = bench.do(scenario(bench))

        assert isinstance(error, ResourcesExhausted)

    def test_a_statement_waits_no_longer_than_the_queue_timeout_for_processes_that_are_busy(self):
        async def scenario(bench):
            await bench.settle()
            self.fail_starts(bench.pool)
            await self.take_all(bench)
            return await self.timed(bench.run(NUMBERS))

        with opened_bench(queue_timeout_seconds=0.3) as bench:
            error, seconds = bench.do(scenario(bench))

        assert isinstance(error, ResourcesExhausted)
        assert 0.3 <= seconds < 10

    def test_a_statement_that_waits_for_its_turn_ends_at_its_deadline(self):
        async def scenario(bench):
            await bench.settle()
            await bench.pool.slots.acquire((CALLER.issuer, CALLER.subject))
            return await self.timed(bench.run(NUMBERS))

        with opened_bench(max_per_caller=1, statement_timeout_seconds=0.3) as bench:
            error, _ = bench.do(scenario(bench))

        assert isinstance(error, DeadlineExceeded)

    def test_an_upload_waits_a_bounded_time_for_its_process(self, monkeypatch):
        async def scenario(bench):
            await bench.settle()
            monkeypatch.setattr(module, "_START_SECONDS", 0.3)
            self.fail_starts(bench.pool)
            await self.take_all(bench)
            return await self.timed(IngestProcess(bench.pool).open_channel())

        with opened_bench() as bench:
            error, seconds = bench.do(scenario(bench))

        assert isinstance(error, ResourcesExhausted)
        assert seconds < 10

    def test_a_process_is_started_again_while_a_statement_waits(self):
        async def scenario(bench):
            await bench.settle()
            self.fail_starts(bench.pool, times=3)
            await self.take_all(bench)
            return await asyncio.wait_for(bench.run("SELECT 1 AS n"), 20)

        with opened_bench() as bench:
            rows, _ = bench.do(scenario(bench))

        assert rows == [{"n": 1}]

    @pytest.mark.skipif(not can_fork(), reason="needs a zygote")
    def test_a_suspended_zygote_delays_a_statement_up_to_the_queue_timeout(self):
        async def scenario(bench):
            await bench.settle()
            zygote = bench.pool._launcher._zygote.pid
            self.suspend(zygote)
            try:
                await self.take_all(bench)
                failed = await self.timed(bench.run(NUMBERS))
            finally:
                os.kill(zygote, signal.SIGCONT)
            await until(lambda: bench.pool.idle_count, "a process has started")
            return *failed, await asyncio.wait_for(bench.run("SELECT 1 AS n"), 20)

        with opened_bench(queue_timeout_seconds=0.3) as bench:
            error, seconds, (rows, _) = bench.do(scenario(bench))

        assert isinstance(error, ResourcesExhausted)
        assert seconds < 10
        assert rows == [{"n": 1}]

    def test_a_statement_waits_no_longer_than_the_queue_timeout_for_a_listing_that_hangs(self):
        tables = SlowTables("one")

        async def scenario(bench):
            tables.may_end.clear()
            try:
                return await self.timed(bench.run("SELECT * FROM one"))
            finally:
                tables.may_end.set()

        with opened_bench(tables, queue_timeout_seconds=0.3) as bench:
            error, seconds = bench.do(scenario(bench))

        assert isinstance(error, Unavailable)
        assert seconds < 10

    def test_statements_that_need_no_listing_leave_none_to_wait_for_one_that_hangs(self):
        tables = SlowTables("one")

        async def scenario(bench):
            await bench.run("SELECT * FROM one")
            before = len(asyncio.all_tasks())
            tables.may_end.clear()
            try:
                for number in range(3):
                    await bench.run(f"SELECT {number}")
                await until(lambda: len(asyncio.all_tasks()) <= before + 2, "two listings are left", seconds=5)
            finally:
                tables.may_end.set()

        with opened_bench(tables) as bench:
            bench.do(scenario(bench))


FLOOD = 1000


@pytest.mark.parametrize(
    ("kind", "body", "call"),
    [
        (protocol.READS, b"{}", lambda running: running.run(ONE, output=Output(), write=AsyncMock())),
        (protocol.LISTED, b'{"tables": []}', lambda running: running.list_tables(CALLER)),
    ],
    ids=["reads", "tables"],
)
def test_an_executor_that_sends_without_end_leaves_the_event_loop_to_others(monkeypatch, kind, body, call):
    answers = itertools.chain(itertools.repeat((kind, body), FLOOD), [(protocol.END, b"{}")])
    turns = 0

    async def take_turns():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def read(_executor, _admit=None):
        return next(answers)

    async def scenario(bench):
        await bench.settle()
        monkeypatch.setattr(Executor, "read", read)
        other = asyncio.create_task(take_turns())
        async with RunningStatement(bench.pool, ("test", "ann")) as running:
            await call(running)
        other.cancel()

    with opened_bench() as bench:
        bench.do(scenario(bench))
    assert turns >= FLOOD


class _WithoutMemory:
    def __reduce__(self):
        return exec, ("raise MemoryError",)


def test_an_executor_that_had_no_memory_to_take_its_tables_serves_no_other_statement():
    async def scenario(bench):
        async with RunningStatement(bench.pool, ("test", "ann")) as running:
            await running.refresh_tables()
            await running.begin()
            assert await running._send_tables() == (0,)
            await running.request(protocol.RUN, protocol.pickle_request(_WithoutMemory()))
            with pytest.raises(ResourcesExhausted):
                await running.read()
        return running.executor.is_gone

    with opened_bench(FixedTables([TableSnapshot(name="t", schema=LOG_SCHEMA, files=())])) as bench:
        assert bench.do(scenario(bench))


def test_large_answers_to_a_listing_leave_the_places_for_large_frames_as_they_were(monkeypatch):
    answers = iter([(protocol.LISTED, b'{"tables": []}')] * 2 + [(protocol.END, b"{}")])

    async def read(_executor, admit):
        await admit(module._LARGE_FRAME_BYTES + 1)
        return next(answers)

    async def scenario(bench):
        await bench.settle()
        with monkeypatch.context() as patch:
            patch.setattr(Executor, "read", read)
            async with RunningStatement(bench.pool, ("test", "ann")) as running:
                await running.list_tables(CALLER)
        return bench.pool.large_frames.running_count

    with opened_bench(write_timeout_seconds=0.2) as bench:
        assert bench.do(scenario(bench)) == 0


def test_a_client_that_left_is_the_cause_even_if_its_call_is_canceled_after_the_failed_write():
    async def scenario(bench):
        async def write(_frame):
            asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)
            raise ClientGone

        running = RunningStatement(bench.pool, ("test", "ann"))
        with pytest.raises(ClientGone):
            async with running:
                await running.run(replace(ONE, sql=ENDLESS), output=Output(), write=write)
        return running.report.cause

    with opened_bench() as bench:
        assert bench.do(asyncio.wait_for(scenario(bench), 60)) is Cause.DISCONNECTED


TOO_LONG = msgspec.json.encode({"x": "y" * protocol.MAX_FACTS_BYTES})


@pytest.mark.parametrize(
    "answer",
    [(protocol.PROGRESS, b"{}"), (protocol.END, TOO_LONG), (protocol.ERROR, TOO_LONG)],
    ids=["progress again and again", "end", "error"],
)
def test_an_executor_that_sends_more_than_the_front_reads_is_replaced(monkeypatch, answer):
    async def scenario(bench):
        await bench.settle()
        with monkeypatch.context() as patch:
            patch.setattr(Executor, "read", AsyncMock(return_value=answer))
            async with RunningStatement(bench.pool, ("test", "ann")) as running:
                with pytest.raises(InternalError):
                    await running.run(ONE, output=Output(), write=AsyncMock())
        return running.executor.is_gone

    with opened_bench() as bench:
        assert bench.do(scenario(bench))


@pytest.mark.parametrize(
    "claimed", [{"t" * 30_000: []}, {"\U0001f600" * 5000: []}, {"t": "x"}, {"t": [["x"]]}, ["t"], 1]
)
def test_what_an_executor_says_that_it_read_fits_an_audit_line_or_is_anything(claimed):
    assert parse_reads({"t": ["a", "b"]}) == {"t": ["a", "b"]}
    assert parse_reads(claimed) == {ANY: (ANY,)}


@pytest.mark.parametrize(
    "claimed", ["1", [], {"n": 1}, None, True, -1, 10**400, float("nan"), float("inf")], ids=lambda one: repr(one)[:9]
)
def test_what_an_executor_says_that_it_took_is_a_number_or_nothing(claimed):
    names = [*_REPORTED, "rows", "process_cpu_seconds", "private_bytes"]

    async def scenario():
        statement = RunningStatement(MagicMock(), (CALLER.issuer, CALLER.subject))
        statement.executor = MagicMock()
        statement._take_statistics(dict.fromkeys(names, claimed))
        return statement

    statement = asyncio.run(scenario())

    assert statement.report == StatementReport()
    assert (statement.executor.cpu_seconds, statement._private_bytes) == (0, 0)
