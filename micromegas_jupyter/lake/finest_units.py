"""How finely the times in a Parquet file can be counted without one getting lost, as its footer tells.

64 bits of nanoseconds end in the years 1677 and 2262, and programs write 9999-12-31 for "no end". Which unit a table's
column gets is the callers' job.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet

if TYPE_CHECKING:
    from collections.abc import Mapping

#: From coarse to fine; each counts a thousand of the next.
UNITS: Final = ("s", "ms", "us", "ns")
_FINER: Final = 1000
_WRITTEN: Final = {"milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns"}
_INT64: Final = (-(1 << 63), (1 << 63) - 1)


def finest_units(metadata: pyarrow.parquet.FileMetaData, schema: pa.Schema) -> dict[str, str]:
    """Return, for each column of times in `schema`, the finest unit that provably holds all its values.

    Where the footer does not tell which values there are, that is the unit in which they are written.
    """
    times = {field.name: field.type.unit for field in schema if pa.types.is_timestamp(field.type)}
    paths = [metadata.schema.column(place).path for place in range(metadata.num_columns)] if times else []
    counts = Counter(paths)
    return {
        name: _finest_unit(metadata, paths.index(name), unit) if counts[name] == 1 else unit
        for name, unit in times.items()
    }


def coarser_units(first: Mapping[str, str], second: Mapping[str, str]) -> dict[str, str]:
    """Return the finest units that hold the values of two files."""
    both = {name: min(first[name], second[name], key=UNITS.index) for name in first.keys() & second.keys()}
    return {**first, **second, **both}


def _finest_unit(metadata: pyarrow.parquet.FileMetaData, place: int, unit: str) -> str:
    column = metadata.schema.column(place)
    written = json.loads(column.logical_type.to_json()).get("timeUnit")
    if column.physical_type != "INT64" or _WRITTEN.get(written) != unit:
        return unit
    ends: list[int] = []
    for index in range(metadata.num_row_groups):
        found = _ends(metadata.row_group(index), place)
        if found is None:
            return unit
        ends.extend(found)
    finest = unit
    for finer in UNITS[UNITS.index(unit) + 1 :]:
        ends = [end * _FINER for end in ends]
        if any(not _INT64[0] <= end <= _INT64[1] for end in ends):
            break
        finest = finer
    return finest


def _ends(group: Any, place: int) -> tuple[int, ...] | None:
    """Return the first and the last time of a row group, nothing where it has none; None when it is not told."""
    statistics = group.column(place).statistics
    if group.num_rows == 0:
        return ()
    if statistics is None:
        return None
    if statistics.has_min_max:
        return statistics.min_raw, statistics.max_raw
    return () if statistics.has_null_count and statistics.null_count == group.num_rows else None
