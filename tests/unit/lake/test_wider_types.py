"""Two types become one only where no value is lost, and files of both are read as one table."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.engine import DataFusionEngine, EngineSettings
from micromegas_jupyter.lake.parquet_folder import ParquetFolder, wider_type
from tests.fakes.fixed_tables import FixedTables
from tests.unit.engine.conftest import Asker

if TYPE_CHECKING:
    from pathlib import Path

CATEGORIES = pa.dictionary(pa.int32(), pa.string())


@pytest.mark.parametrize(
    ("first", "second", "wider"),
    [
        (CATEGORIES, CATEGORIES, CATEGORIES),
        (pa.null(), CATEGORIES, CATEGORIES),
        (pa.list_(pa.int8()), pa.null(), pa.list_(pa.int8())),
        (pa.string(), CATEGORIES, pa.string()),
        (pa.large_string(), pa.string_view(), pa.string()),
        (pa.large_binary(), pa.binary(), pa.binary()),
        (pa.dictionary(pa.int8(), pa.int16()), pa.int32(), pa.int32()),
        (pa.int8(), pa.int64(), pa.int64()),
        (pa.uint8(), pa.uint32(), pa.uint32()),
        (pa.uint32(), pa.int8(), pa.int64()),
        (pa.uint64(), pa.int64(), None),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.int32(), pa.float32(), pa.float64()),
        (pa.int64(), pa.float64(), None),
        (pa.timestamp("s", "UTC"), pa.timestamp("us", "+00:00"), pa.timestamp("us", "UTC")),
        (pa.timestamp("ns"), pa.timestamp("ms"), pa.timestamp("ns")),
        (pa.timestamp("ns", "UTC"), pa.timestamp("ns"), None),
        (pa.timestamp("ns", "UTC"), pa.timestamp("ns", "Europe/Paris"), None),
        (pa.decimal128(10, 2), pa.decimal128(12, 4), pa.decimal128(12, 4)),
        (pa.decimal128(10, 0), pa.decimal128(10, 4), pa.decimal128(14, 4)),
        (pa.decimal128(38, 0), pa.decimal128(38, 4), None),
        (pa.decimal128(10, 2), pa.float64(), None),
        (pa.string(), pa.int64(), None),
        (pa.string(), pa.binary(), None),
        (pa.bool_(), pa.int8(), None),
    ],
)
def test_the_wider_type_is_the_same_from_both_sides(
    first: pa.DataType, second: pa.DataType, wider: pa.DataType | None
) -> None:
    assert wider_type(first, second) == wider
    assert wider_type(second, first) == wider


@pytest.mark.parametrize(
    ("first", "second", "literal"),
    [
        (pa.array(["a", "b"]).dictionary_encode(), pa.array(["a", None], pa.large_string()), "'a'"),
        (pa.array([1, -5], pa.int32()), pa.array([1, None], pa.int64()), "1"),
        (pa.array([1, -5], pa.int16()), pa.array([1.0, 1.5]), "1"),
        (
            pa.array([2, 3], pa.timestamp("ms")),
            pa.array([2_000_000, None], pa.timestamp("ns")),
            "to_timestamp_millis(2)",
        ),
        (pa.array([Decimal("1.5"), None], pa.decimal128(9, 2)), pa.array([Decimal("1.5"), Decimal("2.0625")]), "1.5"),
    ],
)
def test_files_of_both_types_are_filtered_and_grouped_as_one_table(
    tmp_path: Path, first: pa.Array, second: pa.Array, literal: str
) -> None:
    (tmp_path / "t").mkdir()
    pq.write_table(pa.table({"v": first}), tmp_path / "t" / "1.parquet")
    pq.write_table(pa.table({"v": second}), tmp_path / "t" / "2.parquet")
    folder = ParquetFolder(tmp_path)

    with closing(DataFusionEngine(folder, EngineSettings())) as engine:
        ask = Asker(engine, FixedTables([]))
        found = ask.rows(f"SELECT count(*) AS n FROM t WHERE v = {literal}")
        others = ask.rows(f"SELECT count(*) AS n FROM t WHERE v <> {literal} OR v IS NULL")
        groups = ask.rows("SELECT count(*) AS n FROM t GROUP BY v ORDER BY n DESC")

    assert folder.problems == ()
    assert (found, others) == ([{"n": 2}], [{"n": 2}])
    assert [row["n"] for row in groups] == [2, 1, 1]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.array([5, 6]), pa.array([7, 1], pa.int32())),
        (pa.array([5, None]), pa.array([None, 9], pa.uint8())),
        (pa.array([5.0, 6.0]), pa.array([7.0, 1.0], pa.float32())),
        (pa.array(["f", "g"]), pa.array(["z", "a"], pa.large_string())),
        (pa.array(["f", "g"]).dictionary_encode(), pa.array(["z", "a"], pa.large_string())),
        (pa.array([5, 6], pa.timestamp("ns", "UTC")), pa.array([7, 1], pa.timestamp("us", "UTC"))),
        (pa.array([5, 6], pa.timestamp("us", "UTC")), pa.array([7, 1], pa.timestamp("us", "+00:00"))),
        (pa.array([Decimal("5.5")]), pa.array([Decimal("7.25"), Decimal("1.25")])),
    ],
)
@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_the_least_and_the_greatest_value_are_those_of_all_files(
    tmp_path: Path, first: pa.Array, second: pa.Array, order: tuple[int, int]
) -> None:
    (tmp_path / "t").mkdir()
    for name, values in zip(order, (first, second), strict=True):
        pq.write_table(pa.table({"v": values}), tmp_path / "t" / f"{name}.parquet")
    folder = ParquetFolder(tmp_path)

    with closing(DataFusionEngine(folder, EngineSettings())) as engine:
        ask = Asker(engine, FixedTables([]))
        sorted_values = [row["v"] for row in ask.rows("SELECT v FROM t WHERE v IS NOT NULL ORDER BY v")]
        least = ask.rows("SELECT min(v) AS v FROM t")
        greatest = ask.rows("SELECT max(v) AS v FROM t")
        counted = ask.rows("SELECT max(v) AS v, min(v) AS w, count(*) AS n, count(v) AS m FROM t")

    count = len(first) + len(second)
    assert folder.problems == ()
    assert len(sorted_values) == count - first.null_count - second.null_count
    assert (least, greatest) == ([{"v": sorted_values[0]}], [{"v": sorted_values[-1]}])
    assert counted == [{"v": sorted_values[-1], "w": sorted_values[0], "n": count, "m": len(sorted_values)}]


def test_footers_answer_for_other_tables_after_a_statement_on_files_of_several_types(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    pq.write_table(pa.table({"v": [5, 6]}), tmp_path / "t" / "1.parquet")
    pq.write_table(pa.table({"v": pa.array([7], pa.int8())}), tmp_path / "t" / "2.parquet")
    pq.write_table(pa.table({"v": [5, 6]}), tmp_path / "other.parquet")

    with closing(DataFusionEngine(ParquetFolder(tmp_path), EngineSettings())) as engine:
        ask = Asker(engine, FixedTables([]))
        plans = [
            str(ask.rows(f"EXPLAIN SELECT max(v) FROM {table}"))
            for table in ("other", "t", "other", "other JOIN t USING (v)")
        ]

    assert ["DataSourceExec" in plan for plan in plans] == [False, True, False, True]


def test_the_least_and_greatest_so_far_of_one_column_rule_out_no_rows_of_another(tmp_path: Path) -> None:
    pq.write_table(pa.table({"v": [5, 6], "w": [None, 1]}), tmp_path / "t.parquet")

    with closing(DataFusionEngine(ParquetFolder(tmp_path), EngineSettings())) as engine:
        ask = Asker(engine, FixedTables([]))
        plan = str(ask.rows("EXPLAIN SELECT max(v), max(w) FROM t WHERE v > 0 OR w > 0"))

    assert "DataSourceExec" in plan
    assert "DynamicFilter" not in plan


@pytest.mark.parametrize("unit", ["ms", "us"])
def test_a_far_date_is_not_lost_by_a_finer_unit(tmp_path: Path, unit: str) -> None:
    far = datetime(9999, 12, 31, tzinfo=UTC)
    (tmp_path / "t").mkdir()
    pq.write_table(pa.table({"v": pa.array([None, far], pa.timestamp(unit, "UTC"))}), tmp_path / "t" / "1.parquet")
    pq.write_table(pa.table({"v": pa.array([1], pa.timestamp("ns", "UTC"))}), tmp_path / "t" / "2.parquet")
    folder = ParquetFolder(tmp_path)

    with closing(DataFusionEngine(folder, EngineSettings())) as engine:
        ask = Asker(engine, FixedTables([]))
        found = ask.rows("SELECT CAST(v AS VARCHAR) AS text FROM t ORDER BY v")
        counts = ask.rows("SELECT count(v) AS n FROM t")
        missing = ask.rows("SELECT count(*) AS n FROM t WHERE v IS NULL")

    assert (found, counts, missing) == ([{"text": "9999-12-31T00:00:00Z"}, {"text": None}], [{"n": 1}], [{"n": 1}])
    assert folder.problems == ("t/2.parquet is left out: its column 'v' has another type than in the files before it.",)
