"""A real process records itself; an engine and a plain Parquet reader find what it did."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from deltalake import DeltaTable

from micromegas_jupyter.core.jsonb import encode
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.lake.lake import Lake
from tests.unit.engine.conftest import asking

pytestmark = pytest.mark.integration

SAMPLES = 4


def _query(lake, sql):
    with asking(lake) as ask:
        return [tuple(row.values()) for row in ask.rows(sql)]


def _sample_count(folder):
    if not DeltaTable.is_deltatable(str(folder / "measures")):
        return 0
    names = DeltaTable(folder / "measures").to_pyarrow_table(columns=["name"])["name"].to_pylist()
    return names.count("process_resident_bytes")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A lake with one process that has ended, and its id."""
    folder = tmp_path_factory.mktemp("lake")
    lake = Lake(Storage(folder))
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.lakehouse.child", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
        text=True,
    )
    with child:
        process_id = child.stdout.readline().strip()
        while _sample_count(folder) < SAMPLES:
            threading.Event().wait(0.05)
        child.stdin.close()
    assert child.returncode == 0
    return lake, process_id


def test_the_log_can_be_queried(recorded):
    lake, process_id = recorded

    rows = _query(
        lake, "SELECT process_id, exe, level, msg, properties FROM log_entries WHERE target = 'child' ORDER BY time"
    )

    assert rows == [
        (process_id, "recording child", 4, "started", encode({"step": "1"})),
        (process_id, "recording child", 2, "last words, Bearer ***", encode({})),
    ]


def test_measures_can_be_queried(recorded):
    rows = _query(
        recorded[0],
        "SELECT name, unit, count(*) AS n, max(value) AS highest FROM measures "
        "WHERE name IN ('process_resident_bytes', 'process_cpu_usage') GROUP BY name, unit ORDER BY name",
    )

    (usage, memory) = rows
    assert (usage[:2], memory[:2]) == (("process_cpu_usage", "percent"), ("process_resident_bytes", "bytes"))
    # A rate needs two samples, so there is one less of it.
    assert usage[2] == memory[2] - 1 >= SAMPLES - 1
    assert memory[3] > 10_000_000
