"""What is left of cancelled queries is found, and looking for it costs the queries that run nothing."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.engine.leftovers import Leftovers
from micromegas_jupyter.engine.owner import QueryOwner
from micromegas_jupyter.engine.pool import PlanningPool
from micromegas_jupyter.engine.thread_probe import ThreadProbe
from micromegas_jupyter.engine.thread_times import ThreadTime
from micromegas_jupyter.seams import SYSTEM_CLOCK
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEADLINE_SECONDS = 30.0
BUSY, OTHER = 11, 12
MANY = 40
OWNER = QueryOwner(query_id="q-1", caller=("https://id.example", "alice"), user="alice", sql="SELECT 1")
ANOTHER = QueryOwner(query_id="q-2", caller=("https://id.example", "bob"), user="bob", sql="SELECT 1")


class Events:
    """Notes what is told."""

    def __init__(self) -> None:
        self.suspicions = 0
        self.stuck_reasons: list[str] = []
        self.owners: tuple[QueryOwner, ...] = ()

    def suspect(self) -> None:
        self.suspicions += 1

    def stuck(self, why: str, owners: Sequence[QueryOwner]) -> None:
        self.stuck_reasons.append(why)
        self.owners = tuple(owners)


class Probe(ThreadProbe):
    """Sends nothing; the test says who answers."""

    def __init__(self) -> None:
        super().__init__(SYSTEM_CLOCK)
        self.is_wanted = False
        self.times_started = 0

    def start(self, threads: int) -> None:
        assert threads
        self.times_started += not self.is_wanted
        self.is_wanted = True

    def stop(self) -> None:
        self.is_wanted = False


class Bench:
    """An engine's threads, two that are busy all the time, under a clock of its own."""

    def __init__(self) -> None:
        self.clock = FakeClock(SYSTEM_CLOCK.now())
        self.events, self.probe = Events(), Probe()
        self.pauses = 0
        self.untold_seconds = 0.0
        self._is_over = False
        self._looks = threading.Condition()
        self._looks_begun = 0
        self._pool = PlanningPool(1)
        self.leftovers = Leftovers(self._pool, self.events, clock=self.clock, read=self._read, probe=self.probe)

    def _read(self) -> dict[int, ThreadTime]:
        if threading.current_thread().name == "leftovers":
            with self._looks:
                self._looks_begun += 1
                self._looks.notify_all()
        if self._is_over:
            return {}
        with self._looks:
            busy_seconds = self.clock.monotonic() - self.untold_seconds
        return {BUSY: ThreadTime(busy_seconds, pauses=0), OTHER: ThreadTime(busy_seconds, pauses=self.pauses)}

    def run(self, *, is_given_up: bool, is_long: bool, seconds: float = 1.0, owner: QueryOwner | None = OWNER) -> None:
        """Have a query run and end."""
        owner = owner if is_long else None
        began = self.leftovers.begin(owner)
        assert self.leftovers.running_queries() == (() if owner is None else (owner,))
        self.clock.advance(seconds)
        self.leftovers.end(began=began, is_given_up=is_given_up, is_long=is_long, owner=owner)
        assert self.leftovers.running_queries() == ()

    def advance(self, seconds: float, *, untold: float = 0.0) -> None:
        """Let time pass and the watch look at it once from begin to end; of some of it, it is not told who was busy."""
        with self._looks:
            self.untold_seconds += untold
            self.clock.advance(seconds)
            wanted = self._looks_begun + 2
            assert self._looks.wait_for(lambda: self._looks_begun >= wanted, DEADLINE_SECONDS)

    def answer(self, thread: int) -> None:
        self.probe.answered_at[thread] = self.clock.monotonic()

    def close(self) -> None:
        """Leave the watch nothing to do."""
        self._is_over = True
        self._pool.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    found = Bench()
    yield found
    found.close()


def test_queries_that_end_beside_others_send_no_probes(bench: Bench) -> None:
    bench.leftovers.begin()  # another query, which keeps the threads busy

    bench.run(is_given_up=False, is_long=False)
    bench.advance(0.6)
    bench.advance(5)

    assert bench.probe.times_started == 0
    assert bench.events.suspicions == 0


def test_a_cancelled_join_whose_thread_takes_up_nothing_is_stuck(bench: Bench) -> None:
    bench.leftovers.begin()
    bench.run(is_given_up=True, is_long=True)

    bench.advance(0.6)
    assert bench.probe.is_wanted
    assert bench.events.suspicions == 1
    assert bench.events.stuck_reasons == []
    bench.answer(OTHER)
    bench.advance(0.6)

    assert bench.events.stuck_reasons == ["A query that was cancelled does not stop."]
    assert bench.events.owners == (OWNER,)


def test_all_that_were_given_up_and_may_go_on_are_named(bench: Bench) -> None:
    bench.leftovers.begin()
    bench.run(is_given_up=True, is_long=True)
    bench.run(is_given_up=True, is_long=True, owner=ANOTHER)

    bench.advance(0.6)
    bench.answer(OTHER)
    bench.advance(0.6)
    bench.advance(0.6)

    assert bench.events.stuck_reasons == ["A query that was cancelled does not stop."]
    assert bench.events.owners == (OWNER, ANOTHER)


def test_it_is_not_called_stuck_before_a_probe_was_taken_up_by_any_thread(bench: Bench) -> None:
    bench.leftovers.begin()
    bench.run(is_given_up=True, is_long=True)

    bench.advance(1.2)
    assert bench.events.stuck_reasons == []
    bench.advance(1)

    assert bench.events.stuck_reasons != []


def test_probes_end_when_all_threads_have_taken_up_other_work(bench: Bench) -> None:
    bench.leftovers.begin()
    bench.run(is_given_up=True, is_long=True)
    bench.advance(0.6)
    assert bench.probe.is_wanted

    bench.answer(BUSY)
    bench.answer(OTHER)
    bench.advance(0.6)
    bench.advance(5)

    assert not bench.probe.is_wanted
    assert bench.events.stuck_reasons == []


def test_many_queries_that_ended_do_not_hide_one_that_was_cancelled(bench: Bench) -> None:
    bench.leftovers.begin()
    for _ in range(MANY):
        bench.run(is_given_up=False, is_long=False)

    bench.run(is_given_up=True, is_long=True)
    bench.advance(0.6)
    bench.answer(OTHER)
    bench.advance(0.6)

    assert bench.events.stuck_reasons != []


def test_what_goes_on_when_no_query_runs_is_stuck_whatever_it_was(bench: Bench) -> None:
    bench.run(is_given_up=True, is_long=False)

    bench.advance(1.2)

    assert bench.events.stuck_reasons == ["A query that was cancelled does not stop."]
    assert bench.probe.times_started == 0


def test_what_goes_on_after_the_process_stood_still_is_stuck_all_the_same(bench: Bench) -> None:
    bench.run(is_given_up=True, is_long=True)

    bench.advance(3, untold=3)
    bench.advance(1.2)

    assert bench.events.stuck_reasons == ["A query that was cancelled does not stop."]


def test_a_thread_that_waits_long_for_a_processor_is_not_lost(bench: Bench) -> None:
    bench.run(is_given_up=True, is_long=True)

    for _ in range(4):
        bench.advance(0.25, untold=0.2)
    bench.untold_seconds = 0.0
    bench.advance(0.6)

    assert bench.events.stuck_reasons == ["A query that was cancelled does not stop."]
