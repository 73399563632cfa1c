"""A footer tells in which units the times of a file can be counted, and where it does not, only their own counts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.lake.parquet_folder import coarser_units, finest_units

if TYPE_CHECKING:
    from pathlib import Path

FAR = datetime(9999, 12, 31, tzinfo=UTC)
LAST_NS = (1 << 63) // 1000
MICROSECONDS = pa.timestamp("us", "UTC")


def units(path: Path, columns: dict[str, pa.Array], **options: Any) -> dict[str, str]:
    pq.write_table(pa.table(columns), path, **options)
    metadata = pq.read_metadata(path)
    return finest_units(metadata, metadata.schema.to_arrow_schema())


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        (pa.array([0, None, 10**15], MICROSECONDS), "ns"),
        (pa.array([LAST_NS, -LAST_NS], MICROSECONDS), "ns"),
        (pa.array([LAST_NS + 1], MICROSECONDS), "us"),
        (pa.array([-LAST_NS - 1, 0], MICROSECONDS), "us"),
        (pa.array([FAR], pa.timestamp("ms")), "us"),
        (pa.array([1 << 62], pa.timestamp("ms")), "ms"),
        (pa.array([0], pa.timestamp("s")), "ns"),
        (pa.array([None, None], MICROSECONDS), "ns"),
        (pa.array([], MICROSECONDS), "ns"),
        (pa.array([0], pa.timestamp("ns")), "ns"),
    ],
)
def test_the_finest_unit_holds_the_first_and_the_last_value(tmp_path: Path, values: pa.Array, unit: str) -> None:
    assert units(tmp_path / "t.parquet", {"id": pa.array(range(len(values))), "v": values}) == {"v": unit}


def test_every_row_group_counts(tmp_path: Path) -> None:
    values = pa.array([0, None, LAST_NS + 1], MICROSECONDS)

    assert units(tmp_path / "t.parquet", {"v": values}, row_group_size=1) == {"v": "us"}


def test_without_statistics_nothing_is_known(tmp_path: Path) -> None:
    assert units(tmp_path / "t.parquet", {"v": pa.array([0], MICROSECONDS)}, write_statistics=False) == {"v": "us"}


def test_a_column_named_like_a_part_of_another_is_not_taken_for_it(tmp_path: Path) -> None:
    inner = pa.array([{"b": 0}], pa.struct([("b", MICROSECONDS)]))

    found = units(tmp_path / "t.parquet", {"a": inner, "a.b": pa.array([FAR], MICROSECONDS)})

    assert found == {"a.b": "us"}


def test_what_two_files_hold_fits_the_coarser_of_their_units() -> None:
    assert coarser_units({"v": "ns", "w": "us"}, {"v": "us", "x": "ms"}) == {"v": "us", "w": "us", "x": "ms"}
