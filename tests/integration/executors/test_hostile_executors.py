"""An executor that a statement has taken over fails that statement alone, whatever it sends, and is ended."""

import logging
import random
import resource
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from micromegas_jupyter.flightsql.commands import messages, pack_any
from tests.fakes.hostile_executor import ATTACKS, LIES, PLANS, SURPLUS
from tests.fakes.waiting import wait_until
from tests.integration.flight_harness import ALICE, BOB, NUMBERS, rows_of, running_server

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc"),
]

ROOT = Path(__file__).parents[3]
SHORT_TRIES, LONG_TRIES = 8, 3000
SEED = 20261124
# Those that are silent end then.
STATEMENT_SECONDS = 5
PAUSE_SECONDS = 0.1
MAX_GROWTH_KIB = 256 * 1024
ROWS = [{"n": 1}, {"n": 2}, {"n": 3}]


def hostile(name, seed=0):
    return f"SELECT 'hostile:{name}:{seed}'"


@pytest.fixture(scope="module")
def flight():
    pool = {"statement_timeout_seconds": STATEMENT_SECONDS, "max_ended_per_caller": 0, "max_idle_executors": 1}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # executors find the tests where only the package is installed
        with running_server(worker={"preloaded": "tests.fakes.hostile_executor"}, pool=pool) as running:
            yield running
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_GROWTH_KIB


@contextmanager
def serving(flight):
    """Have another caller run statements, at least one of them; all must give their rows."""
    answers, stop = [], threading.Event()

    def run():
        while not (answers and stop.wait(PAUSE_SECONDS)):
            answers.append(flight.query(NUMBERS, metadata=BOB))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    check_others(flight)
    assert [rows_of(answer).to_pylist() for answer in answers] == [ROWS] * len(answers)


def check_others(flight):
    """Have another caller use the executors that are left."""
    flight.wait_until_quiet()
    assert rows_of(flight.query(NUMBERS, metadata=BOB)).to_pylist() == ROWS


@pytest.mark.parametrize("name", [*ATTACKS, *PLANS])
def test_a_statement_fails_whose_executor_sends_what_it_must_not(flight, name):
    request = pack_any(messages.ActionCreatePreparedStatementRequest(query=hostile(name)))
    with serving(flight):
        if name in PLANS:
            answer = flight.act("CreatePreparedStatement", request, metadata=ALICE)
        else:
            answer = flight.query(hostile(name), metadata=ALICE)

    assert answer.code in {
        grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }  # fmt: skip
    assert answer.error.what


@pytest.mark.parametrize("name", SURPLUS)
def test_an_executor_that_sends_more_than_an_answer_is_ended(flight, name):
    flight.wait_until_quiet()
    attacker = flight.pool._idle[0]

    answer = flight.query(hostile(name), metadata=ALICE)
    wait_until(lambda: attacker.is_gone or attacker.has_unread, "the rest has come")

    assert answer.code is grpc.StatusCode.OK
    check_others(flight)
    assert attacker.is_gone


@pytest.mark.parametrize("size", [0, 100, 1 << 20])
def test_rows_without_end_leave_others_theirs(flight, size):
    with serving(flight):
        call = flight.read(hostile("frames", size))
        for _ in range(100):
            assert len(next(call)) == size
        call.cancel()


def test_what_an_executor_says_of_itself_does_no_harm(flight, caplog):
    caplog.set_level(logging.WARNING)
    with serving(flight):
        answers = {name: flight.query(hostile(name), metadata=ALICE) for name in LIES}

    strange = {
        name: (answer.code, answer.text)
        for name, answer in answers.items()
        if answer.code not in {grpc.StatusCode.OK, grpc.StatusCode.INTERNAL}
    }
    assert strange == {}
    assert not [record for record in caplog.records if record.name.startswith("micromegas_jupyter.audit")]
    unexpected = [record.getMessage() for record in caplog.records if record.exc_info]
    assert unexpected == []


def test_descriptors_that_an_executor_sends_are_closed(flight):
    def count():
        return len(list(Path("/proc/self/fd").iterdir()))

    check_others(flight)
    before = count()

    assert flight.query(hostile("descriptors"), metadata=ALICE).code is grpc.StatusCode.OK
    check_others(flight)

    assert count() <= before + 10  # of 1,000


def test_random_messages_fail_their_statement_alone(flight, pytestconfig):
    is_long = pytestconfig.getoption("--long")
    seed = random.SystemRandom().getrandbits(32) if is_long else SEED
    print(f"seed {seed}")

    with serving(flight):
        for number in range(LONG_TRIES if is_long else SHORT_TRIES):
            answer = flight.query(hostile("random", seed + number), metadata=ALICE)
            assert answer.code is grpc.StatusCode.OK or answer.error is not None, seed + number
            check_others(flight)
