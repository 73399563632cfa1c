"""Parquet files of a Delta table: rows by partition and in order of time, with the statistics that the log keeps."""

import datetime as dt
import json
import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from micromegas_jupyter.core.storage import Storage, storage_errors, sync_folder
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import ResourcesExhausted
from micromegas_jupyter.lake.delta_log import Action

COMPRESSION: Final = "zstd"
ROWS_PER_GROUP: Final = 128 * 1024
_MAX_PARTITIONS: Final = 400
_MAX_BOUND: Final = 32  # characters of a text's bound, as Spark has it
_MAX_CHARACTER: Final = 0x10FFFF
_LAST_BEFORE_SURROGATES: Final = 0xD7FF
_NULL_FOLDER: Final = "__HIVE_DEFAULT_PARTITION__"
# By these rows are sorted, the first that there is.
_TIME_COLUMNS: Final = ("time", "insert_time")

_MINIMUM, _MAXIMUM = range(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFile:
    """A file that is on disk, and what the log is to say of it; `path` is relative to the table's folder."""

    path: str
    size_bytes: int
    partition: Mapping[str, str | None]
    modified_ms: int
    statistics: Mapping[str, object] = field(repr=False)

    def action(self) -> Action:
        """Return the action that adds it to a table."""
        return {
            "add": {
                "path": self.path,
                "partitionValues": dict(self.partition),
                "size": self.size_bytes,
                "modificationTime": self.modified_ms,
                "dataChange": True,
                "stats": json.dumps(self.statistics, separators=(",", ":"), ensure_ascii=False),
            }
        }

    def is_there(self, storage: Storage, table: str) -> bool:
        """Whether nobody removed it."""
        folder, _, name = f"{table}/{self.path}".rpartition("/")
        return any(entry.path.endswith(f"/{name}") for entry in storage.list(folder, after=name[:-1]))

    def move(self, storage: Storage, staging: str, table: str) -> "NewFile":
        """Bring it into the folder of a table that has no partitions."""
        if staging != table:
            root = Path(storage.uri)
            with storage_errors("The rows could not be stored."):
                (root / staging / self.path).rename(root / table / self.path)
                sync_folder(root / table)
        return self


def write_files(
    storage: Storage, folder: str, rows: pa.Table, *, clock: Clock, partition_by: Sequence[str] = ()
) -> list[NewFile]:
    """Write rows into one file for each partition, durably; none for no rows."""
    files = []
    for values, part in _partitions(rows, partition_by):
        path = "".join(f"{name}={_NULL_FOLDER if value is None else value}/" for name, value in values.items())
        path = f"{path}part-{uuid.uuid4().hex}.parquet"
        ordered = _in_order(part)
        sink = pa.BufferOutputStream()
        with storage_errors("The rows could not be stored."):
            pq.write_table(ordered, sink, compression=COMPRESSION, row_group_size=ROWS_PER_GROUP)
        content = sink.getvalue()
        storage.write(f"{folder}/{path}", content)
        files.append(
            NewFile(
                path=path,
                size_bytes=content.size,
                partition=values,
                modified_ms=round(clock.now().timestamp() * 1000),
                statistics=build_statistics(ordered),
            )
        )
    return files


def check_partitions(rows: pa.Table | pa.RecordBatch, partition_by: Sequence[str]) -> None:
    """Check that rows belong to no more partitions than one commit may add files to."""
    if partition_by and rows.num_rows > _MAX_PARTITIONS:
        found = pa.table(rows.select(partition_by)).group_by(list(partition_by)).aggregate([]).num_rows
        if found > _MAX_PARTITIONS:
            raise ResourcesExhausted(
                f"The rows belong to more than {_MAX_PARTITIONS:,} days or other partitions.",
                remedy="Send them in several calls, for some days each.",
                limit="ingest",
            )


def build_statistics(rows: pa.Table) -> Mapping[str, object]:
    """Return what readers skip a file by, in the forms of Delta's log: counts, and bounds of plain columns.

    Source: PROTOCOL.md, Per-file Statistics. Times are exact, texts cut so that no value lies outside.
    """
    lowest: dict[str, object] = {}
    highest: dict[str, object] = {}
    nulls: dict[str, int] = {}
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        if pa.types.is_nested(column.type):
            continue
        nulls[name] = column.null_count
        if pa.types.is_boolean(column.type) or pa.types.is_decimal(column.type) or pa.types.is_binary(column.type):
            continue  # no bounds by the protocol, not exact in JSON, no form in JSON
        if pa.types.is_floating(column.type) and pc.any(pc.is_nan(column)).as_py():
            continue
        found = pc.min_max(column)
        low, high = _bound(found["min"], _MINIMUM), _bound(found["max"], _MAXIMUM)
        if low is not None and high is not None:
            lowest[name], highest[name] = low, high
    return {"numRecords": rows.num_rows, "minValues": lowest, "maxValues": highest, "nullCount": nulls}


def _bound(scalar: pa.Scalar, side: int) -> Any:  # noqa: PLR0911 - one for each type
    """Return a bound as JSON has it; None when there is none."""
    if not scalar.is_valid:
        return None
    try:
        value = scalar.as_py()
    except (ValueError, OverflowError):
        return None  # a year that Python does not know
    if isinstance(value, dt.datetime):
        return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, float):
        if value == 0:  # one zero may stand for both
            return 0.0 if side == _MAXIMUM else -0.0
        return value if math.isfinite(value) else None
    return _text_bound(value, side) if isinstance(value, str) else value


def _text_bound(text: str, side: int) -> str | None:
    if len(text) <= _MAX_BOUND or side == _MINIMUM:
        return text[:_MAX_BOUND]
    for length in range(_MAX_BOUND, 0, -1):
        code = ord(text[length - 1])
        if code < _MAX_CHARACTER:
            following = 0xE000 if code == _LAST_BEFORE_SURROGATES else code + 1
            return text[: length - 1] + chr(following)
    return None


def _partitions(rows: pa.Table, by: Sequence[str]) -> Iterator[tuple[dict[str, str | None], pa.Table]]:
    if rows.num_rows == 0:
        return
    if not by:
        yield {}, rows
        return
    for values in rows.select(by).group_by(list(by)).aggregate([]).to_pylist():
        wanted = None
        for name, value in values.items():
            column = rows.column(name)
            matches = pc.is_null(column) if value is None else pc.fill_null(pc.equal(column, value), False)
            wanted = matches if wanted is None else pc.and_(wanted, matches)
        yield (
            {name: None if value is None else str(value) for name, value in values.items()},
            rows.filter(wanted).drop_columns(list(by)),
        )


def _in_order(rows: pa.Table) -> pa.Table:
    name = next((name for name in _TIME_COLUMNS if name in rows.column_names), None)
    if name is None or not pa.types.is_timestamp(rows.schema.field(name).type):
        return rows
    times = rows.column(name)
    if not times.null_count and pc.all(pc.less_equal(times[:-1], times[1:])).as_py():
        return rows
    return rows.sort_by(name)
