"""Whatever becomes of a worker, others take over, and one that cannot start is not started without end.

The supervisor and its processes are real; what a worker serves is next to nothing, so that it starts in a moment.
"""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from micromegas_jupyter.assembly.workers.metrics import WorkerMetrics

from micromegas_jupyter.errors import InternalError
from tests.integration.workers.bench import Bench, Connection
from tests.integration.workers.serving import is_alive, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration


@pytest.fixture
def one(folder: Path) -> Iterator[Bench]:
    bench = Bench(folder, workers=1)
    bench.supervisor.start()
    yield bench
    bench.stop()


@pytest.fixture
def with_spare(folder: Path) -> Iterator[Bench]:
    bench = Bench(folder, workers=2, keeps_spare=True)
    bench.supervisor.start()
    bench.clock.advance(5.0)
    until(lambda: bench.supervisor.state().spares == 1, "one waits")
    yield bench
    bench.stop()


def spare_pid(bench: Bench) -> int:
    (pid,) = {worker.pid for worker in bench.supervisor._all_workers()} - bench.pids()
    return pid


def until_another_waits(bench: Bench, waiting: int) -> None:
    until(lambda: not is_alive(waiting), "it has ended")
    until(
        lambda: waiting not in {worker.pid for worker in bench.supervisor._all_workers()}, "the supervisor has noticed"
    )
    until(lambda: bench.supervisor.state().spares == 1, "another one waits")
    assert spare_pid(bench) != waiting


def test_a_worker_that_stands_still_is_ended_and_replaced(one: Bench, caplog: pytest.LogCaptureFixture) -> None:
    (before,) = one.pids()
    os.kill(before, signal.SIGSTOP)

    one.advance_until(lambda: not is_alive(before), "it is ended")

    until(lambda: len(one.pids() - {before}) == 1, "another one answers")
    assert one.supervisor.replaced == {"silent": 1}
    assert one.answering_pid() in one.pids()
    assert "A worker process does not answer and is ended." in caplog.text


def test_a_worker_that_grows_too_large_is_replaced(one: Bench, caplog: pytest.LogCaptureFixture) -> None:
    (before,) = one.pids()

    assert one.tell("grow") == before

    until(lambda: not is_alive(before), "it is ended")
    until(lambda: len(one.pids() - {before}) == 1, "another one answers")
    assert one.supervisor.replaced == {"memory": 1}
    assert "its memory passed 120 MiB" in "".join(str(record.__dict__.get("why")) for record in caplog.records)


def test_a_worker_that_dies_at_its_start_is_started_less_and_less_often(
    one: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    (one.folder / "dies").touch()
    (before,) = one.pids()

    assert one.tell("fail") == before

    # The first two come at once and after half a second; time stands still, so there is no third.
    until(lambda: one.supervisor.state().failures == 2, "two have failed")
    said = "A worker process ended and is replaced."
    assert one.supervisor.state().ready == 0
    one.advance_until(lambda: one.supervisor.state().failures == 4, "two more have failed")
    ends = [record for record in caplog.records if record.message == said]
    assert [record.__dict__["starts_in_seconds"] for record in ends][:4] == [0.0, 0.5, 1.0, 2.0]
    assert caplog.text.count("A worker process ends again and again; it is tried again less often.") == 1
    assert {record.__dict__["end"] for record in ends} == {"exit code 3", "exit code 7"}
    (one.folder / "dies").unlink()
    one.advance_until(lambda: one.supervisor.state().ready == 1, "one answers again")
    assert one.answering_pid() in one.pids()


def test_a_server_whose_worker_dies_at_its_first_start_does_not_start(folder: Path) -> None:
    (folder / "dies").touch()
    bench = Bench(folder, workers=1)

    with pytest.raises(InternalError) as found:
        bench.supervisor.start()

    bench.stop()
    assert found.value.what == "A worker process ended before it was ready (exit code 7)."
    assert found.value.remedy == "Look at the server's log."


def test_one_that_waits_takes_over_before_any_other_process_has_started(with_spare: Bench) -> None:
    before, waiting = with_spare.pids(), spare_pid(with_spare)
    (with_spare.folder / "gate").unlink()  # no process can start from here on
    with ExitStack() as stack:
        to_both: dict[int, Connection] = {}
        while to_both.keys() < before:
            connection = stack.enter_context(with_spare.connect())
            to_both.setdefault(connection.pid, connection)

        for connection in to_both.values():
            connection.tell("stuck none nobody q-1")

        assert to_both.keys() == before
    until(lambda: not any(is_alive(pid) for pid in before), "both have ended")
    until(lambda: with_spare.supervisor.state().ready == 1, "one answers")
    assert with_spare.answering_pid() == waiting
    (with_spare.folder / "gate").touch()
    until(lambda: with_spare.supervisor.state().ready == 2, "two answer again")
    until(lambda: with_spare.supervisor.state().spares == 1, "and one waits")


def test_one_that_waits_and_dies_is_replaced(with_spare: Bench) -> None:
    waiting = spare_pid(with_spare)

    os.kill(waiting, signal.SIGKILL)

    until_another_waits(with_spare, waiting)
    assert with_spare.supervisor.replaced == {}


def test_one_that_waits_is_started_anew_when_the_configuration_is_read_again(with_spare: Bench) -> None:
    waiting = spare_pid(with_spare)

    with_spare.supervisor.ask_all("reload")

    until_another_waits(with_spare, waiting)


def test_counters_go_on_when_a_worker_is_replaced(one: Bench) -> None:
    registry = WorkerMetrics(one.supervisor, ()).registry

    def told(word: str) -> float | None:
        return registry.get_sample_value("light_told_total", {"word": word, "worker": "1"})

    def tell(line: str) -> None:
        (before,) = one.pids()
        one.tell(line)
        until(lambda: not is_alive(before) and len(one.pids() - {before}) == 1, "it is replaced")

    one.tell("first")
    until(lambda: told("first") == 1, "it is counted")
    tell("fail")  # what it counted since it was asked last is lost
    assert told("first") == 1
    one.tell("first")
    until(lambda: told("first") == 2, "the next process counts on")
    one.tell("second")
    tell("stuck none nobody q-1")  # one that leaves tells what it has counted

    until(lambda: told("second") == 1, "its last counts are known")
    assert told("first") == 2
    assert told("stuck") == 1
    assert registry.get_sample_value("light_clients", {"worker": "1"}) == 0


def test_a_worker_that_ends_its_last_calls_is_asked_to_cancel_too(with_spare: Bench) -> None:
    (with_spare.folder / "drains").touch()
    leaving = with_spare.tell("leave")
    until(lambda: leaving not in with_spare.pids() and len(with_spare.pids()) == 2, "another one has its place")

    asking = with_spare.connect()
    while asking.pid == leaving:
        asking.close()
        asking = with_spare.connect()
    asking.tell("cancel")
    answer = asking.hear()

    asking.close()
    (with_spare.folder / "drains").unlink()
    assert answer == f"{sorted({leaving, *with_spare.pids()} - {asking.pid})} True"
    until(lambda: not is_alive(leaving), "it has ended")


def test_no_process_is_left_when_the_server_stops(folder: Path) -> None:
    bench = Bench(folder, workers=2, keeps_spare=True)
    bench.supervisor.start()
    bench.clock.advance(5.0)
    until(lambda: bench.supervisor.state().spares == 1, "one waits")
    pids = {worker.pid for worker in bench.supervisor._all_workers()}
    assert len(pids) == 3

    bench.stop()

    assert not any(is_alive(pid) for pid in pids)
