"""Which files of a table a statement needs, by what its snapshot tells of each: a range of times, partition values.

Only simple conditions count: a column of those against a constant, and AND and OR of such. Whatever else keeps a file.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa
from datafusion.expr import Expr
from datafusion.plan import LogicalPlan

from micromegas_jupyter.core.protocols import DataFile, TableSnapshot
from micromegas_jupyter.engine.contract import TimeRange

FilesByTable = Mapping[str, Sequence[DataFile]]
_Test = Callable[[DataFile], bool]

#: The column of the data model's tables that `DataFile.processes` is about.
PROCESS: Final = "process_id"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
# Of a constant that is made of the time of planning, which happens twice.
_DRIFT: Final = 60_000_000
# Of `date_trunc`, in microseconds.
_UNITS: Final[Mapping[object, int]] = {
    "second": 10**6,
    "minute": 60 * 10**6,
    "hour": 3600 * 10**6,
    "day": 86400 * 10**6,
}
_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Candidates:
    """A table and those of its files that lie in the time range of the call."""

    snapshot: TableSnapshot
    files: Sequence[DataFile]


def files_in_range(snapshot: TableSnapshot, time_range: TimeRange | None) -> Sequence[DataFile]:
    """Return the files that may have rows in the range."""
    if time_range is None or snapshot.range_columns is None:
        return snapshot.files
    begin = (time_range.begin - _EPOCH) // _MICROSECOND
    end = -((_EPOCH - time_range.end) // _MICROSECOND)
    return [
        file
        for file in snapshot.files
        if (file.end is None or file.end >= begin) and (file.begin is None or file.begin <= end)
    ]


def partition_value(text: str | None, kind: pa.DataType) -> pa.Scalar:
    """Return the value that a Delta log has as text; by the protocol, no text is null."""
    if text is None or text == "":
        return pa.scalar(None, kind)
    if pa.types.is_binary(kind):
        return pa.scalar(text.encode(), kind)
    if pa.types.is_timestamp(kind) and kind.tz is not None and not text.endswith("Z"):
        text += "Z"
    if pa.types.is_boolean(kind):
        text = text.lower()
    return pa.scalar(text, pa.string()).cast(kind)


def prune(plan: LogicalPlan, tables: Mapping[str, Candidates], *, may_change: bool) -> FilesByTable:
    """Return the needed files of tables by the optimized plan of a statement, in which they have the names of `tables`.

    `may_change` is whether the conditions can have other constants when the statement is planned again.
    """
    scans: dict[str, list[Sequence[Expr]]] = {name: [] for name in tables}
    _collect(plan, scans)
    text = plan.display_indent()
    needed: dict[str, Sequence[DataFile]] = {}
    for name, candidates in tables.items():
        found = scans[name]
        # A scan inside an expression is not among the inputs of a plan.
        if not found or len(found) != text.count(f"TableScan: {name}"):
            continue
        tests = [[_test(one, candidates.snapshot, may_change=may_change) for one in filters] for filters in found]
        needed[candidates.snapshot.name] = [
            file for file in candidates.files if any(all(test(file) for test in scan) for scan in tests)
        ]
    return needed


def _collect(plan: LogicalPlan, scans: dict[str, list[Sequence[Expr]]]) -> None:
    node = plan.to_variant() if plan.display().startswith("TableScan:") else None
    if node is not None and node.table_name() in scans:
        scans[node.table_name()].append(node.filters())
    for below in plan.inputs():
        _collect(below, scans)


def _test(condition: Expr, snapshot: TableSnapshot, *, may_change: bool) -> _Test:
    """Return whether a file may have a row that meets the condition."""
    kind = condition.variant_name()
    if kind == "BinaryExpr":
        name, operands = condition.rex_call_operator(), condition.rex_call_operands()
        if name in {"AND", "OR"}:
            first, second = (_test(one, snapshot, may_change=may_change) for one in operands)
            if name == "AND":
                return lambda file: first(file) and second(file)
            return lambda file: first(file) or second(file)
        if name in _COMPARISONS and operands[1].variant_name() == "Literal":
            column, microseconds = _truncated(operands[0])
            if column.variant_name() == "Column":
                value = operands[1].python_value()
                return _compare(column, name, value, snapshot, may_change=may_change, slack=microseconds)
    elif kind == "InList" and not condition.to_variant().negated():
        column, *listed = condition.rex_call_operands()
        if column.variant_name() == "Column" and all(one.variant_name() == "Literal" for one in listed):
            tests = [_compare(column, "=", one.python_value(), snapshot, may_change=may_change) for one in listed]
            return lambda file: any(test(file) for test in tests)
    return _always


def _truncated(compared: Expr) -> tuple[Expr, int]:
    """Return a column that is cut to a unit of time, and how long that is in microseconds; else as it is."""
    if compared.variant_name() == "ScalarFunction" and compared.rex_call_operator() == "date_trunc":
        unit, column = compared.rex_call_operands()
        text = unit.python_value() if unit.variant_name() == "Literal" else None
        microseconds = _UNITS.get(text.as_py() if isinstance(text, pa.Scalar) else text)
        if microseconds is not None:
            return column, microseconds
    return compared, 0


def _always(_file: DataFile) -> bool:
    return True


def _compare(  # noqa: PLR0913 - a comparison, and of what
    column: Expr, sign: str, value: object, snapshot: TableSnapshot, *, may_change: bool, slack: int = 0
) -> _Test:
    """Return the test for a column that may be up to `slack` microseconds later than what is compared."""
    name = column.to_variant().name()
    if not isinstance(value, pa.Scalar) or not value.is_valid or name not in snapshot.schema.names:
        return _always
    if name == PROCESS and sign == "=" and name not in snapshot.partition_columns:
        return _is_process(value.as_py())
    if value.type != snapshot.schema.field(name).type:
        return _always
    if name in snapshot.partition_columns:
        return _always if may_change or slack else _compare_partition(name, sign, value, snapshot)
    if snapshot.range_columns is None or not pa.types.is_timestamp(value.type) or value.type.unit != "us":
        return _always
    first, last = snapshot.range_columns
    time = value.value
    lower, upper = sign in {">", ">=", "="} and name == last, sign in {"<", "<=", "="} and name == first
    if may_change:
        upper = False
        time -= _DRIFT
    return lambda file: (
        not (
            (lower and file.end is not None and file.end < time)
            or (upper and file.begin is not None and file.begin > time + slack)
        )
    )


def _is_process(found: object) -> _Test:
    def test(file: DataFile) -> bool:
        if file.processes is None or not isinstance(found, str):
            return True
        least, greatest = file.processes
        # Some writers cut long bounds.
        return least <= found and (found <= greatest or found.startswith(greatest))

    return test


def _compare_partition(name: str, sign: str, value: pa.Scalar, snapshot: TableSnapshot) -> _Test:
    kind, compare = value.type, _COMPARISONS[sign]
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_date(kind)):
        return _always
    place = snapshot.partition_columns.index(name)
    known: dict[str | None, bool] = {}

    def comparable(scalar: pa.Scalar) -> Any:
        found = scalar.as_py()
        return found.encode() if isinstance(found, str) else found

    constant = comparable(value)

    def test(file: DataFile) -> bool:
        text = file.partition[place]
        if text not in known:
            found = partition_value(text, kind)
            known[text] = found.is_valid and compare(comparable(found), constant)
        return known[text]

    return test
