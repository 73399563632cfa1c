"""What queries spilled goes with the process that spilled it, also when that is killed."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.assembly.spill_directory import make_process_folder, remove_spilled_by_the_dead
from tests.integration.workers.calls import Given
from tests.integration.workers.serving import Serving, is_alive, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration
# It spills and spills, and comes to no end.
SPILLING = "SELECT value * 7919 % 100003 AS n FROM generate_series(1, 100000000000) ORDER BY n"


def has_rows(folder: Path) -> bool:
    for path in folder.glob(".tmp*/*"):
        with suppress(FileNotFoundError):  # the query may be done with it
            if path.stat().st_size:
                return True
    return False


@contextmanager
def spilled(server: Serving, place: Path) -> Iterator[Path]:
    """Have a query that has spilled and goes on; yield the folder where its rows are."""

    def found() -> list[Path]:
        return [folder for folder in place.iterdir() if has_rows(folder)]

    call = Given(server.address, SPILLING)
    try:
        until(lambda: bool(found()) or call.ended.is_set(), "it has spilled")
        (folder,) = found()
        yield folder
    finally:
        call.close()


def test_what_a_killed_process_spilled_is_removed_and_what_others_have_stays(tmp_path: Path) -> None:
    place = tmp_path / "spill"
    place.mkdir()
    other = make_process_folder(str(place))
    with Serving(
        tmp_path / "lake", "--disable-auth", "--no-telemetry", "--memory-mib", "64", "--workers", "1",
        "--spill-directory", str(place),
    ) as server:  # fmt: skip
        with spilled(server, place) as left:
            (killed,) = server.pids()
            os.kill(killed, signal.SIGKILL)
            until(lambda: not left.exists(), "the supervisor has removed it")
            until(lambda: server.ready_workers() == 1, "another worker answers")

        with spilled(server, place) as left:
            pids = server.pids() | {server.process.pid}
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            until(lambda: not any(is_alive(pid) for pid in pids), "all have ended")
        assert has_rows(left)

    # As the next server does when it starts; the last threads of a process that was killed may take a moment to end.
    until(lambda: remove_spilled_by_the_dead(str(place)) == 1, "it is removed")
    assert list(place.iterdir()) == [other.path]
    other.close()
