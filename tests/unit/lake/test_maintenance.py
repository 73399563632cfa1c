"""Maintenance makes tables smaller and quicker, and never loses, doubles or revives a row, whoever writes besides."""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from micromegas_jupyter.cli.main import run
from micromegas_jupyter.core.jsonb import encode
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.lake import maintenance
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.lease import TAKE_OVER_SECONDS
from micromegas_jupyter.lake.maintenance import MaintenanceSettings, read_status
from micromegas_jupyter.lake.tables import Tables
from micromegas_jupyter.lake.writer import LakeWriter
from micromegas_jupyter.telemetry.tables import HISTOGRAMS, LOG_ENTRIES, PROCESSES
from tests.fakes.clock import FakeClock
from tests.unit.engine.conftest import asking
from tests.unit.engine.test_increases import SUMS, mapped_rows, points

DAY = 24 * 3600
SOON = MaintenanceSettings(min_small_files=3, quiet_seconds=0.0)


@pytest.fixture
def storage(tmp_path):
    return Storage(tmp_path / "lake")


@pytest.fixture
def now():
    return FakeClock(datetime.now(UTC) + timedelta(seconds=30))  # when the rows have been written


@pytest.fixture
def run_round(storage, now):
    def run(settings=SOON, **options):
        return maintenance.run_round(storage, settings=settings, clock=options.pop("clock", now), **options)

    return run


@pytest.fixture
def append(storage):
    def write(numbers, *, table="numbers", days_ago=None, retention=None, **options):
        rows = {"number": pa.array(numbers, pa.int64())}
        if days_ago is not None:
            day = datetime.now(UTC) - timedelta(days=days_ago)
            rows["date"] = pa.array([day.date()] * len(numbers))
            options["partition_by"] = ["date"]
        if retention is not None:
            _create(storage.child_uri(table), pa.table(rows), retention, **options)
        write_deltalake(storage.child_uri(table), pa.table(rows), mode="append", **options)
        return DeltaTable(storage.child_uri(table))

    return write


def _create(uri, rows, retention, **options):
    # `write_deltalake` refuses properties of other programs.
    configuration = {"micromegas.retentionDays": retention}
    DeltaTable.create(
        uri, rows.schema, mode="ignore", configuration=configuration, raise_if_key_not_exists=False, **options
    )


def _numbers(storage, table="numbers"):
    return sorted(DeltaTable(storage.child_uri(table)).to_pyarrow_table()["number"].to_pylist())


def _file_count(storage, table="numbers"):
    return len(DeltaTable(storage.child_uri(table)).file_uris())


def test_many_small_files_become_one_and_old_versions_stay_readable(storage, append, run_round):
    for number in range(5):
        append([number, number + 100])

    report = run_round()

    assert _file_count(storage) == 1
    assert _numbers(storage) == [0, 1, 2, 3, 4, 100, 101, 102, 103, 104]
    assert DeltaTable(storage.child_uri("numbers"), version=2).to_pyarrow_table().num_rows == 6
    assert report.status.tables["numbers"].files == 1


def test_few_files_wait_until_their_day_is_over(storage, append, run_round):
    for number in range(2):
        append([number], days_ago=0)
        append([number], days_ago=1)

    run_round()

    table = DeltaTable(storage.child_uri("numbers"))
    today, yesterday = (datetime.now(UTC).date() - timedelta(days=days) for days in (0, 1))
    assert len(table.file_uris([("date", "=", str(today))])) == 2
    assert len(table.file_uris([("date", "=", str(yesterday))])) == 1
    assert _numbers(storage) == [0, 0, 1, 1]


def test_a_day_that_is_over_is_left_alone_while_rows_keep_coming(storage, append, run_round):
    append([1], days_ago=1)
    append([2], days_ago=1)

    run_round(MaintenanceSettings(quiet_seconds=600))
    assert _file_count(storage) == 2

    run_round(MaintenanceSettings(quiet_seconds=600), clock=FakeClock(datetime.now(UTC) + timedelta(seconds=601)))
    assert _file_count(storage) == 1


@pytest.mark.parametrize(
    "value", ["a b%/é", "", None, 7, date(2026, 1, 2), True, 1.5, Decimal("1.50"), datetime(2026, 1, 2, 3, tzinfo=UTC)]
)
def test_partitions_of_all_kinds_keep_their_rows(storage, run_round, value):
    uri = storage.child_uri("odd")
    for number in range(3):
        rows = pa.table({"part": pa.array([value], None if value is not None else pa.string()), "number": [number]})
        write_deltalake(uri, rows, mode="append", partition_by=["part"])
    before = DeltaTable(uri).to_pyarrow_table().sort_by("number")

    report = run_round()

    assert report.status.done == {"compacted_files": 3}
    assert DeltaTable(uri).to_pyarrow_table().sort_by("number").equals(before)


def test_older_files_get_the_columns_and_types_of_the_table(storage, append, run_round):
    append([1])
    uri = storage.child_uri("numbers")
    more = pa.table({"number": [2], "tags": [[("k", "v")]], "name": ["x"]}, schema=pa.schema(
        [("number", pa.int64()), ("tags", pa.map_(pa.string(), pa.string())), ("name", pa.string())]
    ))  # fmt: skip
    write_deltalake(uri, more, mode="append", schema_mode="merge")
    append([3], schema_mode="merge")

    run_round()

    rows = DeltaTable(uri).to_pyarrow_table().sort_by("number").to_pylist()
    assert rows == [
        {"number": 1, "tags": None, "name": None},
        {"number": 2, "tags": [("k", "v")], "name": "x"},
        {"number": 3, "tags": None, "name": None},
    ]


def test_statistics_of_a_compacted_file_are_exact(storage, run_round):
    uri = storage.child_uri("typed")
    time = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    for number in range(3):
        times = pa.array([time + timedelta(microseconds=number), None], pa.timestamp("us", "UTC"))
        rows = pa.table(
            {"time": times, "name": ["x" * 100, f"n{number}"], "day": [time.date()] * 2, "of": [float("nan"), 1.0]}
        )
        write_deltalake(uri, rows, mode="append")

    run_round()

    [file] = pa.table(DeltaTable(uri).get_add_actions(flatten=True)).to_pylist()
    assert (file["num_records"], file["null_count.time"], file["min.time"]) == (6, 3, time)
    assert file["max.time"] == time + timedelta(microseconds=2)
    assert (file["min.day"], file.get("max.name"), file.get("max.of")) == (time.date(), None, None)


def _log_rows(times, process_ids):
    columns = {
        field.name: pa.array(["x"] * len(times)).cast(pa.string()) for field in LOG_ENTRIES.schema
    } | {
        "insert_time": pa.array(times, pa.timestamp("us", "UTC")),
        "time": pa.array(times, pa.timestamp("us", "UTC")),
        "process_id": pa.array(process_ids),
        "level": pa.array([4] * len(times), pa.int32()),
        "properties": pa.array([encode({})] * len(times)),
        "process_properties": pa.array([encode({})] * len(times)),
        "date": pa.array([time.date() for time in times]),
    }  # fmt: skip
    return pa.table(columns)


def test_rows_of_the_data_model_are_sorted_by_process_and_time(storage, run_round):
    uri = storage.child_uri("log_entries")
    yesterday = datetime.now(UTC) - timedelta(days=1)
    day = yesterday.replace(hour=1, minute=0, second=0, microsecond=0)
    for number in range(3):
        times = [day + timedelta(seconds=5 - number), day + timedelta(seconds=number)]
        write_deltalake(uri, _log_rows(times, ["p2", "p1"]), mode="append", partition_by=["date"])

    run_round()

    rows = DeltaTable(uri).to_pyarrow_table()
    assert rows["process_id"].to_pylist() == ["p1"] * 3 + ["p2"] * 3
    assert [(time - day).seconds for time in rows["time"].to_pylist()] == [0, 1, 2, 3, 4, 5]


def test_states_of_a_process_become_one_once_their_day_is_over(storage, run_round):
    uri = storage.child_uri("processes")
    inserted = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    schema = pa.schema(
        [
            pa.field(f.name, pa.timestamp("us", "UTC") if pa.types.is_timestamp(f.type) else f.type)
            for f in PROCESSES.schema
        ]
    )
    for number in range(3):
        state = {
            "process_id": "p1",
            "exe": "demo",
            "insert_time": inserted,
            "properties": encode({"k": "v"}),
            "last_update_time": inserted + timedelta(seconds=number),
        }
        rows = pa.Table.from_pylist([state], schema).append_column("date", pa.array([inserted.date()]))
        write_deltalake(uri, rows, mode="append", partition_by=["date"])

    run_round()

    [row] = DeltaTable(uri).to_pyarrow_table().to_pylist()
    assert (row["exe"], row["last_update_time"]) == ("demo", inserted + timedelta(seconds=2))


def _between(monkeypatch, act):
    """Let another process act between the reading of a round's first snapshot and its commit."""
    commit = maintenance._Round._commit
    acts = [act]

    def with_other(*positional, **options):
        if acts:
            acts.pop()()
        return commit(*positional, **options)

    monkeypatch.setattr(maintenance._Round, "_commit", with_other)


OTHERS = {
    "append": (lambda table: write_deltalake(table, pa.table({"number": [9]}), mode="append"), [0, 1, 2, 3, 9], True),
    "delete": (lambda table: table.delete("number = 1"), [0, 2, 3], False),
    "delete all": (lambda table: table.delete(), [], False),
    "update": (
        lambda table: table.update(updates={"number": "number + 10"}, predicate="number < 2"),
        [2, 3, 10, 11],
        False,
    ),
    "optimize": (lambda table: table.optimize.compact(), [0, 1, 2, 3], False),
    "overwrite": (lambda table: write_deltalake(table, pa.table({"number": [5]}), mode="overwrite"), [5], False),
    "new column": (
        lambda table: write_deltalake(
            table, pa.table({"number": [9], "more": ["x"]}), mode="append", schema_mode="merge"
        ),
        [0, 1, 2, 3, 9],
        False,
    ),
}


@pytest.mark.parametrize("case", OTHERS.values(), ids=OTHERS)
def test_a_commit_of_another_process_during_compaction_counts(monkeypatch, storage, append, run_round, case):
    act, expected, is_compacted = case
    for number in range(4):
        append([number])
    _between(monkeypatch, lambda: act(DeltaTable(storage.child_uri("numbers"))))

    report = run_round()

    assert _numbers(storage) == expected
    assert ("conflicts" in report.status.done) is not is_compacted
    run_round()  # what lost is tried again
    assert _numbers(storage) == expected


LATE = {
    "delete": lambda table: table.delete("number = 1"),
    "update": lambda table: table.update(updates={"number": "number + 10"}, predicate="number < 2"),
    "optimize": lambda table: table.optimize.compact(),
    "z-order": lambda table: table.optimize.z_order(["number"]),
    "overwrite": lambda table: write_deltalake(table, pa.table({"number": [5]}), mode="overwrite"),
    "append": lambda table: write_deltalake(table, pa.table({"number": [9]}), mode="append"),
}


@pytest.mark.parametrize("act", LATE.values(), ids=LATE)
def test_another_process_that_began_before_a_compaction_is_refused_or_counts(storage, append, run_round, act):
    for number in range(4):
        stale = append([number])

    run_round()
    try:
        act(stale)
    except (CommitFailedError, DeltaError):
        assert _numbers(storage) == [0, 1, 2, 3]
    else:
        assert _numbers(storage) in ([0, 1, 2, 3, 9], [0, 2, 3], [2, 3, 10, 11], [5])


def test_rows_of_racing_writers_and_deleters_are_neither_lost_nor_doubled(storage, append, run_round):
    append([-1])
    uri = storage.child_uri("numbers")
    is_over = threading.Event()

    def write(first):
        for number in range(first, first + 20):
            rows = pa.table({"number": pa.array([number], pa.int64())})
            while True:
                with suppress(CommitFailedError):  # deltalake refuses an append beside its own deletes
                    write_deltalake(uri, rows, mode="append")
                    break

    def delete():
        deleted = []
        for number in range(0, 40, 4):
            with suppress(DeltaError):
                if DeltaTable(uri).delete(f"number = {number}")["num_deleted_rows"]:
                    deleted.append(number)
        return deleted

    def maintain():
        conflicts = compacted = 0
        while not is_over.is_set():
            done = run_round(MaintenanceSettings(min_small_files=2)).status.done
            conflicts, compacted = conflicts + done.get("conflicts", 0), compacted + done.get("compacted_files", 0)
        return compacted

    with ThreadPoolExecutor(5) as pool:
        compacted = pool.submit(maintain)
        writers = [pool.submit(write, first) for first in (0, 20)]
        deleted = [pool.submit(delete), pool.submit(delete)]
        wait([*writers, *deleted])
        is_over.set()

    for one in writers:
        one.result()
    gone = {number for one in deleted for number in one.result()}
    assert _numbers(storage) == sorted({-1, *range(40)} - gone)
    assert compacted.result() > 0


def test_vacuum_removes_what_no_recent_version_has_and_nothing_else(storage, append, run_round, now):
    for number in range(4):
        append([number])
    folder = Path(storage.child_uri("numbers"))
    old = time.time() - 25 * 3600
    for name in ("part-staged.parquet", ".part-staged.parquet.0123.tmp", "part-young.parquet"):
        (folder / name).write_bytes(b"x")
        if "young" not in name:
            os.utime(folder / name, (old, old))
    before = {path.name for path in folder.iterdir()}
    reader = DeltaTable(str(folder))

    run_round(clock=FakeClock(datetime.now(UTC)))

    assert before - {path.name for path in folder.iterdir()} == {"part-staged.parquet", ".part-staged.parquet.0123.tmp"}
    assert reader.to_pyarrow_table().num_rows == 4

    later = FakeClock(datetime.now(UTC) + timedelta(hours=25))
    run_round(replace(SOON, vacuum_hours=0), clock=later)
    assert len(list(folder.glob("*.parquet"))) == 1
    assert _numbers(storage) == [0, 1, 2, 3]


def test_the_log_is_checkpointed_and_stays_readable(storage, append, run_round):
    for number in range(4):
        append([number])

    report = run_round(replace(SOON, checkpoint_commits=4))

    version = DeltaTable(storage.child_uri("numbers")).version()
    assert report.status.done == {"compacted_files": 4, "checkpoints": 1}
    assert Path(storage.child_uri(f"numbers/_delta_log/{version:020}.checkpoint.parquet")).exists()
    assert _numbers(storage) == [0, 1, 2, 3]
    append([4])
    assert run_round(replace(SOON, checkpoint_commits=4)).status.done == {}


def test_days_beyond_the_retention_are_deleted(storage, append, run_round):
    for days_ago in (0, 6, 9, 20):
        append([days_ago], table="measures", days_ago=days_ago)
        append([days_ago], table="kept", days_ago=days_ago)
        append([days_ago], table="short", days_ago=days_ago, retention="1")

    run_round()

    assert [_numbers(storage, table) for table in ("measures", "kept", "short")] == [[0, 6], [0, 6, 9, 20], [0]]


def test_the_oldest_days_go_when_the_data_model_takes_too_much_room(storage, append, run_round):
    for days_ago in (0, 1, 2):
        append([days_ago], table="measures", days_ago=days_ago)
        append([days_ago], table="log_entries", days_ago=days_ago)
        append([days_ago], table="others", days_ago=days_ago)
    [size] = {*pa.table(DeltaTable(storage.child_uri("measures")).get_add_actions())["size_bytes"].to_pylist()}

    run_round(replace(SOON, max_total_bytes=4 * size))
    assert _numbers(storage, "measures") == _numbers(storage, "log_entries") == [0, 1]

    run_round(replace(SOON, max_total_bytes=1))
    assert _numbers(storage, "measures") == _numbers(storage, "log_entries") == [0]
    assert _numbers(storage, "others") == [0, 1, 2]


def test_old_rows_of_a_table_without_days_are_deleted_and_rows_without_a_time_kept(storage, run_round):
    uri = storage.child_uri("events")
    now = datetime.now(UTC)
    times = [now, now - timedelta(days=5), now - timedelta(days=2), None]
    rows = pa.table({"time": pa.array(times, pa.timestamp("us", "UTC")), "number": [0, 5, 2, -1]})
    _create(uri, rows, "3")
    write_deltalake(uri, rows, mode="append")

    run_round()

    assert _numbers(storage, "events") == [-1, 0, 2]
    assert run_round().status.done == {}


def test_a_round_that_lost_its_lease_leaves_what_is_not_done(monkeypatch, storage, append, run_round):
    for number in range(3):
        append([number])
    with monkeypatch.context() as patch:
        patch.setattr(maintenance.Lease, "is_held", lambda lease: lease._count < 1 and lease._write("me"))
        run_round()

    assert (_file_count(storage), _numbers(storage), read_status(storage)) == (3, [0, 1, 2], None)


def test_a_table_that_cannot_be_maintained_does_not_stop_the_others(storage, append, run_round):
    for number in range(3):
        append([number], table="broken")
        append([number], table="odd", configuration={"delta.enableChangeDataFeed": "true"})
        append([number])
    for path in Path(storage.child_uri("broken")).glob("*.parquet"):
        path.write_bytes(b"nothing")

    status = run_round().status

    assert (_file_count(storage), status.tables["numbers"].error) == (1, None)
    assert (_file_count(storage, "odd"), _numbers(storage, "odd")) == (3, [0, 1, 2])
    assert "broken" in status.tables["broken"].error
    assert "cannot write" in status.tables["odd"].error
    assert status.tables["broken"].lag_seconds > 0 or status.tables["broken"].error
    assert str(storage.uri) not in status.last_error


def test_one_process_at_a_time_maintains_a_lake_and_a_killed_one_is_followed(storage, append, run_round, now):
    for number in range(3):
        append([number])
    with subprocess.Popen(
        [sys.executable, "-c", _STOPPED_ROUND, storage.uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "in a round\n"

        assert run_round().status is None
        holder.kill()
        holder.wait()
    seen = run_round().seen
    now.advance(TAKE_OVER_SECONDS)

    assert run_round(seen=seen).status is not None
    assert (_file_count(storage), _numbers(storage)) == (1, [0, 1, 2])


_STOPPED_ROUND = """
import sys, time
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.lake import maintenance

def wait(*_, **__):
    print("in a round", flush=True)
    sys.stdin.read()

maintenance._Round._commit = wait
settings = maintenance.MaintenanceSettings(min_small_files=3)
maintenance.run_round(Storage(sys.argv[1]), settings=settings)
"""


def test_dropped_tables_are_removed_after_a_day(storage, append, run_round):
    append([1])
    Tables(storage).drop("numbers")
    [remains] = Path(storage.child_uri("_micromegas/dropped")).iterdir()

    assert run_round().status.tables == {}
    assert remains.exists()
    run_round(clock=FakeClock(datetime.now(UTC) + timedelta(hours=25)))
    assert not remains.exists()


def test_a_table_that_is_dropped_and_made_again_during_compaction_is_left_alone(
    monkeypatch, storage, append, run_round
):
    for number in range(3):
        append([number])

    def replace_table():
        Tables(storage).drop("numbers")
        append([7])

    fit = maintenance._fit
    acts = [replace_table]
    monkeypatch.setattr(maintenance, "_fit", lambda *arguments: (acts and acts.pop()(), fit(*arguments))[1])
    run_round()

    assert _numbers(storage) == [7]
    assert DeltaTable(storage.child_uri("numbers")).version() == 0


def test_the_status_of_a_lake_is_shown(storage, append, run_round, capsys):
    append([1])
    assert run(["lake", "status", storage.uri]) == 2
    run_round()
    capsys.readouterr()

    assert run(["lake", "status", storage.uri]) == 0
    shown = capsys.readouterr().out
    assert run(["lake", "status", storage.uri, "--json"]) == 0

    assert "numbers" in shown
    assert "free disk" in shown
    assert json.loads(capsys.readouterr().out)["tables"]["numbers"]["files"] == 1


def test_histograms_are_compacted_and_deleted_with_their_days(storage, run_round):
    writer = LakeWriter(storage, interval_seconds=0)
    try:
        for days_ago in (20, 1, 0):
            for values in ([1.0], [5.0, 20.0], [200.0]):
                metric = points([values], start=-days_ago * 24 * 60, temporality=1)
                for table, rows in mapped_rows(metric, name=f"{days_ago}-{len(values)}-{values[0]}"):
                    writer.append(table, rows).result(60)
    finally:
        writer.close()
    parts = ", ".join(f"histogram['{name}'] AS {name}" for name in ("count", "sum", "bounds", "indices", "counts"))
    statement = f"SELECT time, series, {parts} FROM histograms ORDER BY time, series"
    with asking(Lake(storage)) as ask:
        before = ask.rows(statement)
        assert ask.rows(SUMS) == [{"n": 12, "total": 3 * 226.0}]

        run_round()

        assert ask.rows(statement) == before[3:]
        assert ask.rows(SUMS) == [{"n": 8, "total": 2 * 226.0}]
    assert _file_count(storage, HISTOGRAMS.name) == 2
