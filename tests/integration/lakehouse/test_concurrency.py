"""Processes that write, merge and read one lake at once, or are killed: each row is seen exactly once."""

import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import datafusion
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.maintenance import LakeLimits

pytestmark = pytest.mark.integration

ROWS = 150
GRACE_SECONDS = 3.0
REPOSITORY = Path(__file__).parents[3]
WRITING_CHILD = (sys.executable, "-m", "tests.integration.lakehouse.child", "write")


class Child:
    """A writing child and what it has acknowledged so far; it is killed after some rows, or ends by itself."""

    def __init__(self, folder, writer_id, *, rows=ROWS, grace_seconds=GRACE_SECONDS, kill_after=-1):
        self.writer_id = writer_id
        self._kill_after = kill_after
        self._acknowledged = 0
        command = [*WRITING_CHILD, str(folder), writer_id, str(rows), str(grace_seconds)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY, text=True)
        self.ended = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        with self._process.stdout as output:
            for line in output:
                self._acknowledged = int(line) + 1
                if self._acknowledged == self._kill_after:
                    self._process.kill()
        self._process.wait(timeout=60)
        self.ended.set()

    @property
    def acknowledged(self):
        return {f"{self.writer_id}:{number}" for number in range(self._acknowledged)}

    @property
    def exit_code(self):
        return self._process.returncode


def _files(lake):
    return next(snapshot.files for snapshot in lake.snapshot() if snapshot.name == "log_entries")


def _range(file):
    _, first, last = Path(file).stem.split("-")
    return first, last


def _messages(files):
    return [text for file in files for text in pq.ParquetFile(file).read(["msg"]).column("msg").to_pylist()]


def test_a_reader_always_sees_each_row_exactly_once(tmp_path):
    lake = Lake(tmp_path)
    children = [Child(tmp_path, "first"), Child(tmp_path, "second")]
    reads = merged_reads = 0

    while not all(child.ended.is_set() for child in children):
        acknowledged = set().union(*(child.acknowledged for child in children))
        began = time.monotonic()
        files = _files(lake)
        try:
            counts = Counter(_messages(files))
        except FileNotFoundError:
            # Merged files stay so long, and on a busy machine reading all may take longer.
            assert time.monotonic() - began > GRACE_SECONDS
            continue
        reads += 1
        merged_reads += any(first != last for first, last in map(_range, files))
        assert all(count == 1 for count in counts.values())
        assert acknowledged <= counts.keys()

    assert [child.exit_code for child in children] == [0, 0]
    assert len(_messages(_files(lake))) == 2 * ROWS
    assert reads > 5
    assert merged_reads > 0


def test_a_query_finds_its_files_while_others_merge_them(tmp_path):
    lake = Lake(tmp_path)
    # Longer than the other process takes on a busy machine: the files that are merged meanwhile have to stay.
    child = Child(tmp_path, "first", grace_seconds=600)
    while not _files(lake):
        assert not child.ended.wait(0.05)
    files = _files(lake)
    expected = len(_messages(files))

    context = datafusion.SessionContext()
    tables = [context.read_parquet(file) for file in files]
    assert child.ended.wait(60)

    assert sum(table.count() for table in tables) == expected


KILLS = 6


def test_no_row_is_lost_torn_or_doubled_when_writers_are_killed(tmp_path):
    lake = Lake(tmp_path, limits=LakeLimits(fan_in=3, tiers=3, grace_seconds=3.0))
    acknowledged = set()

    for run in range(KILLS):
        child = Child(tmp_path, f"run{run}", rows=100_000, kill_after=8 + 5 * run)
        assert child.ended.wait(60)
        acknowledged |= child.acknowledged
        counts = Counter(_messages(_files(lake)))
        assert max(counts.values()) == 1
        assert acknowledged <= counts.keys()
        # At most the row that was under way is there without having been acknowledged.
        assert len(counts) <= len(acknowledged) + run + 1

    survivor = lake.open_writer("survivor")
    before = Counter(_messages(_files(lake)))
    survivor.maintain()
    files = _files(lake)
    survivor.close()
    assert Counter(_messages(_files(lake))) == before
    assert len(files) == KILLS
