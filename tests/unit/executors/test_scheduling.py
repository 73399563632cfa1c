"""Who may run, which long statements run now, and why a statement was ended."""

import asyncio
import itertools
import pickle
import signal
from collections import Counter
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pytest

from micromegas_jupyter.core.file_list import FileList, TableChange
from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import ResourcesExhausted
from micromegas_jupyter.executors.launcher import Ended
from micromegas_jupyter.executors.listing import Listing
from micromegas_jupyter.executors.pool import RunningStatement
from micromegas_jupyter.executors.scheduling import (
    Cause,
    EndedLimit,
    ProcessorUse,
    RunningLimit,
    StartQueue,
    choose_running,
    find_cause,
)
from tests.fakes.fixed_tables import data_files


def _simulate(owners, *, slots, seconds, arrivals=None):
    """Return what runs at each tenth of a second, as the pool would have it."""
    arrivals = arrivals or {}
    statements = {}
    seen = []
    for tick in range(seconds * 10):
        now = tick / 10
        for key, caller in owners.items():
            if key not in statements and arrivals.get(key, 0) <= now:
                # as much of a `RunningStatement` as its turns depend on
                statements[key] = Mock(caller_key=(caller, caller), slice_at=now, is_stopped=False)
        chosen = choose_running(statements.values(), slots=slots, now=now)
        for one in statements.values():
            if one.is_stopped == (one in chosen):
                one.is_stopped, one.slice_at = one not in chosen, now
        seen.append({key for key, one in statements.items() if one in chosen})
    return seen


def test_a_statement_of_an_hour_does_not_starve_another_ones():
    seen = _simulate({"hour": "ann", "second": "bob"}, slots=1, seconds=60, arrivals={"second": 30})

    first_turn = next(tick for tick, chosen in enumerate(seen) if chosen == {"second"})
    assert first_turn - 300 <= 10  # within a slice of its arrival
    shares = Counter(itertools.chain(*seen[300:]))
    assert abs(shares["hour"] - shares["second"]) <= 10


def test_callers_share_alike_however_many_statements_they_have():
    owners = {f"ann {number}": "ann" for number in range(9)} | {"bob": "bob"}

    shares = Counter(itertools.chain(*_simulate(owners, slots=1, seconds=100)))

    assert 450 <= shares["bob"] <= 550
    anns = [share for key, share in shares.items() if key != "bob"]
    assert len(anns) == 9
    assert max(anns) - min(anns) <= 10


ANN, BOB, CY = ("id", "ann"), ("id", "bob"), ("id", "cy")


def _limit(max_running, max_per_caller=2):
    return RunningLimit(max_running=max_running, max_per_caller=max_per_caller, queue_timeout_seconds=60)


async def _tick():
    for _ in range(3):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("callers", "waiting"), [([ANN] * 100, 8), ([BOB, CY] * 100, 8 + 6)])
def test_so_many_wait_and_the_next_is_refused_at_once(callers, waiting):
    async def scenario():
        limit = _limit(max_running=2, max_per_caller=1)
        await limit.acquire(ANN)
        await limit.acquire(BOB)
        tasks = [asyncio.create_task(limit.acquire(caller)) for caller in callers]
        await _tick()
        refused = [task for task in tasks if task.done()]
        assert {type(task.exception()) for task in refused} == {ResourcesExhausted}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (limit.running_count, limit.waiting_count) == (2, 0)
        return len(tasks) - len(refused), len(refused)

    assert asyncio.run(scenario()) == (waiting, len(callers) - waiting)


def test_callers_who_take_what_they_can_leave_places_to_others_who_are_next():
    async def scenario():
        limit = _limit(max_running=8, max_per_caller=4)
        takers = [asyncio.create_task(limit.acquire(caller)) for caller in [ANN, BOB] * 60]
        await _tick()
        held = [task for task in takers if task.done() and task.exception() is None]
        assert len(held) == 7
        await limit.acquire(CY)
        last = asyncio.create_task(limit.acquire(("id", "dan")))
        await _tick()
        assert not last.done()
        limit.release(ANN)
        await _tick()
        assert last.done()  # though the others have waited longer
        for task in takers:
            task.cancel()
        await asyncio.gather(*takers, return_exceptions=True)
        return limit.waiting_count

    assert asyncio.run(scenario()) == 0


def _sent_tables(listing, executor):
    """Return the positions that an executor gets with a statement, and what it has to learn before."""
    learned = []

    async def learn(_kind, body):
        learned.append(body)

    async def send():
        executor.send = learn
        running = RunningStatement(Mock(listing=listing, settings=Mock(statement_timeout_seconds=None)), ANN)
        running.executor = executor
        return await running._send_tables()

    return asyncio.run(send()), b"".join(learned)


def test_an_executor_gets_only_the_tables_that_it_does_not_know():
    one, two, three = (TableSnapshot(name=name, schema=pa.schema([(name, "int8")]), files=()) for name in "abc")
    source = Mock(snapshot=Mock(return_value=(one, two)))
    listing, executor = Listing(source), Mock(tables=())
    asyncio.run(listing.refresh())

    first, again = _sent_tables(listing, executor), _sent_tables(listing, executor)
    source.snapshot.return_value = (two, three, one)
    asyncio.run(listing.refresh())
    changed = _sent_tables(listing, executor)

    assert first == ((0, 1), listing.packed(one) + listing.packed(two))
    assert (again, changed) == ((None, b""), ((1, 2, 0), listing.packed(three)))


def test_an_executor_gets_only_what_changed_of_a_table():
    bounds = pa.table({"rows": [1, 2, 3]})
    earlier = TableSnapshot(
        name="a", schema=pa.schema({"n": "int8"}), files=FileList.of(data_files(*"xyz")), bounds=bounds
    )
    later = TableChange(earlier, np.array([1]), FileList.of(data_files("w")), bounds[:1]).apply(earlier)
    listing = Listing(Mock(snapshot=Mock(return_value=(later,))))
    asyncio.run(listing.refresh())

    positions, learned = _sent_tables(listing, Mock(tables=(earlier,)))

    (change,) = pickle.loads(learned)
    assert (positions, change.apply(earlier)) == ((1,), later)
    assert [file.path for file in change.added] == ["w"]
    assert [file.path for file in later.files] == ["x", "z", "w"]
    assert listing.packed(later, known=earlier) is listing.packed(later, known=earlier)


def test_whoever_gives_up_at_the_moment_of_their_turn_gives_it_to_the_next():
    async def scenario():
        limit = _limit(max_running=1)
        await limit.acquire(ANN)
        first, second = (asyncio.create_task(limit.acquire(caller)) for caller in (BOB, CY))
        await _tick()
        limit.release(ANN)  # it is the turn of the first, who has not noticed
        first.cancel()
        await asyncio.wait({first, second})
        assert first.cancelled()
        assert second.exception() is None
        return limit.running_count, limit.waiting_count

    assert asyncio.run(scenario()) == (1, 0)


def _use(clock, *statements):
    """Return the use of two processors after these statements: a caller and the processor time of each."""
    use = ProcessorUse(processors=2, clock=clock)
    for caller, seconds in statements:
        use.note_start(caller)
        use.charge(caller, seconds)
    return use


def test_a_caller_who_uses_much_is_heavy_while_others_use_little(clock):
    use = _use(clock, (ANN, 0.6), (ANN, 0.6), (BOB, 0.9))

    assert (use.is_heavy(ANN), use.is_heavy(BOB), use.is_heavy(CY)) == (True, False, False)
    clock.advance(10)
    use.charge(ANN, 5.0)
    assert not use.is_heavy(ANN)  # nobody else has begun a statement for so long
    use.note_start(CY)
    assert use.is_heavy(ANN)


def test_callers_who_all_use_much_are_not_heavy(clock):
    use = _use(clock, (ANN, 0.0), (BOB, 0.0))
    for caller in (ANN, BOB):
        use.charge(caller, 5.0)
    clock.advance(10)
    for caller in (ANN, BOB):
        use.charge(caller, 5.0)
        use.note_start(caller)

    assert not use.is_heavy(ANN)
    assert not use.is_heavy(BOB)


def test_use_halves_in_ten_seconds(clock):
    use = _use(clock, (ANN, 1.9))
    use.note_start(BOB)
    assert use.is_heavy(ANN)
    clock.advance(10)
    use.note_start(BOB)
    assert not use.is_heavy(ANN)


@pytest.mark.parametrize(("count", "is_heavy"), [(400, False), (800, True)])
def test_many_short_statements_are_much_above_a_quarter_of_the_processors(clock, count, is_heavy):
    # A quarter of two processors uses 7.2 s in the time that counts.
    use = _use(clock, *[(ANN, 0.01)] * count, (BOB, 0.01))

    assert use.is_heavy(ANN) is is_heavy


def _start_order(use, clock, callers, *, pause=0.0):
    """Return the order in which callers start who all wait, one after the other, while another one has the place."""

    async def scenario():
        starts, order = StartQueue(use, max_starts=1, clock=clock), []

        async def start(caller):
            await starts.enter(caller, caller)
            order.append(caller)
            starts.leave(caller)

        assert starts.try_enter("first")
        tasks = []
        for caller in callers:
            tasks.append(asyncio.create_task(start(caller)))
            await _tick()
            clock.advance(pause)
        assert not order
        starts.leave("first")
        await asyncio.gather(*tasks)
        return order

    return asyncio.run(scenario())


def test_the_caller_who_used_least_starts_next(clock):
    use = _use(clock, (ANN, 2.0), (BOB, 1.0))

    assert _start_order(use, clock, [ANN, BOB, CY]) == [CY, BOB, ANN]


def test_who_has_waited_for_a_second_starts_next(clock):
    use = _use(clock, (ANN, 2.0), (BOB, 1.0))

    assert _start_order(use, clock, [ANN, BOB, CY], pause=0.4) == [ANN, CY, BOB]


def test_a_statement_that_runs_for_longer_leaves_its_place_to_the_next():
    async def scenario():
        starts = StartQueue(_use(SYSTEM_CLOCK), max_starts=1, clock=SYSTEM_CLOCK)
        assert starts.try_enter("long")
        waiting = asyncio.create_task(starts.enter("next", ANN))
        await _tick()
        assert not waiting.done()  # the first one has no executor yet
        starts.note_start("long")
        async with asyncio.timeout(20):
            await waiting
        assert not starts.try_enter("third")

    asyncio.run(scenario())


def test_a_statement_that_is_cancelled_leaves_its_turn_to_the_next(clock):
    async def scenario():
        starts = StartQueue(_use(clock), max_starts=1, clock=clock)
        assert starts.try_enter("first")
        waiting = [asyncio.create_task(starts.enter(name, ANN)) for name in ("one", "two", "three")]
        await _tick()
        waiting[0].cancel()
        starts.leave("first")  # it is the turn of the second, who has not noticed
        waiting[1].cancel()
        await asyncio.wait(waiting[:2])
        starts.leave("two")
        await asyncio.wait(waiting)
        return [task.cancelled() for task in waiting]

    assert asyncio.run(scenario()) == [True, True, False]


def test_who_has_too_many_statements_ended_within_a_minute_waits_a_minute(clock):
    limit = EndedLimit(3, clock=clock)
    for _ in range(2):
        limit.note(ANN)
        clock.advance(20)
    limit.check(ANN)
    limit.note(ANN)

    with pytest.raises(ResourcesExhausted) as caught:
        limit.check(ANN)
    limit.check(BOB)

    assert (caught.value.limit, caught.value.retry_after_seconds) == ("ended_statements", 60)
    clock.advance(59)
    with pytest.raises(ResourcesExhausted):
        limit.check(ANN)
    clock.advance(1)
    limit.check(ANN)


@pytest.mark.parametrize(
    ("ended", "cause"),
    [
        (Ended(), Cause.LOST),
        (Ended(code=1), Cause.CRASH),
        (Ended(code=-signal.SIGKILL), Cause.KILLED),
        (Ended(code=-signal.SIGPROF), Cause.PLANNING),
        (Ended(code=-signal.SIGSEGV), Cause.STACK),
        (Ended(code=-signal.SIGABRT, error="thread 'main' has overflowed its stack"), Cause.STACK),
        (Ended(code=-signal.SIGABRT, error="memory allocation of 17179869184 bytes failed"), Cause.MEMORY),
        (Ended(code=1, error="MemoryError: Cannot allocate memory"), Cause.MEMORY),
        (Ended(code=1, error="  File worker.py, line 1, in _send\nMemoryError\n"), Cause.MEMORY),
    ],
)
def test_the_cause_is_read_from_how_the_process_ended(ended, cause):
    assert find_cause(ended, None) is cause
    assert find_cause(ended, Cause.DEADLINE) is Cause.DEADLINE
    if ended.code == -signal.SIGSEGV:
        assert find_cause(ended, None, is_large=True) is Cause.MEMORY
