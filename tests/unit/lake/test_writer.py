"""What a lake acknowledges is stored once, durably, and where deltalake finds it."""

import contextlib
import json
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from micromegas_jupyter.core.jsonb import encode
from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.errors import ResourcesExhausted, Unavailable, UsageError
from micromegas_jupyter.lake import writer as writer_module
from micromegas_jupyter.lake.tables import Tables
from micromegas_jupyter.lake.writer import LakeWriter
from tests.fakes.telemetry_rows import NOON, NOON_NS, log_batch
from tests.fakes.waiting import wait_until

ROWS = pa.table({"id": [1, 2, 3]})
TIME = pa.timestamp("us", "UTC")
DAY_NS = 86_400_000_000_000


def actions(storage, table, kind):
    """Return the actions of a kind in the log, by version."""
    entries = sorted(storage.list(f"{table}/_delta_log"))
    lines = [line for entry in entries for line in storage.read(entry.path)[0].splitlines()]
    return [action[kind] for action in map(json.loads, lines) if kind in action]


def test_what_is_acknowledged_is_there(store, read):
    assert store("t", ROWS, "create") == 3
    assert store("t", ROWS) == 3
    assert store("t", ROWS, "create_append") == 3
    assert store("t", ROWS.slice(0, 0)) == 0

    assert sorted(read("t").column("id").to_pylist()) == [1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_a_table_without_rows_is_created(store, read):
    assert store("t", ROWS.slice(0, 0), "create") == 0

    assert read("t").schema == ROWS.schema


def test_a_table_that_does_not_fit_the_mode_is_refused(store):
    with pytest.raises(UsageError):
        store("t", ROWS)
    store("t", ROWS, "create")
    with pytest.raises(UsageError):
        store("t", ROWS, "create")
    for mode in ("create", "replace"):
        with pytest.raises(UsageError):
            store("log_entries", pa.table(log_batch([1])), mode)


def test_a_replaced_table_has_the_new_rows_and_columns_only(store, read, tables):
    store("t", ROWS, "create", maker="me")
    other = pa.table({"time": pa.array([1], pa.timestamp("us")), "text": ["x"]})

    assert store("t", other, "replace", write_id="a") == 1
    assert store("t", other, "replace", write_id="a") == 1
    store("t", other)

    assert read("t").to_pydict()["text"] == ["x", "x"]
    assert read("t").schema == other.schema
    assert tables.owner("t") == "me"
    store("u", ROWS, "replace")
    assert read("u").num_rows == 3


def test_of_two_that_replace_a_table_not_there_yet_the_later_wins(writer, read):
    request = WriteRequest(table="t", mode=WriteMode.REPLACE)
    others = pa.table({"text": ["x"]})
    writes = [writer.open_write(request, rows.schema) for rows in (ROWS, others)]
    for write, rows in zip(writes, (ROWS, others), strict=True):
        write.write(rows.to_batches()[0])

    assert [write.commit() for write in writes] == [3, 1]

    assert read("t") == others


def test_a_table_that_somebody_else_made_meanwhile_is_not_replaced(writer, tables, read):
    rows = pa.table({"n": [1]})
    request = WriteRequest(table="t", mode=WriteMode.REPLACE, maker="ann")
    write = writer.open_write(request, rows.schema)
    write.write(rows.to_batches()[0])
    tables.create("t", pa.schema([("theirs", pa.int64())]), owner="bob")

    with pytest.raises(UsageError, match="already exists"):
        write.commit()

    assert read("t").column_names == ["theirs"]


def test_a_write_with_an_id_is_stored_once(store, read, storage):
    for mode in ("create", "append", "create_append"):
        assert store("t", ROWS, mode, write_id="a" if mode == "create" else "b") == 3
    assert store("t", ROWS, "create", write_id="a") == 3
    with pytest.raises(UsageError):
        store("t", ROWS.slice(1), write_id="b")

    assert read("t").num_rows == 6
    other = LakeWriter(storage)
    assert other.append("t", ROWS, write_id="b").result() == 3
    other.close()
    assert read("t").num_rows == 6


def test_writes_of_one_id_at_once_are_stored_once(storage, tables, read):
    tables.create("t", ROWS.schema)
    writers = [LakeWriter(storage, interval_seconds=0) for _ in range(4)]
    ids = [f"write-{number}" for number in range(25)]

    futures = [writer.append("t", ROWS, write_id=one) for one in ids for writer in writers for _ in range(2)]

    assert {future.result() for future in futures} == {3}
    for writer in writers:
        writer.close()
    assert read("t").num_rows == 3 * len(ids)
    assert sorted(one["appId"] for one in actions(storage, "t", "txn")) == sorted(ids)


def test_ids_are_found_in_a_checkpoint(storage, store, tables, read):
    store("t", ROWS, "create", write_id="first")
    store("t", ROWS, write_id="second")
    DeltaTable(storage.child_uri("t")).create_checkpoint()
    for version in (0, 1):
        storage.delete(f"t/_delta_log/{version:020}.json")
    store("t", ROWS, write_id="third")

    other = LakeWriter(storage)
    for one in ("first", "second", "third"):
        assert other.append("t", ROWS, write_id=one).result() == 3
    other.close()

    assert read("t").num_rows == 9


def test_writes_that_wait_share_a_commit(storage, tables):
    tables.create("t", ROWS.schema)
    writer = LakeWriter(storage)

    wait([writer.append("t", ROWS) for _ in range(200)])
    writer.close()

    table = DeltaTable(storage.child_uri("t"))
    assert table.count() == 600
    assert table.version() < 20


def test_commits_of_other_writers_come_in_between(storage, store, read):
    store("t", ROWS, "create")
    for number in range(5):
        write_deltalake(storage.child_uri("t"), ROWS, mode="append")
        assert store("t", ROWS, write_id=f"{number}") == 3

    assert read("t").num_rows == 33
    assert DeltaTable(storage.child_uri("t")).version() == 10


def test_rows_of_the_data_model_are_partitioned_by_day_and_cut_to_microseconds(storage, writer, read):
    writer.append("log_entries", log_batch([123_456_789, 2 * DAY_NS])).result()

    rows = read("log_entries").sort_by("time")

    assert rows.column("time").cast(pa.int64()).to_pylist() == [
        NOON_NS // 1000 + 123_456,
        (NOON_NS + 2 * DAY_NS) // 1000,
    ]
    assert rows.column("date").to_pylist() == [NOON.date(), NOON.date() + timedelta(days=2)]
    assert DeltaTable(storage.child_uri("log_entries")).metadata().partition_columns == ["date"]


def test_rows_of_too_many_days_are_refused(writer):
    with pytest.raises(ResourcesExhausted):
        writer.append("log_entries", log_batch([day * DAY_NS for day in range(2000)])).result()


def test_statistics_bound_each_value(storage, store):
    rows = pa.table(
        {
            "time": pa.array([1_700_000_000_123_457, 1_700_000_000_123_456, None], TIME),
            "id": [2**62 + 1, -(2**62), 0],
            "real": [0.0, float("inf"), 1.5],
            "odd": [float("nan"), 1.0, 2.0],
            "text": ["é" * 64, "z", ""],
            "long": ["x" * 65, None, ""],
            "flag": [True, None, False],
            "bytes": [b"a", b"b", b"c"],
            "list": [[1], [], None],
        }
    )
    store("t", rows, "create")

    (added,) = actions(storage, "t", "add")
    found = json.loads(added["stats"])

    assert found["numRecords"] == 3
    assert found["minValues"] == {"time": "2023-11-14T22:13:20.123456Z", "id": -(2**62), "text": ""}
    assert found["maxValues"] == {"time": "2023-11-14T22:13:20.123457Z", "id": 2**62 + 1, "text": "é" * 64}
    assert found["nullCount"] == {"time": 1, "id": 0, "real": 0, "odd": 0, "text": 0, "long": 1, "flag": 1, "bytes": 0}


def test_rows_of_a_file_are_in_order_of_time(store, read):
    store("t", pa.table({"time": pa.array([3, None, 1, 2], TIME), "id": [3, 4, 1, 2]}), "create")

    assert read("t").column("id").to_pylist() == [1, 2, 3, 4]


def test_polars_reads_what_is_written(storage, store, tables):
    names = ["a b", "ü,;{}()=`\"'.", "%2F/\\", "select"]
    rows = pa.table(
        {
            **{name: [1, 2, None] for name in names},
            "time": pa.array([1, 2, 3], pa.timestamp("ns", "UTC")).cast(TIME, safe=False),
            "text": ["x", "ß", None],
            "nested": [[{"a": 1, "b": ["c"]}], [], None],
        }
    )
    store("t", rows, "create")
    store("t", rows)
    tables.delete("t", "text = 'x'")
    expected = pa.concat_tables([rows.slice(1)] * 2)

    polars = pl.read_delta(storage.child_uri("t")).to_arrow()

    order = [("text", "ascending"), (names[0], "ascending")]
    assert polars.cast(rows.schema).sort_by(order).to_pydict() == expected.sort_by(order).to_pydict()


def test_files_say_that_properties_are_dictionaries_and_others_read_their_values(storage, writer, read, tables):
    writer.append("log_entries", log_batch(range(3))).result()
    writer.append("log_entries", log_batch(range(3, 6))).result()

    uri = storage.child_uri("log_entries")
    for file in DeltaTable(uri).file_uris():
        assert pq.read_schema(file).field("properties").type == pa.dictionary(pa.int32(), pa.binary())
    assert read("log_entries")["process_properties"].to_pylist() == [encode({"version": "1"})] * 6
    assert pl.read_delta(uri)["process_properties"].to_list() == [encode({"version": "1"})] * 6
    assert tables.delete("log_entries", "msg = 'w:1'").rows == 1
    assert len(read("log_entries")) == 5


def test_a_large_write_becomes_whole_files_in_one_commit(storage, writer, read, monkeypatch):
    monkeypatch.setattr(writer_module, "STAGE_BYTES", 64 * 1024)
    batch = pa.record_batch({"id": pa.array(range(5000))})
    request = WriteRequest(table="t", mode=WriteMode.CREATE_OR_APPEND)
    for expected in (20_000, 40_000):
        write = writer.open_write(request, batch.schema)
        for _ in range(4):
            write.write(batch)
        assert write.commit() == 20_000
        assert read("t").num_rows == expected

    table = DeltaTable(storage.child_uri("t"))
    assert table.version() == 1
    assert len(table.file_uris()) > 2


def test_an_abandoned_write_leaves_only_what_vacuum_removes(storage, writer, store, read, monkeypatch):
    monkeypatch.setattr(writer_module, "STAGE_BYTES", 1024)
    store("t", ROWS, "create")
    batch = pa.record_batch({"id": pa.array(range(5000))})
    for table, mode in (("t", WriteMode.APPEND), ("u", WriteMode.CREATE)):
        write = writer.open_write(WriteRequest(table=table, mode=mode), batch.schema)
        write.write(batch)
        write.abandon()
    table = DeltaTable(storage.child_uri("t"))

    removed = table.vacuum(0, enforce_retention_duration=False, dry_run=False, full=True)

    assert len(removed) == 1
    assert read("t").num_rows == 3
    assert not DeltaTable.is_deltatable(storage.child_uri("u"))


def test_a_table_dropped_while_rows_are_sent_is_named(writer, store, tables, read):
    store("t", ROWS, "create")
    write = writer.open_write(WriteRequest(table="t", mode=WriteMode.APPEND), ROWS.schema)
    write.write(ROWS.to_batches()[0])
    tables.drop("t")

    with pytest.raises(UsageError):
        write.commit()
    with pytest.raises(UsageError):
        store("t", ROWS)

    assert tables.list() == ()
    store("t", pa.table({"other": ["x"]}), "create")
    with pytest.raises(UsageError):
        store("t", ROWS)
    assert read("t").num_rows == 1


def test_columns_changed_while_rows_are_sent(writer, store, tables, read):
    store("t", ROWS, "create")
    request = WriteRequest(table="t", mode=WriteMode.APPEND)
    first, second = (writer.open_write(request, ROWS.schema) for _ in range(2))
    for write in (first, second):
        write.write(ROWS.to_batches()[0])

    tables.add_column("t", pa.field("new", pa.int8()))
    assert first.commit() == 3
    store("t", pa.table({"id": ["text"]}), "replace")
    with pytest.raises(UsageError):
        second.commit()

    assert read("t").to_pydict() == {"id": ["text"]}


def test_drops_and_writes_at_once_leave_no_table_without_its_rows(storage, tables):
    """Each acknowledged write was in the table when it was acknowledged, and no drop leaves half a table."""
    writer = LakeWriter(storage, interval_seconds=0)
    is_over = threading.Event()

    def write():
        while not is_over.is_set():
            try:
                writer.append("t", ROWS).result()
            except UsageError:
                continue

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(write) for _ in range(4)]
        for _ in range(8):
            tables.create("t", ROWS.schema)
            tables.drop("t")
        is_over.set()
        wait(running)
        writer.close()

    assert [future.exception() for future in running] == [None] * 4
    assert (tables.list(), storage.list_folders()) == ((), ["_micromegas"])


def test_a_closed_writer_has_stored_what_it_took(storage, tables, read):
    tables.create("t", ROWS.schema)
    writer = LakeWriter(storage, interval_seconds=60)
    futures = [writer.append("t", ROWS) for _ in range(3)]

    writer.close()
    writer.close()

    assert [future.result() for future in futures] == [3, 3, 3]
    assert read("t").num_rows == 9
    with pytest.raises(Unavailable):
        writer.append("t", ROWS)


def test_rows_are_not_put_before_a_checkpoint_after_log_entries_were_cleaned_up(storage, tables, read):
    tables.create("t", pa.schema([("n", pa.int64())]))
    idle, other = LakeWriter(storage), LakeWriter(storage, interval_seconds=0)
    idle.append("t", pa.table({"n": [1]})).result()
    for _ in range(5):
        other.append("t", pa.table({"n": [2]})).result()
    DeltaTable(storage.child_uri("t")).create_checkpoint()
    two_days_ago = time.time() - 2 * 86_400
    for entry in Path(storage.child_uri("t/_delta_log")).glob("*.json"):
        os.utime(entry, (two_days_ago, two_days_ago))
    DeltaTable(storage.child_uri("t")).cleanup_metadata()

    assert idle.append("t", pa.table({"n": [3]})).result() == 1

    assert sorted(read("t")["n"].to_pylist()) == [1, 2, 2, 2, 2, 2, 3]
    idle.close()
    other.close()


@pytest.mark.parametrize("partition_by", [(), ("n",)])
def test_files_of_another_partitioning_are_refused(writer, store, tables, monkeypatch, partition_by):
    monkeypatch.setattr(writer_module, "STAGE_BYTES", 1)
    rows = pa.table({"n": [1], "word": ["x"]})
    if partition_by:  # another call creates the table meanwhile
        write = writer.open_write(WriteRequest(table="t", mode=WriteMode.CREATE_OR_APPEND), rows.schema)
        write.write(rows.to_batches()[0])
        tables.create("t", rows.schema, partition_by=partition_by)
    else:  # another call replaces it
        tables.create("t", rows.schema, partition_by=["n"])
        write = writer.open_write(WriteRequest(table="t", mode=WriteMode.APPEND), rows.schema)
        write.write(rows.to_batches()[0])
        store("t", rows.slice(0, 0), "replace")

    with pytest.raises(UsageError, match=r"changed while|created by another"):
        write.commit()

    assert tables.describe("t")["row_count"] == 0


def open_folders(root):
    """Return the folders of a lake that this process has open, by the names of their tables."""
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(descriptor.readlink())
    return sorted(link.parent.name for link in links if link.is_relative_to(root))


def test_of_many_tables_only_those_written_to_last_stay_open(storage, tables, monkeypatch, tmp_path):
    monkeypatch.setattr(writer_module, "_MAX_IDLE_TABLES", 3)
    writer = LakeWriter(storage, interval_seconds=0)
    for name in ("first", "often", *(f"t{number}" for number in range(30))):
        tables.create(name, ROWS.schema)
    early = writer.open_write(WriteRequest(table="first", mode=WriteMode.APPEND), ROWS.schema)
    early.write(ROWS.to_batches()[0])

    kept = set()
    for number in range(30):
        for name in ("often", f"t{number}"):
            writer.append(name, ROWS).result()
            wait_until(lambda: all(one.is_idle for one in writer._committers.values()), "all are idle")
        kept.add(id(writer._committers["often"]))

    assert len(kept) == 1
    assert open_folders(tmp_path / "lake") == ["often", "t27", "t28", "t29"]
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("commit-")] == []
    assert early.commit() == 3
    writer.close()
    assert open_folders(tmp_path / "lake") == []


def test_a_table_that_is_closed_while_it_is_looked_at_takes_the_rows(storage, tables, read, monkeypatch):
    monkeypatch.setattr(writer_module, "_MAX_IDLE_TABLES", 1)
    writer, check_fits, looks = LakeWriter(storage, interval_seconds=0), writer_module.check_fits, []
    for name in ("t", "u", "v", "w"):
        tables.create(name, ROWS.schema)
    writer.append("t", ROWS).result()
    tables.add_column("t", pa.field("word", pa.string()))

    def check_late(*arguments, **options):
        if not looks:
            looks.append("t")
            for name in ("u", "v", "w"):
                writer.append(name, ROWS).result()
                wait_until(lambda: all(one.is_idle for one in writer._committers.values()), "all are idle")
            assert "t" not in writer._committers
        check_fits(*arguments, **options)

    monkeypatch.setattr(writer_module, "check_fits", check_late)

    assert writer.append("t", ROWS.append_column("word", pa.array(["x"] * 3))).result() == 3

    assert read("t")["word"].to_pylist().count("x") == 3
    writer.close()


def test_writes_that_wait_hold_so_much_memory_together(storage, tables, read, monkeypatch):
    monkeypatch.setattr(writer_module, "_MAX_GROUPED_BYTES", 1000)
    monkeypatch.setattr(writer_module, "_MAX_WAITING_BYTES", 10_000)
    writer = LakeWriter(storage, interval_seconds=0)
    batch = pa.record_batch({"n": pa.array(range(500), pa.int64())})
    tables.create("t", batch.schema)
    writes = [writer.open_write(WriteRequest(table="t", mode=WriteMode.APPEND), batch.schema) for _ in range(10)]

    for write in writes * 3:
        write.write(batch)
        assert writer._waiting_bytes <= 10_000
    assert sum(write.commit() for write in writes[1:]) == 9 * 1500
    writes[0].abandon()

    assert (writer._waiting_bytes, read("t").num_rows) == (0, 9 * 1500)
    writer.close()


def test_a_table_of_many_commits_is_opened_with_a_checkpoint_and_keeps_its_ids(storage, read):
    def append(writer, write_id):
        request = WriteRequest(table="t", mode=WriteMode.APPEND, write_id=write_id, may_read=True, is_short_lived=True)
        write = writer.open_write(request, ROWS.schema)
        write.write(ROWS.to_batches()[0])
        return write.commit()

    Tables(storage).create("t", ROWS.schema)
    first, second = LakeWriter(storage, interval_seconds=0), LakeWriter(storage, interval_seconds=0)
    for number in range(101):
        append(first, f"id-{number}")
    first.close()
    assert append(second, "id-0") == 3
    second.close()

    assert read("t").num_rows == 303
    assert json.loads(storage.read("t/_delta_log/_last_checkpoint")[0])["version"] == 101
    assert DeltaTable(storage.child_uri("t")).transaction_version("id-0") is None


def test_rows_for_a_table_of_an_earlier_version_are_refused_with_the_reason(storage, writer):
    rows = {"time": [NOON], "properties": pa.array([[("a", "1")]], pa.map_(pa.utf8(), pa.utf8()))}
    write_deltalake(storage.child_uri("log_entries"), pa.table(rows))

    with pytest.raises(Unavailable, match="not those of the data model") as error:
        writer.append("log_entries", log_batch(range(3)))
    assert not error.value.retryable
    shutil.rmtree(storage.child_uri("log_entries"))

    assert writer.append("log_entries", log_batch(range(3))).result() == 3
