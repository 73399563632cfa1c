"""What others left in a folder is served as tables, exactly; what cannot be served is refused or left out."""

import json
import os
import re
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from micromegas_jupyter.core.protocols import TableSource
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import Unavailable, UsageError
from micromegas_jupyter.lake import snapshot
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.served_folder import ServedFolder, wider_type
from tests.unit.engine.conftest import asking

NUMBERS = pa.table({"n": [1, 2]})


def serve(folder):
    return ServedFolder(Storage(folder))


def paths(table):
    return tuple(file.path for file in table.files)


def write(path, rows=NUMBERS):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path)
    return path


def test_each_file_and_each_sub_folder_is_a_table_by_its_name(tmp_path):
    write(tmp_path / "events.parquet")
    write(tmp_path / "My Table.PARQUET")
    write(tmp_path / "trips" / "1.parquet")
    write(tmp_path / "trips" / "2.parquet")
    (tmp_path / "notes.txt").write_text("no table")

    folder = serve(tmp_path)

    assert isinstance(folder, TableSource)
    assert [(found.name, paths(found)) for found in folder.snapshot()] == [
        ("My Table", (str(tmp_path / "My Table.PARQUET"),)),
        ("events", (str(tmp_path / "events.parquet"),)),
        ("trips", (str(tmp_path / "trips" / "1.parquet"), str(tmp_path / "trips" / "2.parquet"))),
    ]
    assert folder.problems == (
        (
            "notes.txt is left out: its name doesn't end in one of .parquet, .csv, .json, .jsonl, "
            ".ndjson, .arrow, .feather."
        ),
    )


TWICE = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["n", "n"])
LEFT_OUT = {
    "broken.parquet": (lambda path: path.write_bytes(b"PAR1 and no more"), "cannot be read as a .parquet file"),
    "empty.parquet": (lambda path: path.write_bytes(b""), "cannot be read as a .parquet file"),
    "twice.parquet": (lambda path: write(path, TWICE), "two of its columns have the same name"),
    "trips/2.parquet": (lambda path: write(path, TWICE), "two of its columns have the same name"),
    "trips/3.parquet": (
        lambda path: write(path, pa.table({"n": ["text"]})),
        "a different type than in the preceding files",
    ),
    "trips/4.parquet": (Path.mkdir, "is neither a file nor a folder named key=value"),
    "trips/5.parquet": (lambda path: path.symlink_to("1.parquet"), "is a symbolic link"),
    "trips.parquet": (write, "a table with that name already exists"),
    "trips/deep/1.parquet": (write, "is neither a file nor a folder named key=value"),
    "trips/day=/1.parquet": (write, "is neither a file nor a folder named key=value"),
    "mixed/1.csv": (lambda path: (path.write_text("a\n1\n"), write(path.parent / "2.parquet")), "several formats"),
    "pipe.parquet": (os.mkfifo, "is not a file"),
    "odd\udcff.parquet": (lambda path: path.write_bytes(b""), "its name is not UTF-8 text"),
    "\x1b[31m.parquet": (write, "its name contains a control character"),
    "a\nb/1.parquet": (write, "its name contains a control character"),
    "trips/\x7f.parquet": (write, "its name contains a control character"),
}


@pytest.mark.parametrize("odd", LEFT_OUT, ids=ascii)
def test_what_cannot_be_served_is_left_out_and_told(tmp_path, odd):
    write(tmp_path / "events.parquet")
    write(tmp_path / "trips" / "1.parquet")
    make, problem = LEFT_OUT[odd]
    (tmp_path / odd).parent.mkdir(exist_ok=True)
    make(tmp_path / odd)

    folder = serve(tmp_path)

    events, trips = folder.snapshot()
    assert (events.name, paths(trips)) == ("events", (str(tmp_path / "trips" / "1.parquet"),))
    (found,) = folder.problems
    assert odd.startswith(found.partition(" is left out: ")[0])
    assert problem in found


def test_links_are_not_followed_wherever_they_lead(tmp_path):
    write(tmp_path / "outside" / "secret.parquet")
    served = tmp_path / "served"
    write(served / "events.parquet")
    (served / "trips").mkdir()
    (served / "trips" / "1.parquet").symlink_to(tmp_path / "outside" / "secret.parquet")
    (served / "file.parquet").symlink_to(tmp_path / "outside" / "secret.parquet")
    (served / "inner.parquet").symlink_to(served / "events.parquet")
    (served / "folder").symlink_to(tmp_path / "outside")
    (served / "gone.txt").symlink_to(tmp_path / "nowhere")
    write_deltalake(str(tmp_path / "orders"), NUMBERS)
    (served / "orders").symlink_to(tmp_path / "orders")

    folder = serve(served)

    assert [snapshot.name for snapshot in folder.snapshot()] == ["events"]
    told = "is left out: it is a symbolic link, which is not followed."
    assert folder.problems == (
        f"file.parquet {told}",
        f"folder {told}",
        f"gone.txt {told}",
        f"inner.parquet {told}",
        f"orders {told}",
        f"trips/1.parquet {told}",
    )


def test_a_new_a_changed_and_a_removed_file_count_from_the_next_query_on(tmp_path):
    write(tmp_path / "events.parquet")
    gone = write(tmp_path / "gone.parquet")
    folder = serve(tmp_path)

    write(tmp_path / "new.parquet")
    write(tmp_path / "events.parquet", pa.table({"n": [1], "name": ["a"]}))
    gone.unlink()

    events, new = folder.snapshot()
    assert events.schema.names == ["n", "name"]
    assert new.name == "new"


CATEGORIES = pa.dictionary(pa.int32(), pa.string())


@pytest.mark.parametrize(
    ("first", "second", "wider"),
    [
        (pa.null(), CATEGORIES, CATEGORIES),
        (pa.uint32(), pa.int8(), pa.int64()),
        (pa.uint64(), pa.int64(), None),
        (pa.int32(), pa.float32(), pa.float64()),
        (pa.int64(), pa.float64(), None),
        (pa.timestamp("ns", "UTC"), pa.timestamp("ns"), None),
        (pa.timestamp("ns", "UTC"), pa.timestamp("us", "UTC"), None),
        (pa.timestamp("ns", "UTC"), pa.timestamp("ns", "Europe/Paris"), None),
        (pa.decimal128(10, 0), pa.decimal128(10, 4), pa.decimal128(14, 4)),
        (pa.decimal128(38, 0), pa.decimal128(38, 4), None),
        (pa.string(), pa.int64(), None),
    ],
)
def test_the_wider_type_is_the_same_from_both_sides(first, second, wider):
    assert wider_type(first, second) == wider
    assert wider_type(second, first) == wider


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.array([5, 6]), pa.array([7, 1], pa.int32())),
        (pa.array([5, None]), pa.array([None, 9], pa.uint8())),
        (pa.array(["f", "g"]).dictionary_encode(), pa.array(["z", "a"], pa.large_string())),
        (pa.array([5, 6], pa.timestamp("us", "UTC")), pa.array([7, 1], pa.timestamp("us", "+00:00"))),
        (pa.array([Decimal("5.5")]), pa.array([Decimal("7.25"), Decimal("1.25")])),
    ],
)
@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_the_least_and_the_greatest_value_are_those_of_all_files(tmp_path, first, second, order):
    for name, values in zip(order, (first, second), strict=True):
        write(tmp_path / "t" / f"{name}.parquet", pa.table({"v": values}))
    folder = serve(tmp_path)

    with asking(folder) as ask:
        sorted_values = [row["v"] for row in ask.rows("SELECT v FROM t WHERE v IS NOT NULL ORDER BY v")]
        least = ask.rows("SELECT min(v) AS v FROM t")
        greatest = ask.rows("SELECT max(v) AS v FROM t")
        counted = ask.rows("SELECT max(v) AS v, min(v) AS w, count(*) AS n, count(v) AS m FROM t")

    count = len(first) + len(second)
    assert folder.problems == ()
    assert len(sorted_values) == count - first.null_count - second.null_count
    assert (least, greatest) == ([{"v": sorted_values[0]}], [{"v": sorted_values[-1]}])
    assert counted == [{"v": sorted_values[-1], "w": sorted_values[0], "n": count, "m": len(sorted_values)}]


def test_the_least_and_greatest_so_far_of_one_column_rule_out_no_rows_of_another(tmp_path):
    pq.write_table(pa.table({"v": [5, 6], "w": [None, 1]}), tmp_path / "t.parquet")

    with asking(serve(tmp_path)) as ask:
        plan = str(ask.rows("EXPLAIN SELECT max(v), max(w) FROM t WHERE v > 0 OR w > 0"))

    assert "DataSourceExec" in plan
    assert "DynamicFilter" not in plan


def test_csv_json_lines_and_arrow_files_are_tables(tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "1.csv").write_text('n,word,time\n1,"a\nb",2026-11-01T00:00:00Z\n2,,2026-11-02T00:00:00Z\n')
    (tmp_path / "text" / "2.CSV").write_text("n,word,time\n3,c,2026-11-03T00:00:00Z\n")
    (tmp_path / "text" / "3.csv").write_text("word,n,time\nc,4,2026-11-03T00:00:00Z\n")
    (tmp_path / "lines.jsonl").write_text('{"n": 1, "in": {"a": "x"}}\n{"n": 2, "other": [1, 2]}\n')
    with pa.ipc.new_file(tmp_path / "ipc.arrow", NUMBERS.schema) as file:
        file.write(NUMBERS)
    folder = serve(tmp_path)

    with asking(folder) as ask:
        text = ask.rows("SELECT n, word FROM text WHERE time > '2026-10-01' ORDER BY n")
        lines = ask.rows("SELECT n, \"in\"['a'] AS a, other FROM lines ORDER BY n")
        numbers = ask.rows("SELECT sum(n) AS s FROM ipc")

    assert text == [{"n": 1, "word": "a\nb"}, {"n": 2, "word": None}, {"n": 3, "word": "c"}]
    assert lines == [{"n": 1, "a": "x", "other": None}, {"n": 2, "a": None, "other": [1, 2]}]
    assert numbers == [{"s": 3}]
    assert folder.problems == (
        "text/3.csv is left out: its columns or their order differ from those of the preceding files.",
    )


def test_folders_of_keys_and_values_are_columns_of_text(tmp_path):
    values = {"007": [1], "a%2Fb": [2], "__HIVE_DEFAULT_PARTITION__": [3]}
    for text, rows in values.items():
        write(tmp_path / "t" / f"shop={text}" / "day=2026-11-01" / "1.parquet", pa.table({"n": rows}))
    write(tmp_path / "t" / "shop=x" / "1.parquet")
    write(tmp_path / "u" / "n=1" / "1.parquet")

    folder = serve(tmp_path)

    assert [table.name for table in folder.snapshot()] == []
    assert "t is left out: its files are in folders with different keys." in folder.problems
    assert "u/n=1/1.parquet is left out: 'n' is both a column and a key of its folder." in folder.problems
    (tmp_path / "t" / "shop=x" / "1.parquet").unlink()
    with asking(folder) as ask:
        found = ask.rows("SELECT n, shop, day FROM t ORDER BY n")
        one = ask.rows("SELECT n FROM t WHERE shop = '007'")
    assert found == [
        {"n": 1, "shop": "007", "day": "2026-11-01"},
        {"n": 2, "shop": "a/b", "day": "2026-11-01"},
        {"n": 3, "shop": None, "day": "2026-11-01"},
    ]
    assert one == [{"n": 1}]


WRITER = """
import random, sys, pyarrow as pa, datetime as dt
from deltalake import DeltaTable, write_deltalake, Field
from deltalake.schema import PrimitiveType

path, seed = sys.argv[1], int(sys.argv[2])
TIME = pa.timestamp("us", "UTC")
KINDS = ["append", "append", "append", "delete", "optimize", "extend", "checkpoint", "overwrite", "update"]
chance = random.Random(seed)

def rows(number, extra):
    shops = [chance.choice(["eu", "a/b c", "100%", "", None, "ü"]) for _ in range(6)]
    found = {
        "n": pa.array([number * 6 + place for place in range(6)]),
        "shop": pa.array(shops, pa.string()),
        "day": pa.array([dt.date(2026, 11, chance.randrange(1, 5)) for _ in range(6)]),
        "time": pa.array([1_790_000_000_123_456 + number * 3_600_000_000 + place for place in range(6)], TIME),
        "word": pa.array([chance.choice(["x", "y", None]) for _ in range(6)], pa.string()),
    }
    if extra:
        found["extra"] = pa.array([chance.choice([1.5, None]) for _ in range(6)])
    return pa.table(found)

by = chance.choice([None, ["shop"], ["day"], ["shop", "day"]])
write_deltalake(path, rows(0, False), partition_by=by)
print(0, flush=True)
extra = False
for number in range(1, 14):
    sys.stdin.readline()
    table = DeltaTable(path)
    match chance.choice(KINDS):
        case "append":
            write_deltalake(path, rows(number, extra), mode="append", partition_by=by, schema_mode="merge")
        case "delete":
            table.delete(chance.choice([f"n % 5 = {number % 5}", "shop = 'eu'", "day = '2026-11-02'", "word IS NULL"]))
        case "optimize":
            table.optimize.compact()
        case "checkpoint":
            table.create_checkpoint()
        case "overwrite":
            if chance.random() < 0.4:
                write_deltalake(path, rows(number, extra), mode="overwrite", partition_by=by, schema_mode="merge")
        case "update":
            table.update({"word": "'z'"}, predicate=f"n < {number * 3}")
        case "extend":
            extra = True
            write_deltalake(path, rows(number, extra), mode="append", partition_by=by, schema_mode="merge")
    print(number, flush=True)
"""


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))])
def test_a_table_that_another_process_changes_gives_deltas_own_rows_at_each_step(tmp_path, seed):
    path = str(tmp_path / "orders")
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, path, str(seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout.readline() == "0\n"
        folder = serve(tmp_path)
        with asking(folder) as ask:
            for number in range(1, 15):
                assert_same_as_delta(ask, path)
                print(file=writer.stdin, flush=True) if number < 14 else None
                assert number == 14 or writer.stdout.readline() == f"{number}\n"
    assert folder.problems == ()


def assert_same_as_delta(ask, path, options=None):
    theirs = DeltaTable(path, storage_options=options).to_pyarrow_table().sort_by("n").to_pylist()
    ours = ask.rows("SELECT * FROM orders ORDER BY n")
    assert ours == theirs
    assert ask.rows("SELECT count(*) AS c, max(n) AS m FROM orders") == [
        {"c": len(theirs), "m": max((row["n"] for row in theirs), default=None)}
    ]
    wanted = [row["n"] for row in theirs if row["shop"] == "a/b c"]
    assert [row["n"] for row in ask.rows("SELECT n FROM orders WHERE shop = 'a/b c' ORDER BY n")] == wanted


def _declare(folder, **changes):
    """Change what a table's first log entry says."""
    entry = folder / "_delta_log" / f"{0:020}.json"
    actions = [json.loads(line) for line in entry.read_text().splitlines()]
    for action in actions:
        for name, change in changes.items():
            if name in action:
                action[name].update(change)
    entry.write_text("".join(json.dumps(action) + "\n" for action in actions))


NEEDS = {"minReaderVersion": 3, "minWriterVersion": 7}
MAPPED = json.dumps(
    {
        "type": "struct",
        "fields": [
            {
                "name": "renamed",
                "type": "long",
                "nullable": True,
                "metadata": {"delta.columnMapping.id": 1, "delta.columnMapping.physicalName": "n"},
            }
        ],
    }
)


def vector(encoded, size):
    """Rows 3, 4, 7, 11, 18 and 29 are deleted."""
    feature = {"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]}
    inline = {"storageType": "i", "pathOrInlineDv": encoded, "sizeInBytes": size, "cardinality": 6}
    return {"protocol": NEEDS | feature, "add": {"deletionVector": inline}}


#: The example of Delta's protocol.
EXAMPLE = vector("^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L", 44)
#: The same in an encoding that is not in use any more.
OLD_EXAMPLE = vector("wi5b=000010000siXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L", 40)
UNREADABLE = {
    "feature": ({"protocol": NEEDS | {"readerFeatures": ["fancy"], "writerFeatures": ["fancy"]}}, "fancy"),
    "mapping": (
        {
            "protocol": NEEDS | {"readerFeatures": ["columnMapping"], "writerFeatures": ["columnMapping"]},
            "metaData": {"configuration": {"delta.columnMapping.mode": "other"}, "schemaString": MAPPED},
        },
        "column mapping by other|log cannot be read",
    ),
    "name": (
        {"metaData": {"configuration": {"delta.columnMapping.mode": "name"}}},
        "name of a column in its files is unknown .column mapping by name.",
    ),
    "outside": ({"add": {"path": "../secret.parquet"}}, "outside"),
    "elsewhere": ({"add": {"path": "file:///etc/passwd"}}, "outside"),
}


def test_an_error_that_nobody_thought_of_leaves_out_one_table_only(tmp_path, monkeypatch, caplog):
    write_deltalake(str(tmp_path / "good"), NUMBERS)
    write_deltalake(str(tmp_path / "odd"), pa.table({"odd": [1]}))
    real = snapshot.arrow_schema

    def schema_of(delta):
        found = real(delta)
        return found if "n" in found.names else {}["secret"]

    monkeypatch.setattr(snapshot, "arrow_schema", schema_of)

    folder = serve(tmp_path)

    assert folder.problems == ("odd is left out: its log cannot be read.",)
    with asking(folder) as ask:
        assert len(ask.rows("SELECT n FROM good")) == 2
        with pytest.raises(Unavailable, match="its log cannot be read"):
            ask.rows("SELECT * FROM odd")
    assert "secret" not in caplog.text
    assert {(one.table, one.kind) for one in caplog.records} == {("odd", "KeyError")}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_delta_table_that_would_be_read_wrongly_is_refused_with_the_reason(tmp_path, name):
    write_deltalake(str(tmp_path / "good"), NUMBERS)
    write_deltalake(str(tmp_path / "bad"), pa.table({"n": range(40)}))
    changes, reason = UNREADABLE[name]
    _declare(tmp_path / "bad", **changes)

    folder = serve(tmp_path)

    (problem,) = folder.problems
    assert problem.startswith("bad is left out: ")
    assert re.search(reason, problem)
    for source in (folder, Lake(Storage(tmp_path))):
        with asking(source) as ask:
            assert len(ask.rows("SELECT n AS bad FROM good")) == 2
            for sql in ('SELECT * FROM "bad"', "SELECT count(*) FROM good, bad", "DESCRIBE bad"):
                with pytest.raises(Unavailable, match=reason) as failure:
                    ask.rows(sql)
                assert not failure.value.retryable
            for sql in ("information_schema.columns WHERE table_name = 'bad'", "list_partitions()"):
                assert ask.rows(f"SELECT * FROM {sql}") == []


def test_deleted_rows_of_the_protocols_example_are_left_out_and_an_old_encoding_is_rejected(tmp_path):
    for name, changes in (("good", EXAMPLE), ("old", OLD_EXAMPLE)):
        write_deltalake(str(tmp_path / name), pa.table({"n": range(40)}))
        _declare(tmp_path / name, **changes)

    with asking(serve(tmp_path)) as ask:
        numbers = [row["n"] for row in ask.rows("SELECT n FROM good ORDER BY n")]
        assert numbers == [n for n in range(40) if n not in {3, 4, 7, 11, 18, 29}]
        with pytest.raises(
            Unavailable, match="The table old cannot be read: a deletion vector has an unknown encoding"
        ):
            ask.rows("SELECT n FROM old")


def test_a_renamed_column_has_its_tables_name(tmp_path):
    write_deltalake(str(tmp_path / "t"), NUMBERS)
    mapping = {"readerFeatures": ["columnMapping"], "writerFeatures": ["columnMapping"]}
    metadata = {"configuration": {"delta.columnMapping.mode": "name"}, "schemaString": MAPPED}
    _declare(tmp_path / "t", protocol=NEEDS | mapping, metaData=metadata)

    with asking(serve(tmp_path)) as ask:
        assert ask.rows("SELECT * FROM t WHERE renamed > 1") == [{"renamed": 2}]


def test_a_link_in_a_delta_table_is_not_followed(tmp_path):
    write_deltalake(str(tmp_path / "t"), NUMBERS)
    (file,) = (tmp_path / "t").glob("*.parquet")
    file.rename(tmp_path / "outside")
    file.symlink_to(tmp_path / "outside")

    folder = serve(tmp_path)

    assert [len(table.files) for table in folder.snapshot()] == [0]
    assert "is a symbolic link, which is not followed" in folder.problems[0]


def test_a_dropped_and_a_replaced_delta_table_are_noticed(tmp_path):
    write_deltalake(str(tmp_path / "t"), NUMBERS)
    write_deltalake(str(tmp_path / "gone"), NUMBERS)
    folder = serve(tmp_path)
    assert folder.snapshot()[1] is folder.snapshot("SELECT * FROM t")[1]

    shutil.rmtree(tmp_path / "gone")
    shutil.rmtree(tmp_path / "t")
    write_deltalake(str(tmp_path / "t"), pa.table({"word": ["x"]}))
    write_deltalake(str(tmp_path / "new"), NUMBERS)

    with asking(folder) as ask:
        assert ask.rows("SELECT * FROM t") == [{"word": "x"}]
    assert [table.name for table in folder.snapshot("SELECT 1")] == ["new", "t"]


def test_a_folder_that_is_a_delta_table_is_one_table_and_one_inside_of_it_is_refused(tmp_path):
    write_deltalake(str(tmp_path / "orders"), pa.table({"n": [1, 2], "shop": ["a", "b"]}), partition_by=["shop"])

    with asking(serve(tmp_path / "orders")) as ask:
        assert_same_as_delta(ask, str(tmp_path / "orders"))
    with pytest.raises(UsageError, match="is inside a Delta table"):
        serve(tmp_path / "orders" / "shop=a")


def test_files_of_other_types_than_the_delta_schema_are_read_right(tmp_path):
    write_deltalake(str(tmp_path / "t"), pa.table({"v": pa.array([7, 1], pa.timestamp("us", "UTC"))}))
    (file,) = (tmp_path / "t").glob("*.parquet")
    write_deltalake(str(tmp_path / "t"), pa.table({"v": pa.array([2], pa.timestamp("us", "UTC"))}), mode="append")
    pq.write_table(pa.table({"v": pa.array([9000, 5000], pa.timestamp("ns", "UTC"))}), file)

    with asking(serve(tmp_path)) as ask:
        found = ask.rows("SELECT CAST(max(v) AS BIGINT) AS m FROM t")
        again = ask.rows("SELECT count(*) AS c FROM t WHERE v = (SELECT max(v) FROM t)")
    assert (found[0]["m"] in {9, 9000}, again) == (True, [{"c": 1}])
