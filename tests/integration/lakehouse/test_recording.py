"""A real process records itself; an engine and a plain Parquet reader find what it did."""

import subprocess
import sys
import threading
from pathlib import Path

import datafusion
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.lake.lake import Lake

pytestmark = pytest.mark.integration

SAMPLES = 4


def _read(snapshot: TableSnapshot) -> pa.Table:
    return pa.concat_tables([pq.ParquetFile(file).read() for file in snapshot.files])


def _query(lake: Lake, sql: str) -> list[dict[str, object]]:
    context = datafusion.SessionContext()
    for snapshot in lake.snapshot():
        if not snapshot.files:
            context.register_record_batches(snapshot.raw_name or snapshot.name, [[snapshot.schema.empty_table()]])
            continue
        files = context.read_parquet(snapshot.files[0])
        for file in snapshot.files[1:]:
            files = files.union(context.read_parquet(file))
        context.register_view(snapshot.raw_name or snapshot.name, files)
        if snapshot.merge_sql is not None:
            context.register_view(snapshot.name, context.sql(snapshot.merge_sql))
    return context.sql(sql).to_pylist()


def _sample_count(lake: Lake) -> int:
    measures = next(table for table in lake.snapshot() if table.name == "measures")
    names = [name for file in measures.files for name in pq.ParquetFile(file).read(["name"])["name"].to_pylist()]
    return names.count("process_resident_bytes")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, str, float]:
    """A lake with one process that has ended, its id, and how long its first line took to be readable."""
    folder = tmp_path_factory.mktemp("lake")
    lake = Lake(folder)
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.lakehouse.recording_child", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    pause = threading.Event()
    waited = 0.0
    with child:
        process_id = child.stdout.readline().strip()
        while not next(table for table in lake.snapshot() if table.name == "log_entries").files:
            pause.wait(0.05)
            waited += 0.05
            assert waited < 30
        while _sample_count(lake) < SAMPLES:
            pause.wait(0.05)
        child.stdin.close()
    assert child.returncode == 0
    return lake, process_id, waited


def test_every_file_has_its_tables_schema(recorded: tuple[Lake, str, float]) -> None:
    for snapshot in recorded[0].snapshot():
        assert snapshot.files
        for file in snapshot.files:
            assert pq.ParquetFile(file).schema_arrow.equals(snapshot.schema)
        _read(snapshot).validate(full=True)


def test_the_log_can_be_queried(recorded: tuple[Lake, str, float]) -> None:
    lake, process_id, _ = recorded

    rows = _query(
        lake,
        "SELECT process_id, exe, level, msg, properties FROM log_entries WHERE target = 'child' ORDER BY time",
    )

    assert rows == [
        {
            "process_id": process_id,
            "exe": "recording child",
            "level": 4,
            "msg": "started",
            "properties": [("step", "1")],
        },
        {
            "process_id": process_id,
            "exe": "recording child",
            "level": 2,
            "msg": "last words, Bearer ***",
            "properties": [],
        },
    ]


def test_measures_can_be_queried(recorded: tuple[Lake, str, float]) -> None:
    rows = _query(
        recorded[0],
        "SELECT name, unit, count(*) AS n, max(value) AS highest FROM measures "
        "WHERE name IN ('process_resident_bytes', 'process_cpu_usage') GROUP BY name, unit ORDER BY name",
    )

    assert [(row["name"], row["unit"]) for row in rows] == [
        ("process_cpu_usage", "percent"),
        ("process_resident_bytes", "bytes"),
    ]
    # A rate needs two samples, so there is one less of it.
    assert rows[0]["n"] == rows[1]["n"] - 1
    assert rows[0]["n"] >= SAMPLES - 1
    assert rows[1]["highest"] > 10_000_000


def test_process_and_streams_are_one_row_each(recorded: tuple[Lake, str, float]) -> None:
    lake, process_id, _ = recorded

    processes = _query(lake, "SELECT process_id, exe, last_update_time > start_time AS alive FROM processes")
    raw = _query(lake, "SELECT count(*) AS n FROM __processes__partitions")
    streams = _query(lake, "SELECT tags, process_id FROM streams ORDER BY tags")

    assert processes == [{"process_id": process_id, "exe": "recording child", "alive": True}]
    # At the begin, at the end, and every ten seconds.
    assert raw[0]["n"] >= 2  # type: ignore[operator]
    assert streams == [
        {"tags": ["log"], "process_id": process_id},
        {"tags": ["metrics"], "process_id": process_id},
    ]
