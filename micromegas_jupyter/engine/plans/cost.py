"""Estimates how much a statement reads: the sizes of its files, multiplied by the share of the columns that it needs.

DataFusion reads the last bytes of each file for its footer, and the columns of a scan. Shares come from the footer of
one file per table, so nothing else is read before the statement runs. See docs/decisions/0074.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import numpy as np
import pyarrow.compute as pc
from cachetools import LRUCache
from pyarrow.parquet import FileMetaData

from micromegas_jupyter.core.file_list import FileList, Int64s
from micromegas_jupyter.core.protocols import FileFormat, TableSnapshot
from micromegas_jupyter.core.storage import S3_SCHEME
from micromegas_jupyter.core.text import bytes_text, files_text
from micromegas_jupyter.engine.contract import TableFiles, TimeRange, VisibleTable
from micromegas_jupyter.engine.plans.counts import find_total
from micromegas_jupyter.errors import ScanTooLarge
from micromegas_jupyter.telemetry.tables import NANOS

#: Estimated footer size, added for each file.
FOOTER_BYTES: Final = 32 * 1024
# A plan's text also contains the scans of subqueries that are still part of an expression.
_SCAN: Final = re.compile(r"TableScan: (scan_of_table_\d{4})(?: projection=\[(.*?)\])?(?=,|$)(.*)$", re.MULTILINE)
_LIMIT: Final = re.compile(r", fetch=\d+$")
_FILTERS: Final = "_filters=["
_MAX_TABLES: Final = 256
_MAX_NAMED: Final = 3
_MICROSECONDS_PER_DAY: Final = 86_400_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY: Final = timedelta(days=1)
_Key = TypeVar("_Key", str, int)


@dataclass(slots=True, kw_only=True)
class TableCost:
    """The cost of all scans of a table; `size` is None if the sizes of its files are unknown.

    `columns` contains the bytes per column, and `days` the bytes of the files that begin on each day.
    """

    name: str
    files: int
    total: int
    size: int | None = 0
    rows: int | None = 0
    columns: Counter[str] = field(default_factory=Counter)
    days: Counter[int] = field(default_factory=Counter)

    def counts(self) -> TableFiles:
        """Return the counts for a caller who sees all rows."""
        return TableFiles(self.name, self.files, self.total, self.size, self.rows)


@dataclass(frozen=True, slots=True)
class _Footer:
    """The share of each column in a file, the row count of its largest row group, and its bytes per row group."""

    shares: Mapping[str, float]
    group_rows: int
    size: int


class Footers:
    """Caches the column shares of recent tables; `read` returns the footer of a file."""

    def __init__(self, read: Callable[[str], FileMetaData]) -> None:
        self._read = read
        self._known: LRUCache[object, _Footer] = LRUCache(_MAX_TABLES)

    def find(self, snapshot: TableSnapshot, path: str) -> _Footer:
        """Return the shares of a table's columns, by default those in the file at `path`."""
        key = (snapshot.name, snapshot.stored_schema or snapshot.schema)
        if key not in self._known:
            self._known[key] = _shares(self._read(path))
        return self._known[key]


def _shares(footer: FileMetaData) -> _Footer:
    sizes: Counter[str] = Counter()
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    for group in groups:
        for column in map(group.column, range(group.num_columns)):
            sizes[column.path_in_schema.partition(".")[0]] += column.total_compressed_size
    # Excludes the footer, so that a small file's shares also apply to larger files.
    total = sum(sizes.values()) or 1
    shares = {name: size / total for name, size in sizes.items()}
    return _Footer(
        shares, max((group.num_rows for group in groups), default=0), footer.serialized_size // max(len(groups), 1)
    )


def estimate(plan: str, scans: Mapping[str, VisibleTable], footers: Footers, *, partitions: int) -> list[TableCost]:
    """Return the cost of the tables in a plan (one step per line); `scans` have the files that are `needed`.

    The plan runs in this many `partitions`, each of which may begin within a file.
    """
    found: dict[str, TableCost] = {}
    for name, projection, rest in (one.groups() for one in _SCAN.finditer(plan)):
        if (table := scans.get(name)) is None:
            continue
        cost = found.setdefault(table.read_as, _no_cost(table))
        cost.files = max(cost.files, len(table.needed))
        every = table.snapshot.schema.names
        columns = every if projection is None else projection.split(", ") if projection else []
        if not {*columns} <= {*every, *_rests(table.snapshot)}:
            columns = every  # a column name contains a comma or a bracket
        is_limited = _LIMIT.search(rest) is not None and _FILTERS not in rest
        _add_scan(cost, table, columns, footers, max_groups=partitions if is_limited else 0)
    return list(found.values())


def whole_files(plan: str, scans: Mapping[str, VisibleTable]) -> list[TableCost]:
    """Return the total size of the `needed` files of the scans in a plan, regardless of the columns."""
    found: dict[str, TableCost] = {}
    for name, _, _ in _SCAN.findall(plan):
        if name not in scans:
            continue
        cost = found.setdefault(name, _no_cost(scans[name]))
        sizes = _sizes(scans[name])
        cost.size = None if sizes is None or cost.size is None else cost.size + int(sizes.sum())
    return list(found.values())


def whole_days(time_range: TimeRange | None) -> TimeRange | None:
    """Return a time range extended to whole UTC days."""
    if time_range is None:
        return None
    begin = time_range.begin - (time_range.begin - _EPOCH) % _DAY
    try:
        return TimeRange(begin=begin, end=time_range.end + (_EPOCH - time_range.end) % _DAY)
    except OverflowError:
        return TimeRange(begin=begin, end=time_range.end)


def check_cost(costs: Sequence[TableCost], *, allowed: int, limit: int, names_costs: bool) -> int:
    """Return the bytes that a statement will read; raises if they exceed `allowed`, what remains of `limit`."""
    if any(cost.size is None for cost in costs):
        raise ScanTooLarge(
            "The sizes of a table's files are unknown, so the server can't check whether this statement "
            f"exceeds the {bytes_text(limit)} that your roles allow.",
            remedy="Tell the server's administrator.",
            limit="scan_bytes",
        )
    size = sum(cost.size or 0 for cost in costs)
    if size <= allowed:
        return size
    if not names_costs:
        raise ScanTooLarge(
            f"This statement may read more than the {bytes_text(limit)} that your roles allow per statement.",
            remedy="Specify a shorter time range for the call.",
            limit="scan_bytes",
        )
    columns = Counter({f"{cost.name}.{name}": one for cost in costs for name, one in cost.columns.items()})
    days = sum((cost.days for cost in costs), Counter[int]())
    raise ScanTooLarge(
        f"This statement would read about {bytes_text(size)} of {files_text(sum(cost.files for cost in costs))}, but "
        f"your roles allow only {bytes_text(limit)} per statement. Most expensive columns: {_list_top(columns, str)}."
        + (f" Most expensive days: {_list_top(days, _day_text)}." if len(days) > 1 else ""),
        limit="scan_bytes",
    )


def _no_cost(table: VisibleTable) -> TableCost:
    return TableCost(name=table.read_as, files=0, total=len(table.snapshot.files))


def _rests(snapshot: TableSnapshot) -> list[str]:
    """Return the columns that contain the nanosecond remainders of times."""
    return [f"{name}{NANOS}" for name in snapshot.split_times]


def _add_scan(
    cost: TableCost, table: VisibleTable, columns: Iterable[str], footers: Footers, *, max_groups: int
) -> None:
    """Add the cost of scanning some columns.

    With `max_groups`, the scan stops after some rows: it reads one row group per file, and up to `max_groups` from one
    file.
    """
    snapshot, files, sizes = table.snapshot, FileList.of(table.needed), _sizes(table)
    if not len(files):
        return
    if sizes is None:
        cost.size = cost.rows = None
        return
    rows = find_total(snapshot, files, "rows")
    # Files in other formats are read completely.
    shares: Mapping[str, float] = dict.fromkeys(columns, 1.0)
    stored, spare = sizes.astype(np.float64), 0.0
    if snapshot.file_format is FileFormat.PARQUET:
        footer = footers.find(snapshot, files.paths[int(np.argmax(sizes))])
        shares = _stored_shares(snapshot, columns, footer.shares)
        stored = np.maximum(stored - footer.size, 0)
        counts = _of_files(table, "rows")
        if max_groups and counts is not None and footer.group_rows:
            whole, stored = stored.sum(), stored * np.minimum(1.0, footer.group_rows / np.maximum(counts, 1))
            spare = min((max_groups - 1) * stored.max(), whole - stored.sum())
            rows = int(np.minimum(counts, footer.group_rows).sum())
    share = min(1.0, sum(shares.values())) if snapshot.file_format is FileFormat.PARQUET else 1.0
    read = np.ceil(stored * share) + np.minimum(sizes, FOOTER_BYTES)
    cost.size = None if cost.size is None else cost.size + int(read.sum() + np.ceil(spare * share))
    cost.rows = None if cost.rows is None or rows is None else cost.rows + rows
    cost.columns.update({name: int((stored.sum() + spare) * one) for name, one in shares.items()})
    for day, one in zip(files.columns.column("begin").to_pylist(), read.tolist(), strict=True):
        if day is not None:
            cost.days[day // _MICROSECONDS_PER_DAY] += int(one)


def _stored_shares(snapshot: TableSnapshot, columns: Iterable[str], shares: Mapping[str, float]) -> dict[str, float]:
    """Return the columns' shares by SQL name; a column that is missing in the file may fill all of another file."""
    stored = dict(zip(snapshot.schema.names, (snapshot.stored_schema or snapshot.schema).names, strict=True))
    wanted = {name for name in columns if name not in snapshot.partition_columns}
    wanted |= {rest for rest in _rests(snapshot) if rest.removesuffix(NANOS) in wanted and rest in shares}
    return {name: shares.get(stored.get(name, name), 1.0) for name in wanted}


def _of_files(table: VisibleTable, name: str) -> Int64s | None:
    """Return the byte or row count of each needed file, or None if the table's log lacks a count."""
    snapshot = table.snapshot
    if snapshot.bounds is None or name not in snapshot.bounds.column_names:
        return None
    paths = FileList.of(snapshot.files).columns.column("path")
    is_needed = pc.is_in(paths, FileList.of(table.needed).columns.column("path"))
    known = snapshot.bounds.column(name).filter(is_needed)
    return None if known.null_count else known.to_numpy()


def _sizes(table: VisibleTable) -> Int64s | None:
    found = _of_files(table, "bytes")
    if found is not None:
        return found
    paths = FileList.of(table.needed).paths
    if any(path.startswith(S3_SCHEME) for path in paths):
        return None
    return np.array([os.stat(path).st_size for path in paths], dtype=np.int64)  # noqa: PTH116 - hundreds of files


def _list_top(costs: Counter[_Key], shown: Callable[[_Key], str]) -> str:
    listed = [f"{shown(key)} ({bytes_text(size)})" for key, size in costs.most_common(_MAX_NAMED) if size]
    return ", ".join(listed) or "none, only the footers of files"


def _day_text(day: int) -> str:
    return f"{_EPOCH + timedelta(days=day):%Y-%m-%d}"
