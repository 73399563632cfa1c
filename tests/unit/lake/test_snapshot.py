"""A lake's tables are followed as others commit to them, cheaply, and no answer differs from Delta's own."""

import functools
import json
import random
import shutil
from datetime import timedelta
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.lake import snapshot
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.snapshot import DeltaSnapshots
from micromegas_jupyter.telemetry.tables import BLOCKS, LOG_ENTRIES, OTEL_SPANS
from tests.fakes.telemetry_rows import NOON, NOON_NS, block_rows, log_batch, log_rows, span_rows
from tests.unit.engine.conftest import asking

TIME = pa.timestamp("us", "UTC")
DAY_NS = 86_400_000_000_000


def events(*numbers):
    return pa.table({"n": pa.array(numbers, pa.int64()), "time": pa.array(numbers, TIME)})


def follow(folder):
    return DeltaSnapshots(Storage(folder))


class Following:
    """Followed tables as a source of an engine."""

    def __init__(self, tables):
        self.tables = tables

    def snapshot(self, sql=None):
        return tuple(self.tables.list(sql).values())


def test_a_table_is_the_same_object_until_a_commit_and_a_commit_is_seen_at_once(tmp_path):
    write_deltalake(str(tmp_path / "t"), events(1))
    write_deltalake(str(tmp_path / "u"), events(1))
    tables = follow(tmp_path)
    before = tables.list(None)

    assert all(tables.list("SELECT * FROM t, u")[name] is before[name] for name in "tu")
    write_deltalake(str(tmp_path / "t"), events(2), mode="append")
    write_deltalake(str(tmp_path / "u"), events(2), mode="append")

    named = tables.list("SELECT * FROM T")
    assert (len(named["t"].files), named["u"] is before["u"]) == (2, True)
    assert len(tables.list(None)["u"].files) == 2


class BusyStorage(Storage):
    """Lists a log to which two entries come meanwhile: one that was missing, and one that shows another gap."""

    def list(self, prefix, *, after=""):
        found = list(super().list(prefix, after=after))
        log = Path(self.uri, prefix)
        for name in log.glob("*.late"):
            name.rename(name.with_suffix(".json"))
        shutil.copy(log / f"{5:020}.json", log / f"{7:020}.json")
        return iter(found)


@pytest.mark.parametrize("is_known", [False, True])
def test_a_log_that_grows_while_it_is_listed_can_be_read(tmp_path, is_known):
    for number in range(3):
        write_deltalake(str(tmp_path / "t"), events(number), mode="append")
    tables = DeltaSnapshots(BusyStorage(tmp_path))
    if is_known:
        assert len(tables.list(None)["t"].files) == 3
    for number in range(3, 6):
        # A new column: entries that only add files are read without a listing.
        rows = events(number).append_column("w", pa.array(["x"]))
        write_deltalake(str(tmp_path / "t"), rows, mode="append", schema_mode="merge")
    entry = tmp_path / "t" / "_delta_log" / f"{4:020}.json"
    entry.rename(entry.with_suffix(".late"))

    assert len(tables.list(None)["t"].files) == 6


def test_a_table_is_opened_once_whatever_is_committed_to_it(tmp_path, monkeypatch):
    write_deltalake(str(tmp_path / "t"), events(1))
    tables = follow(tmp_path)
    tables.list(None)
    opened = []
    monkeypatch.setattr(
        "micromegas_jupyter.lake.snapshot.open_delta",
        lambda storage, name: opened.append(name) or DeltaTable(f"{storage.uri}/{name}"),
    )

    for number in range(2, 5):
        write_deltalake(str(tmp_path / "t"), events(number), mode="append")
    DeltaTable(str(tmp_path / "t")).optimize.compact()
    DeltaTable(str(tmp_path / "t")).create_checkpoint()
    assert (len(tables.list(None)["t"].files), opened) == (1, [])

    write_deltalake(
        str(tmp_path / "t"), events(5).append_column("w", pa.array(["x"])), mode="append", schema_mode="merge"
    )
    assert (tables.list(None)["t"].schema.names, opened) == (["n", "time", "w"], [])


@pytest.mark.parametrize("is_followed", [False, True])
def test_the_bounds_of_times_hold_all_rows_whoever_wrote_them(tmp_path, is_followed):
    write_deltalake(str(tmp_path / "t"), events(0))
    tables = follow(tmp_path)
    if is_followed:
        tables.list(None)
    times = [-62_135_596_800_000_000, -1_999, 1_234_567_891_234_567, 253_402_300_799_999_999]
    for time in times:
        write_deltalake(str(tmp_path / "t"), events(time), mode="append")
    write_deltalake(str(tmp_path / "t"), pa.table({"n": [1], "time": pa.array([None], TIME)}), mode="append")

    files = tables.list(None)["t"].files

    assert len(files) == 6
    for time in times:
        near = [file for file in files if file.begin is not None and file.begin <= time <= file.end]
        assert any(file.end - file.begin <= 2_000 for file in near) or abs(time) > 2**55
    assert any(file.begin is None and file.end is None for file in files)


def test_files_are_passed_over_by_the_bounds_of_other_columns_than_the_time(tmp_path):
    for number in range(40):
        rows = {"time": [number], "process_id": [f"é{number:02}"], "n": [number], "level": [1], "x": [0.5]}
        columns = pa.table({**rows, "time": pa.array(rows["time"], TIME), "a.b": [number]})
        write_deltalake(str(tmp_path / "t"), columns, mode="append")
    table = follow(tmp_path).list(None)["t"]
    for file in table.files[:12] + table.files[30:]:
        Path(file.path).unlink()

    with asking([table]) as ask:
        for where in ("process_id = 'é20'", "n IN (17, 21)", "n >= 15 AND process_id < 'é24'"):
            assert ask.rows(f"SELECT n FROM t WHERE {where}")
        with pytest.raises(Unavailable):
            ask.rows("SELECT n FROM t WHERE level = 1")
    assert {name.partition(".")[2] for name in table.bounds.column_names} == {"", "time", "process_id", "n"}


def test_a_table_that_nothing_was_written_to_is_the_same_object_in_each_listing(tmp_path):
    lake = Lake(Storage(tmp_path))

    assert all(one is other for one, other in zip(lake.snapshot(), lake.snapshot(), strict=True))


def test_a_table_in_the_place_of_another_is_another(tmp_path):
    write_deltalake(str(tmp_path / "t"), events(1))
    tables = follow(tmp_path)
    tables.list(None)

    shutil.rmtree(tmp_path / "t")
    assert tables.list("SELECT * FROM t") == {}
    write_deltalake(str(tmp_path / "t"), pa.table({"w": ["x"]}))

    assert tables.list("SELECT * FROM t")["t"].schema.names == ["w"]


def test_a_damaged_log_is_an_error_for_who_names_the_table_only(tmp_path):
    write_deltalake(str(tmp_path / "t"), events(1))
    write_deltalake(str(tmp_path / "u"), events(1))
    (tmp_path / "t" / "_delta_log" / f"{0:020}.json").write_text("no log")
    tables = follow(tmp_path)

    with asking(Following(tables)) as ask:
        assert len(ask.rows("SELECT u.n AS t FROM u")) == 1
        with pytest.raises(Unavailable, match="The table t cannot be read: its log cannot be read"):
            ask.rows("SELECT * FROM t")


def test_the_tables_of_the_data_model_have_its_columns_in_microseconds(tmp_path):
    batch = log_batch([7])
    stored = pa.table(batch).cast(
        pa.schema(
            [
                field.with_type(TIME) if pa.types.is_timestamp(field.type)
                else field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type)
                else field
                for field in LOG_ENTRIES.schema
            ]
        ),
        safe=False,
    )  # fmt: skip
    stored = stored.append_column("date", stored["time"].cast(pa.date32(), safe=False))
    write_deltalake(str(tmp_path / "log_entries"), stored, partition_by=["date"])

    with asking(Lake(Storage(tmp_path))) as ask:
        (row,) = ask.rows("SELECT * FROM log_entries WHERE time > '2023-11-14' AND exe IS NOT NULL")
        kept = ask.plan("SELECT * FROM log_entries", preserve_dictionary=True).schema
        empty = ask.rows("SELECT * FROM processes")
    assert row.keys() == set(LOG_ENTRIES.schema.names)
    assert (row["time"].value // 1000, empty) == (stored["time"].cast(pa.int64()).to_pylist()[0], [])
    assert kept.field("exe").type == pa.dictionary(pa.int32(), pa.string())
    assert kept.field("time").type == pa.timestamp("ns", "+00:00")


def test_a_table_that_cannot_be_opened_fails_only_statements_that_name_it(tmp_path):
    write_deltalake(str(tmp_path / "good"), events(1))
    write_deltalake(str(tmp_path / "broken"), events(1))
    known = follow(tmp_path)
    known.list(None)
    entry = tmp_path / "broken/_delta_log/00000000000000000000.json"
    entry.unlink()
    entry.symlink_to(entry)
    tables = follow(tmp_path)

    for one in (tables, known):
        with asking(Following(one)) as ask:
            assert len(ask.rows("SELECT * FROM good")) == 1
            with pytest.raises(Unavailable, match=r"could not be (?:opened|read)"):
                ask.rows("SELECT * FROM good, broken")
    with asking(Following(known)) as ask:
        columns = ask.rows("SELECT table_name FROM information_schema.columns WHERE column_name = 'n' ORDER BY 1")
        assert [row["table_name"] for row in columns] == ["broken", "good"]


def test_a_table_of_the_data_model_that_cannot_be_read_is_not_an_empty_one(tmp_path):
    (tmp_path / "log_entries/_delta_log").mkdir(parents=True)
    (tmp_path / "log_entries/_delta_log/00000000000000000000.json").write_text("damaged")

    with asking(Lake(Storage(tmp_path))) as ask:
        assert ask.rows("SELECT count(*) AS c FROM processes") == [{"c": 0}]
        for source in ("log_entries", "log_stats", "view_instance('log_entries', 'global')"):
            for asker in (
                ask,
                ask.seeing({"log_entries": ("level = 1",), "log_stats": ("count > 1",), "processes": ()}),
            ):
                with pytest.raises(Unavailable, match="The table log_entries cannot be read"):
                    asker.rows(f"SELECT count(*) FROM processes, {source}")
        assert ask.rows("SELECT * FROM list_partitions()") == []


def test_blocks_and_spans_are_read_as_they_were_sent_by_sql_and_by_other_programs(storage, store):
    spans = pa.Table.from_batches([span_rows("root", "child"), span_rows("other", trace=2)])
    day_after = f"{NOON + timedelta(days=1):%F}"
    narrow = spans.set_column(8, "trace_id", spans.column("trace_id").cast(pa.binary()))
    store("blocks", pa.Table.from_batches([block_rows("b1"), block_rows("b2", begin_ns=NOON_NS + DAY_NS)]))
    store("otel_spans", spans)
    store("otel_spans", narrow)

    with asking(Lake(storage)) as ask:
        blocks = ask.table("SELECT * FROM blocks ORDER BY block_id", preserve_dictionary=True)
        named = ask.rows(
            f"""SELECT block_id FROM blocks WHERE "processes.start_time" > '{day_after}' AND nb_objects = 7"""
        )
        found = ask.table("SELECT * FROM otel_spans ORDER BY trace_id, span_id", preserve_dictionary=True)
        children = ask.rows(
            "SELECT c.name, encode(c.trace_id, 'hex') AS trace FROM otel_spans c JOIN otel_spans p "
            "ON c.parent_span_id = p.span_id AND c.trace_id = p.trace_id WHERE p.name = 'root' LIMIT 1"
        )

    expected = pa.Table.from_batches([block_rows("b1"), block_rows("b2", begin_ns=NOON_NS + DAY_NS)])
    assert (blocks.schema, blocks.to_pylist()) == (BLOCKS.schema, expected.to_pylist())
    assert named == [{"block_id": "b2"}]
    assert found.schema == OTEL_SPANS.schema
    assert found.to_pylist() == [row for row in spans.to_pylist() for _ in range(2)]
    assert children == [{"name": "child", "trace": f"{1:032x}"}]
    read = pl.scan_delta(storage.child_uri("blocks"))
    assert read.filter(pl.col("streams.format") == "otlp/v1/logs").select("processes.exe").collect().height == 2
    path = next(file.path for table in Lake(storage).snapshot() if table.name == "blocks" for file in table.files)
    assert duckdb.sql(f"""SELECT "streams.tags", "processes.exe" FROM read_parquet('{path}')""").fetchall()
    assert DeltaTable(storage.child_uri("otel_spans")).to_pyarrow_table().num_rows == 6


def days_of(number, count=3):
    """Return rows of several types; every fifth of these tables has nothing but nulls in one column."""
    numbers = [number * 10 + index for index in range(count)]
    names = [None if number % 5 == 0 else f"é{one:05}" * 20 for one in numbers]
    columns = {"n": numbers, "time": pa.array([one * 1_000_003 for one in numbers], TIME), "name": names}
    columns["at"] = pa.array(numbers, pa.date32())
    columns["x"] = [float("nan"), -0.0, number / 3][:count]
    columns["day"] = pa.array([number % 4] * count, pa.date32())
    columns["region"] = [(None, "a/b c", "ü")[number % 3]] * count
    return pa.table(columns, schema=pa.schema({
        "n": "int64", "time": TIME, "name": "string", "at": "date32", "x": "float64", "day": "date32",
        "region": "string",
    }))  # fmt: skip


def test_a_table_that_is_followed_is_like_one_that_is_read_anew(tmp_path, monkeypatch):
    path, chance = str(tmp_path / "t"), random.Random(5)
    write = functools.partial(write_deltalake, path, mode="append", partition_by=["day", "region"])
    for number in range(12):
        write(days_of(number))
    tables = follow(tmp_path)
    tables.list(None)
    opened = []
    whole = snapshot.update_delta
    monkeypatch.setattr(snapshot, "update_delta", lambda *args: opened.append(args) or whole(*args))

    for number in range(12, 60):
        write(days_of(number))
        if number % 8 == 0:
            DeltaTable(path).delete(f"n < {chance.randrange(number * 10)} AND n > {chance.randrange(number * 10)}")
        if number % 16 == 1:
            DeltaTable(path).optimize.compact()
        if number % 20 == 3:
            DeltaTable(path).create_checkpoint()
        if number % 3:
            continue
        followed, anew = (each.list(None)["t"] for each in (tables, follow(tmp_path)))
        assert facts_of(followed, anew) == facts_of(anew, followed)

    assert len(opened) <= 3  # the number of files has doubled


def facts_of(table, *others):
    """Return what is known of each file, by its path, with the bounds that the other tables have, too."""
    names = set(table.bounds.column_names).intersection(*(one.bounds.column_names for one in others))
    bounds = table.bounds.select(sorted(names)).to_pylist()
    return {file.path: known for file, *known in zip(table.files, table.files, bounds, strict=True)}


def is_odd(add):
    return [{"commitInfo": {}}, {"add": {**add, "stats": '{"numRecords": 1, "minValues": {"time": "soon"}}'}}]


def is_both(add):
    return [{"remove": {"path": add["path"], "dataChange": True}}, {"add": add}]


@pytest.mark.parametrize(("entry", "count"), [(is_odd, 3), (is_both, 2)])
def test_what_only_deltalake_knows_is_left_to_it(tmp_path, entry, count):
    for number in range(3):
        write_deltalake(str(tmp_path / "t"), events(number), mode="append")
    tables = follow(tmp_path)
    tables.list(None)
    last = tmp_path / "t" / "_delta_log" / f"{2:020}.json"
    add = next(one for one in map(json.loads, last.read_text().splitlines()) if "add" in one)["add"]

    last.with_name(f"{3:020}.json").write_text("\n".join(map(json.dumps, entry(add))))

    assert len(tables.list(None)["t"].files) == count
    assert set(tables.list(None)["t"].files) == set(follow(tmp_path).list(None)["t"].files)


FILE = {"size": 1, "partitionValues": {}, "modificationTime": 1, "dataChange": True}


@pytest.mark.parametrize(
    ("entry", "is_readable"),
    [
        ('{"add": null}', True),
        ('{"remove": null, "commitInfo": {}}', True),
        (json.dumps({"add": {**FILE, "path": "x", "stats": "[" * 50_000}}), True),
        ("[]", False),
        ("null", False),
        ("[" * 100_000, False),
        ('{"add": [1]}', False),
        ('{"remove": {}}', False),
        ('{"remove": {"path": [1]}}', False),
        ('{"remove": {"path": "\\ud800", "dataChange": true}}', False),
        (json.dumps({"add": {**FILE, "path": 1}}), True),
        (json.dumps({"add": {**FILE, "path": "x", "size": 10**30}}), False),
    ],
)
def test_an_odd_entry_in_a_log_of_others_is_no_error_for_other_tables(tmp_path, entry, is_readable):
    for number in range(3):
        write_deltalake(str(tmp_path / "t"), events(number), mode="append")
    write_deltalake(str(tmp_path / "u"), events(1))
    tables = DeltaSnapshots(Storage(tmp_path), is_foreign=True)
    tables.list(None)

    (tmp_path / "t" / "_delta_log" / f"{3:020}.json").write_text(entry)

    listed = tables.list("SELECT * FROM t, u")
    assert (len(listed["u"].files), listed["t"].problem is None) == (1, is_readable)
    anew = DeltaSnapshots(Storage(tmp_path), is_foreign=True).list(None)["t"]
    assert not is_readable or set(listed["t"].files) == set(anew.files)


def test_a_condition_on_rows_may_look_into_properties(storage, writer):
    owners = [{"owner": "ann", "n": 1}, {"owner": "bob", "n": 2}, {"OWNER": "Ann"}, {}, {"owner": "ann", "n": 3}]
    logged = log_rows([{"time": NOON_NS, "msg": str(n), "properties": one} for n, one in enumerate(owners)])
    writer.append("log_entries", logged).result()
    conditions = {"log_entries": "property_get(properties, 'owner') = 'ann'"}

    with asking(Lake(storage), default_conditions=conditions) as ask:
        plain = ask.rows("SELECT msg FROM log_entries ORDER BY msg")
        with_function = ask.rows(
            "SELECT property_get(l.properties, 'n') AS n, p.exe FROM log_entries l LEFT JOIN processes p "
            "USING (process_id) WHERE property_get(l.properties, 'owner') <> 'bob' ORDER BY 1"
        )
        failing = ask.rows("SELECT CAST(property_get(properties, 'n') AS INT) AS n FROM log_entries ORDER BY 1")

    assert [row["msg"] for row in plain] == ["0", "4"]
    assert [row["n"] for row in with_function] == ["1", "3"]
    assert [row["n"] for row in failing] == [1, 3]
