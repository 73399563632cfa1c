"""Puts a caller's tables into a session: files, time range and merge become views under their SQL names.

Only tables that the statement names are built; nothing here reads a file's content.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pyarrow as pa
from datafusion import DataFrame, SessionContext, col, lit

from micromegas_jupyter.engine.errors import file_gone
from micromegas_jupyter.engine.scanner import Kind, Scan
from micromegas_jupyter.engine.wire_schema import wire_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from micromegas_jupyter.contracts import TableSnapshot
    from micromegas_jupyter.engine.contract import TimeRange
    from micromegas_jupyter.engine.native_scan import FileReader

_NAMES_ALL: Final = frozenset({"show", "information_schema"})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TICKS_PER_SECOND: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_INT64: Final = (-(1 << 63), (1 << 63) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """Which names a statement can possibly refer to.

    Attributes:
        names: The identifiers in it, as DataFusion reads them.
        text: The statement in lower case when its quoting is not certain, so that any part of it counts; else None.
    """

    names: frozenset[str]
    text: str | None = field(default=None, repr=False)

    def has(self, name: str) -> bool:
        """Return whether the statement may refer to `name`; True when in doubt."""
        return name in self.names or '"' in name or (self.text is not None and name.lower() in self.text)


def find_mentions(scanned: Scan) -> Mention:
    """Return the names that a statement mentions."""
    names = frozenset(token.name for token in scanned.tokens if token.kind in {Kind.WORD, Kind.QUOTED})
    return Mention(names=names, text=None if scanned.is_certain else scanned.sql.lower())


def register_tables(
    context: SessionContext,
    snapshots: Sequence[TableSnapshot],
    *,
    reader: FileReader,
    mentions: Mention,
    time_range: TimeRange | None,
) -> list[TableSnapshot]:
    """Register the mentioned tables and return their snapshots.

    A statement over information_schema sees the others too, as names and schemas without rows.

    Raises:
        Unavailable: A file of a mentioned table is gone.
    """
    wants_names = any(mentions.has(name) for name in _NAMES_ALL)
    registered: list[TableSnapshot] = []
    for snapshot in snapshots:
        is_mentioned = mentions.has(snapshot.name) or (
            snapshot.raw_name is not None and mentions.has(snapshot.raw_name)
        )
        if is_mentioned:
            _check_files(snapshot)
            rows = _cut(_rows(context, snapshot, reader), snapshot, time_range)
            _register(context, snapshot, rows)
            registered.append(snapshot)
        elif wants_names:
            _register(context, snapshot, _no_rows(context, snapshot.schema))
    return registered


@functools.lru_cache(maxsize=256)
def _visible_schemas(
    name: str, schema: pa.Schema, merge_sql: str | None, raw_name: str | None
) -> tuple[tuple[str, pa.Schema], ...]:
    context = SessionContext()
    rows = _no_rows(context, schema)
    if merge_sql is None or raw_name is None:
        return ((name, wire_schema(rows.schema(), preserve_dictionary=False)),)
    context.register_table(_quoted(raw_name), rows.into_view())
    merged = context.sql(merge_sql)
    return (
        (name, wire_schema(merged.schema(), preserve_dictionary=False)),
        (raw_name, wire_schema(rows.schema(), preserve_dictionary=False)),
    )


def visible_schemas(snapshot: TableSnapshot) -> tuple[tuple[str, pa.Schema], ...]:
    """Return the names that a snapshot makes visible, each with the schema of `SELECT *`; kept per schema."""
    return _visible_schemas(snapshot.name, snapshot.schema, snapshot.merge_sql, snapshot.raw_name)


def names_of(snapshots: Sequence[TableSnapshot]) -> tuple[str, ...]:
    """Return all visible names."""
    return tuple(name for one in snapshots for name in (one.name, one.raw_name) if name is not None)


def _register(context: SessionContext, snapshot: TableSnapshot, rows: DataFrame) -> None:
    if snapshot.merge_sql is None or snapshot.raw_name is None:
        context.register_table(_quoted(snapshot.name), rows.into_view())
        return
    context.register_table(_quoted(snapshot.raw_name), rows.into_view())
    context.register_table(_quoted(snapshot.name), context.sql(snapshot.merge_sql).into_view())


def _rows(context: SessionContext, snapshot: TableSnapshot, reader: FileReader) -> DataFrame:
    if not snapshot.files:
        return _no_rows(context, snapshot.schema)
    return reader.read(context, snapshot.files, snapshot.schema)


def _no_rows(context: SessionContext, schema: pa.Schema) -> DataFrame:
    return context.read_batch(pa.RecordBatch.from_pylist([], schema=schema))


def _check_files(snapshot: TableSnapshot) -> None:
    """DataFusion reads a file that is not there as no rows, so a vanished file must be noticed here."""
    for file in snapshot.files:
        if "://" not in file and not os.path.exists(file):  # noqa: PTH110 - 230 paths cost 0.3 ms so, 2 ms as Path
            raise file_gone()


def _cut(rows: DataFrame, snapshot: TableSnapshot, time_range: TimeRange | None) -> DataFrame:
    if time_range is None or snapshot.range_columns is None:
        return rows
    first, last = snapshot.range_columns
    return rows.filter(
        (col(_quoted(first)) <= lit(_moment(time_range.end, snapshot.schema.field(first).type, round_up=False)))
        & (col(_quoted(last)) >= lit(_moment(time_range.begin, snapshot.schema.field(last).type, round_up=True)))
    )


def _moment(moment: datetime, column: pa.DataType, *, round_up: bool) -> pa.Scalar:
    """Return `moment` in the column's own type, so that no cast stands between the filter and the files' statistics."""
    stamp = column if pa.types.is_timestamp(column) else pa.timestamp("ns", "UTC")
    microseconds = (moment - _EPOCH) // timedelta(microseconds=1)
    scaled = microseconds * _TICKS_PER_SECOND[stamp.unit]
    ticks = -(-scaled // 10**6) if round_up else scaled // 10**6
    return pa.scalar(min(max(ticks, _INT64[0]), _INT64[1]), stamp)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
