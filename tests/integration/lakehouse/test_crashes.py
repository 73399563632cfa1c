"""Writers that are killed in the middle of whatever they do."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.lake import Lake, LakeLimits

pytestmark = pytest.mark.integration

KILLS = 6


def _messages(lake: Lake) -> list[str]:
    files = next(snapshot.files for snapshot in lake.snapshot() if snapshot.name == "log_entries")
    return [text for file in files for text in pq.ParquetFile(file).read().column("msg").to_pylist()]


def _write_until_killed(folder: Path, writer_id: str, *, after_rows: int) -> list[int]:
    """Run a writer and kill it once so many rows are acknowledged; return what it acknowledged."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.lakehouse.writing_child", str(folder), writer_id, "100000"],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
        text=True,
    )
    assert child.stdout is not None
    with child, child.stdout as output:
        acknowledged = [int(output.readline()) for _ in range(after_rows)]
        child.kill()
        # Rows that were acknowledged between the last line read and the kill.
        acknowledged += [int(line) for line in output.read().splitlines()]
    return acknowledged


def test_no_row_is_lost_torn_or_doubled_when_writers_are_killed(tmp_path: Path) -> None:
    lake = Lake(tmp_path, limits=LakeLimits(fan_in=3, tiers=3, grace_seconds=3.0))
    acknowledged: set[str] = set()

    for run in range(KILLS):
        writer_id = f"run{run}"
        numbers = _write_until_killed(tmp_path, writer_id, after_rows=8 + 5 * run)
        acknowledged.update(f"{writer_id}:{number}" for number in numbers)
        counts = Counter(_messages(lake))
        assert max(counts.values()) == 1
        assert acknowledged <= counts.keys()
        # At most the row that was under way is there without having been acknowledged.
        assert len(counts) <= len(acknowledged) + run + 1

    survivor = lake.open_writer("survivor")
    before = Counter(_messages(lake))
    survivor.maintain()
    files = next(snapshot.files for snapshot in lake.snapshot() if snapshot.name == "log_entries")
    survivor.close()
    assert Counter(_messages(lake)) == before
    assert len(files) == KILLS
