"""Determines the tables and columns that a statement reads, for the audit log.

DataFusion moves the columns that a statement needs down to the scans. Columns that only row filters, merges, and time
ranges need must not be reported, because the caller did not request them. If tables need more than their own scan, the
plan therefore doesn't show the reads, and the statement is planned again over empty tables with the columns that its
caller sees.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from micromegas_jupyter.engine.contract import ANY, Reads, TimeRange, VisibleTable
from micromegas_jupyter.engine.scanner import quoted
from micromegas_jupyter.telemetry.tables import NANOS

if TYPE_CHECKING:
    from datafusion import SessionContext
    from datafusion.plan import LogicalPlan

MAX_READS_BYTES: Final = 16 * 1024
_MAX_VISITED: Final = 20_000
_INFORMATION_SCHEMA: Final = "information_schema"
_SCAN: Final = "TableScan: "
# Filters inside a scan may need columns that it does not return.
_OWN_FILTERS: Final = "full_filters=["
# Rows that a table function returned during planning.
_RETURNED_ROWS: Final = "?table?"


def are_plain(tables: Iterable[VisibleTable], time_range: TimeRange | None, *, is_outline: bool = False) -> bool:
    """Return whether the scans of these tables in a statement's plan return only columns that it requests.

    The scans of an outline have the columns that SQL sees.
    """
    return not any(
        table.hides_rows
        or table.retained
        or table.equal
        or table.snapshot.merge_sql
        or table.snapshot.source
        or (time_range is not None and table.snapshot.range_columns)
        or (not is_outline and _has_other_columns(table))
        for table in tables
    )


def _has_other_columns(table: VisibleTable) -> bool:
    snapshot = table.snapshot
    has_partitions = not {*snapshot.partition_columns}.isdisjoint(snapshot.schema.names)
    return table.has_deleted_rows or snapshot.stored_schema is not None or has_partitions


def without_rows(session: "SessionContext", tables: Iterable[VisibleTable]) -> dict[str, Sequence[str]]:
    """Replace a session's tables with empty ones, and return the columns by table name."""
    names = [name for table in tables for name in table.names if session.table_exist(quoted(name))]
    schemas = {name: session.table(quoted(name)).schema() for name in names}
    for name, schema in schemas.items():
        session.deregister_table(quoted(name))
        session.register_record_batches(quoted(name), [[pa.RecordBatch.from_pylist([], schema=schema)]])
    return {name: schema.names for name, schema in schemas.items()}


def find_reads(
    optimized: "LogicalPlan",
    tables: Mapping[str, VisibleTable],
    columns: Mapping[str, Sequence[str]],
    *,
    functions: Iterable[str],
) -> Reads:
    """Return the tables that a plan reads, each with its columns; `tables` and `columns` are by scan name.

    If a table's columns cannot be determined, `ANY` replaces them. Views also count as reads of their source.
    `functions` are the table functions that the statement may call.
    """
    reads: dict[str, set[str]] = {}
    text = optimized.display_indent()
    nanos = {name: [f"{one}{NANOS}" for one in tables[name].snapshot.split_times] for name in columns}
    for name, found in _scanned(optimized, text, {name: [*known, *nanos[name]] for name, known in columns.items()}):
        if name not in columns:
            reads.setdefault(name, set()).update(found)
            continue
        table = tables[name]
        asked = set(found).difference(nanos[name])
        reads.setdefault(table.read_as, set()).update(asked, (column for column, _ in table.equal))
        if (source := table.snapshot.source) is not None:
            reads.setdefault(source.table, set()).update(source.columns)
    if _RETURNED_ROWS in text:
        reads |= {f"{name}()": set() for name in functions}
    return bounded({name: sorted(found) for name, found in reads.items()})


def merged(first: Reads, second: Reads) -> Reads:
    """Return the combined reads of two statements."""
    names = {**first, **second}
    return bounded({name: sorted({*first.get(name, ()), *second.get(name, ())}) for name in names})


def unknown_reads(tables: Iterable[VisibleTable]) -> Reads:
    """Return `Reads` that contain any column of these tables."""
    return bounded({table.read_as: (ANY,) for table in tables})


def bounded(reads: Mapping[str, Sequence[str]]) -> Reads:
    """Limit `reads` to `MAX_READS_BYTES` as JSON: `ANY` replaces the longest lists, then the last tables."""
    found = {name: tuple(columns) for name, columns in reads.items()}
    sizes = {name: _size({name: columns}) for name, columns in found.items()}
    total = sum(sizes.values())
    for name in sorted(found, key=lambda name: sizes[name], reverse=True):
        if total <= MAX_READS_BYTES:
            return found
        found[name] = (ANY,)
        total -= sizes[name] - _size({name: (ANY,)})
    while total > MAX_READS_BYTES:
        name, columns = found.popitem()
        total -= _size({name: columns})
        found = {ANY: (ANY,), **found}
    return found


def _size(reads: Reads) -> int:
    return len(json.dumps(reads))


def _scanned(plan: "LogicalPlan", text: str, columns: Mapping[str, Sequence[str]]) -> list[tuple[str, Sequence[str]]]:
    """Return the scans in a plan, each with the columns that it returns."""
    found: list[tuple[str, Sequence[str]]] = []
    waiting: list[Any] = [plan]
    for _ in range(_MAX_VISITED):
        if not waiting:
            break
        step = waiting.pop()
        waiting += step.inputs()
        shown = step.display()
        if not shown.startswith(_SCAN):
            continue
        scan = step.to_variant()
        _, schema, name = scan.fqn()
        projection = scan.projection()
        listed = (ANY,) if projection is None or _OWN_FILTERS in shown else [column for _, column in projection]
        if schema == _INFORMATION_SCHEMA:
            found.append((f"{schema}.{name}", listed))
        elif name in columns:  # exclude the rows of a recursive query or a function
            found.append((name, listed))
    # Scans within expressions, such as scalar subqueries, are not among the inputs of a plan.
    for name, known in columns.items():
        scans = re.findall(
            rf"^ *{re.escape(_SCAN + name)}(?:,.*| projection=\[(.*?)\](?:, (?!full_filters=).*)?)?$",
            text,
            re.MULTILINE,
        )
        if waiting or len(scans) > sum(one == name for one, _ in found):
            found += [(name, one.split(", ") if one and {*one.split(", ")} <= {*known} else (ANY,)) for one in scans]
    return found
