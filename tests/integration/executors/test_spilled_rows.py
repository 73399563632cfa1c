"""What a statement spilled goes with it, however it ends, and nothing of another server's goes along."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from grpc import StatusCode

from micromegas_jupyter.wiring.server_files import make_spill_folder
from tests.integration.executors.callers import BackgroundCall, Caller
from tests.integration.executors.conftest import ATTACKER, KEYS, OPTIONS
from tests.integration.executors.server_process import ServerProcess, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.integration

# It spills and spills, and comes to no end.
SPILLING = "SELECT value * 7919 % 100003 AS n FROM generate_series(1, 100000000000) ORDER BY n"
# It spills, and ends.
SPILLING_A_WHILE = "SELECT count(*) FROM (SELECT DISTINCT value * 7 AS n FROM generate_series(1, 12000000))"
LITTLE_MEMORY_MIB = 256


def _spilled(place: Path) -> list[Path]:
    """Return the files with rows; a statement may remove one at any moment."""
    found = [Path(folder, name) for folder, _, names in os.walk(place) for name in names]
    return [path for path in found if path.name != "stderr" and path.exists()]


def _kill_executor(server: ServerProcess, _call: BackgroundCall) -> None:
    executor = server.busiest_child()
    assert executor != server.front
    executor.kill()


@pytest.mark.parametrize(
    "end", [_kill_executor, lambda _server, call: call.call.cancel()], ids=["executor killed", "call cancelled"]
)
def test_what_a_statement_spilled_is_removed_when_it_ends(
    tmp_path: Path, end: Callable[[ServerProcess, BackgroundCall], None]
) -> None:
    place = tmp_path / "spill"
    place.mkdir()
    other = make_spill_folder(place)
    (other.path / "rows").write_bytes(b"of another server")
    with (
        ServerProcess(
            tmp_path / "server",
            lake=tmp_path / "lake",
            keys=KEYS,
            options=[*OPTIONS, "--spill-directory", str(place)],
            memory_mib=LITTLE_MEMORY_MIB,
        ) as server,
        BackgroundCall(server, KEYS[ATTACKER], SPILLING) as call,
    ):
        wait_until(lambda: len(_spilled(place)) > 1 or call.answer is not None, "it has spilled")

        assert call.answer is None, call.answer
        end(server, call)

        wait_until(lambda: _spilled(place) == [other.path / "rows"], "what it spilled is removed")
    assert list(place.iterdir()) == [other.path]
    other.close()


def test_what_is_spilled_is_told_in_the_audit(tmp_path: Path) -> None:
    with ServerProcess(
        tmp_path / "server", lake=tmp_path / "lake", keys=KEYS, options=OPTIONS, memory_mib=LITTLE_MEMORY_MIB
    ) as server:
        caller = Caller(server, KEYS[ATTACKER])

        answer = caller.run(SPILLING_A_WHILE)

        caller.close()
        assert answer.code is StatusCode.OK
        wait_until(lambda: len(server.audit_lines(sql=SPILLING_A_WHILE)) == 1, "its line is written")
        (line,) = server.audit_lines(sql=SPILLING_A_WHILE)
    assert line["spilled_bytes"] > 1 << 20
    assert line["spill_count"] > 0
    assert 0 < line["peak_memory_bytes"] < 1 << 30
