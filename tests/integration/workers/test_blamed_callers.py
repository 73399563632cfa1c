"""A caller whose queries end workers has to wait, at every worker, where it is certain whose queries they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.workers.bench import Bench
from tests.integration.workers.serving import is_alive, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


def test_a_caller_whose_queries_take_a_workers_memory_has_to_wait(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(folder, workers=1, max_stuck=1)
    bench.supervisor.start()

    def lose_a_worker(*callers: str) -> None:
        (before,) = bench.pids()
        for caller in callers:
            bench.tell(f"run https://id.example {caller} q-of-{caller}")
        bench.tell("grow")
        until(lambda: not is_alive(before) and len(bench.pids() - {before}) == 1, "it is replaced")

    def restrained() -> list[object]:
        ((_, answer),) = bench.supervisor.ask_all("restrained")
        assert isinstance(answer, dict)
        return list(answer["callers"])

    try:
        lose_a_worker("alice", "bob")
        assert restrained() == []
        lose_a_worker("alice", "alice")
        until(lambda: restrained() == [["https://id.example", "alice"]], "it is known")
    finally:
        bench.stop()
    said = "These queries ran in a worker process whose memory passed its limit."
    told = [vars(record)["candidates"] for record in caplog.records if record.message == said]
    assert told[0] == "alice q-of-alice None; bob q-of-bob None"


def test_a_caller_whose_queries_end_workers_has_to_wait_at_every_worker(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(folder, workers=2, max_stuck=2)
    bench.supervisor.start()

    def restrained() -> list[object]:
        answers = bench.supervisor.ask_all("restrained")
        return [answer["callers"] for _, answer in answers if isinstance(answer, dict)]

    try:
        for number in (1, 2):
            assert restrained() == [[], []]
            ended = bench.tell(f"stuck https://id.example alice q-{number}")
            until(lambda ended=ended: not is_alive(ended), "it has ended, and takes no more connections")
            until(lambda number=number: bench.supervisor.replaced == {"stuck": number}, "it is replaced")
            until(lambda: bench.supervisor.state().ready == 2, "two answer")

        assert restrained() == [[["https://id.example", "alice"]]] * 2
    finally:
        bench.stop()
    told = [vars(record) for record in caplog.records if record.message == "A worker process is replaced."]
    assert [(found["user"], found["query_id"]) for found in told] == [("alice", "q-1"), ("alice", "q-2")]
    assert "A caller's queries had to be ended too often; the caller has to wait." in caplog.text
