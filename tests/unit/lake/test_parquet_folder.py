"""A folder of plain Parquet files is served as tables; what cannot be served is refused or left out."""

import os
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.core.protocols import TableSource
from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.lake.parquet_folder import ParquetFolder, is_lake, wider_type
from tests.unit.engine.conftest import asking

SEGMENT = "0123456789abcdef-000000000001-000000000001.parquet"


@pytest.mark.parametrize(
    ("files", "is_ours"),
    [
        ([], True),
        ([".hidden", "lost+found/x", "_temporary/y"], True),
        ([".writers/a.lock"], True),
        ([".tables/a.table", "query_denials.json"], True),
        ([f"log_entries/{SEGMENT}"], True),
        (["orders.parquet"], False),
        (["orders/2026.parquet"], False),
        (["notes.txt"], False),
    ],
)
def test_what_lies_in_it_decides(tmp_path, files, is_ours):
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()

    assert is_lake(tmp_path) is is_ours


NUMBERS = pa.table({"n": [1, 2]})


def write(path, rows=NUMBERS):
    path.parent.mkdir(exist_ok=True)
    pq.write_table(rows, path)
    return path


def test_each_file_and_each_sub_folder_is_a_table_by_its_name(tmp_path):
    write(tmp_path / "events.parquet")
    write(tmp_path / "My Table.PARQUET")
    write(tmp_path / "trips" / "1.parquet")
    write(tmp_path / "trips" / "2.parquet")
    (tmp_path / "notes.txt").write_text("no table")

    folder = ParquetFolder(tmp_path)

    assert isinstance(folder, TableSource)
    assert [(found.name, found.files) for found in folder.snapshot()] == [
        ("My Table", (str(tmp_path / "My Table.PARQUET"),)),
        ("events", (str(tmp_path / "events.parquet"),)),
        ("trips", (str(tmp_path / "trips" / "1.parquet"), str(tmp_path / "trips" / "2.parquet"))),
    ]
    assert folder.problems == ()


TWICE = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["n", "n"])
LEFT_OUT = {
    "broken.parquet": (lambda path: path.write_bytes(b"PAR1 and no more"), "cannot be read as a Parquet file"),
    "empty.parquet": (lambda path: path.write_bytes(b""), "cannot be read as a Parquet file"),
    "twice.parquet": (lambda path: write(path, TWICE), "two of its columns have the same name"),
    "trips/2.parquet": (lambda path: write(path, TWICE), "two of its columns have the same name"),
    "trips/3.parquet": (lambda path: write(path, pa.table({"n": ["text"]})), "another type than in the files before"),
    "trips/4.parquet": (Path.mkdir, "is not a file"),
    "trips/5.parquet": (lambda path: path.symlink_to("1.parquet"), "is a link"),
    "trips.parquet": (write, "a table of that name already exists"),
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

    folder = ParquetFolder(tmp_path)

    events, trips = folder.snapshot()
    assert (events.name, trips.files) == ("events", (str(tmp_path / "trips" / "1.parquet"),))
    (found,) = folder.problems
    assert found.startswith(f"{odd} is left out: ")
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

    folder = ParquetFolder(served)

    assert [snapshot.name for snapshot in folder.snapshot()] == ["events"]
    told = "is left out: it is a link, and links are not followed."
    assert folder.problems == (
        f"file.parquet {told}",
        f"folder {told}",
        f"inner.parquet {told}",
        f"trips/1.parquet {told}",
    )


def test_a_new_a_changed_and_a_removed_file_count_from_the_next_query_on(tmp_path):
    write(tmp_path / "events.parquet")
    gone = write(tmp_path / "gone.parquet")
    folder = ParquetFolder(tmp_path)

    write(tmp_path / "new.parquet")
    write(tmp_path / "events.parquet", pa.table({"n": [1], "name": ["a"]}))
    gone.unlink()

    events, new = folder.snapshot()
    assert events.schema.names == ["n", "name"]
    assert new.name == "new"


def test_a_folder_that_becomes_a_delta_table_is_left_out(tmp_path):
    for name in ("events", "orders"):
        write(tmp_path / name / "1.parquet")
    folder = ParquetFolder(tmp_path)
    (tmp_path / "events" / "_delta_log").mkdir()

    assert [snapshot.name for snapshot in folder.snapshot()] == ["orders"]
    assert "Delta table" in folder.problems[0]

    (tmp_path / "_delta_log").mkdir()
    with pytest.raises(Unavailable, match="Delta table"):
        folder.snapshot()


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
        (pa.array([5, 6], pa.timestamp("ns", "UTC")), pa.array([7, 1], pa.timestamp("us", "UTC"))),
        (pa.array([5, 6], pa.timestamp("us", "UTC")), pa.array([7, 1], pa.timestamp("us", "+00:00"))),
        (pa.array([Decimal("5.5")]), pa.array([Decimal("7.25"), Decimal("1.25")])),
    ],
)
@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_the_least_and_the_greatest_value_are_those_of_all_files(tmp_path, first, second, order):
    for name, values in zip(order, (first, second), strict=True):
        write(tmp_path / "t" / f"{name}.parquet", pa.table({"v": values}))
    folder = ParquetFolder(tmp_path)

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

    with asking(ParquetFolder(tmp_path)) as ask:
        plan = str(ask.rows("EXPLAIN SELECT max(v), max(w) FROM t WHERE v > 0 OR w > 0"))

    assert "DataSourceExec" in plan
    assert "DynamicFilter" not in plan


@pytest.mark.parametrize("unit", ["ms", "us"])
def test_a_far_date_is_not_lost_by_a_finer_unit(tmp_path, unit):
    far = datetime(9999, 12, 31, tzinfo=UTC)
    write(tmp_path / "t" / "1.parquet", pa.table({"v": pa.array([None, far], pa.timestamp(unit, "UTC"))}))
    write(tmp_path / "t" / "2.parquet", pa.table({"v": pa.array([1], pa.timestamp("ns", "UTC"))}))
    folder = ParquetFolder(tmp_path)

    with asking(folder) as ask:
        found = ask.rows("SELECT CAST(v AS VARCHAR) AS text FROM t ORDER BY v")
        counts = ask.rows("SELECT count(v) AS n FROM t")
        missing = ask.rows("SELECT count(*) AS n FROM t WHERE v IS NULL")

    assert (found, counts, missing) == ([{"text": "9999-12-31T00:00:00Z"}, {"text": None}], [{"n": 1}], [{"n": 1}])
    assert folder.problems == ("t/2.parquet is left out: its column 'v' has another type than in the files before it.",)
