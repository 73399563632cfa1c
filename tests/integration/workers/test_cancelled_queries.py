"""What nobody waits for any more stops using the processors, if need be with the process that it runs in.

Every kind of statement and every way of giving it up in the long run; else each kind in one way, all ways in turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
import pytest

from tests.integration.workers.calls import WAYS, Late
from tests.integration.workers.serving import Serving, cpu_seconds, until, watch_until_quiet
from tests.integration.workers.statements import STATEMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

STOP_SECONDS = 2.0


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    ways = list(WAYS)
    if metafunc.config.getoption("--long"):
        cases = [(kind, way) for kind in STATEMENTS for way in ways]
    else:
        cases = [(kind, ways[index % len(ways)]) for index, kind in enumerate(STATEMENTS)]
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize(("kind", "way"), cases)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("workers")
    with Serving(folder / "lake", "--disable-auth", "--no-telemetry", "--drain-seconds", "1") as running:
        yield running


def test_it_stops_within_two_seconds(server: Serving, kind: str, way: str) -> None:
    until(lambda: server.ready_workers() == 2, "both workers answer")
    workers = server.pids()
    before = cpu_seconds(workers)
    call = WAYS[way](server, STATEMENTS[kind])
    try:
        until(
            lambda: cpu_seconds(workers) - before > 0.5 or (isinstance(call, Late) and call.is_over),
            "the statement is being worked on",
        )

        call.give_up()

        spent = watch_until_quiet(workers)
    finally:
        call.close()
    # Two seconds of every processor; how long that takes depends on what else the machine does.
    assert spent <= STOP_SECONDS * (psutil.cpu_count() or 1)
