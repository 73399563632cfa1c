"""Determines the files of a table that a statement needs, from the snapshot's bounds and partition values.

Only simple conditions count: comparisons of such columns with constants, and AND and OR of these. Other conditions keep
all files. For `ORDER BY time DESC LIMIT 100` without conditions, files that may contain one of the latest 100 rows are
kept.

Bounds include hidden rows. A statement therefore excludes files of a table with hidden rows only if all of it is
leakproof. Otherwise, `row_limits` returns leakproof conditions that its rows must meet. They are applied below the
security barrier, so that the remaining rows don't depend on hidden rows.
"""

import functools
import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datafusion import col, lit
from datafusion import functions as f
from datafusion.expr import Expr, SortExpr
from datafusion.plan import LogicalPlan

from micromegas_jupyter.core.file_list import FileList, Mask
from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.engine import leakproof
from micromegas_jupyter.engine.contract import TimeRange
from micromegas_jupyter.engine.leakproof import Term
from micromegas_jupyter.engine.plans.terms import chain, literal_term
from micromegas_jupyter.engine.scanner import quoted

FilesByTable = Mapping[str, FileList]
# The files that may have such rows, or a condition on these rows.
_T = TypeVar("_T", Mask, Expr)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_INT64: Final = (-(1 << 63), (1 << 63) - 1)
# Some writers truncate time bounds to milliseconds.
_CUT: Final = 1000
# Maximum difference between constants that depend on the planning time, because planning happens twice.
_DRIFT: Final = 60_000_000
# Per condition; examining more of them takes longer than it saves.
_MAX_TERMS: Final = 256
# Units of `date_trunc`, in microseconds.
_UNITS: Final[Mapping[object, int]] = {
    "second": 10**6,
    "minute": 60 * 10**6,
    "hour": 3600 * 10**6,
    "day": 86400 * 10**6,
}
_TICKS_PER_SECOND: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Candidates:
    """A table, and the call's time range if it is applied before the statement."""

    snapshot: TableSnapshot
    time_range: TimeRange | None


class _Scan(NamedTuple):
    """A scan in a plan: the conditions on its rows; without conditions, possibly a limit and an order.

    If it `is_counted`, only the number of its rows matters.
    """

    conditions: Sequence[Expr]
    order: SortExpr | None
    limit: int
    is_counted: bool


def files_in_range(snapshot: TableSnapshot, time_range: TimeRange | None, files: FileList | None = None) -> FileList:
    """Return the `files` (default: all) that may have rows in the range."""
    files = FileList.of(snapshot.files) if files is None else files
    if time_range is None or snapshot.range_columns is None:
        return files
    begin = (time_range.begin - _EPOCH) // _MICROSECOND
    end = -((_EPOCH - time_range.end) // _MICROSECOND)
    return files.where(files.in_range(begin, end))


def bounded_columns(snapshot: TableSnapshot) -> Collection[str]:
    """Return the columns whose bounds are known for each file."""
    names = () if snapshot.bounds is None else snapshot.bounds.column_names
    return {name.removeprefix("min.") for name in names if name.startswith("min.")}


def partition_value(text: str | None, kind: pa.DataType) -> pa.Scalar:
    """Return the value of a string in a Delta log; according to the protocol, an empty string means null."""
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
    """Return the needed files of `tables`, according to a statement's optimized plan, which uses the same names.

    `may_change` is whether the conditions may have other constants when the statement is planned again.
    """
    needed: dict[str, FileList] = {}
    for name, scans in _find_scans(plan, tables).items():
        snapshot, files = tables[name].snapshot, FileList.of(tables[name].snapshot.files)
        meets = functools.partial(_mask, snapshot, may_change=may_change)
        alternatives = []
        for scan in scans:
            masks = [_fold(one, meets) for one in scan.conditions]
            if scan.order is not None:
                masks.append(_first_rows(scan.order, scan.limit, snapshot))
            alternatives.append(_both(masks))
        mask = _either(alternatives)
        needed[snapshot.name] = files_in_range(
            snapshot, tables[name].time_range, files if mask is None else files.where(mask)
        )
    return needed


def counted_scans(plan: LogicalPlan, names: Iterable[str]) -> set[str]:
    """Return the scans for which an optimized plan needs only the number of rows."""
    return {name for name, scans in _find_scans(plan, names).items() if all(one.is_counted for one in scans)}


def row_limits(plan: LogicalPlan, scans: Mapping[str, pa.Schema], *, may_change: bool) -> dict[str, Expr]:
    """Return leakproof conditions that the needed rows of scans meet, from a statement's optimized plan.

    The conditions that DataFusion moved down to a scan exclude rows that can't change the result. Only comparisons of a
    column with constants of its type are returned.
    """
    limits: dict[str, Expr] = {}
    for name, found in _find_scans(plan, scans).items():
        limit_of = functools.partial(_limit, scans[name], may_change=may_change)
        limit = _either([_both([_fold(one, limit_of) for one in scan.conditions]) for scan in found])
        if limit is not None:
            limits[name] = limit
    return limits


def stored_limits(plan: LogicalPlan, scans: Mapping[str, TableSnapshot], *, may_change: bool) -> dict[str, Expr]:
    """Return conditions on the stored microseconds of split times that the needed rows meet, never too narrow."""
    limits: dict[str, Expr] = {}
    for name, found in _find_scans(plan, scans).items():
        limit_of = functools.partial(_stored_limit, scans[name], may_change=may_change)
        limit = _either([_both([_fold(one, limit_of) for one in scan.conditions]) for scan in found])
        if limit is not None:
            limits[name] = limit
    return limits


def _stored_limit(  # noqa: PLR0913 - a comparison, and of what
    snapshot: TableSnapshot, column: Any, sign: str, constants: Sequence[Any], slack: int, *, may_change: bool
) -> Expr | None:
    name, values = column.to_variant().name(), [one.python_value() for one in constants]
    if name not in snapshot.split_times:
        return None
    kind = snapshot.schema.field(name).type
    if not all(isinstance(one, pa.Scalar) and one.is_valid and one.type == kind for one in values):
        return None
    ticks = [one.value * 10**6 // _TICKS_PER_SECOND[kind.unit] for one in values]
    stored, compared = pa.timestamp("us", kind.tz), col(quoted(name))
    bounds = []
    if sign not in {"<", "<="}:
        bounds.append(compared >= lit(_moved(min(ticks) - may_change * _DRIFT, stored)))
    if sign not in {">", ">="} and not may_change:
        bounds.append(compared <= lit(_moved(max(ticks) + 2 * slack, stored)))  # as in `_limit`
    return _both(bounds)


def _both(known: Sequence[_T | None]) -> _T | None:
    found = [one for one in known if one is not None]  # because an Expr equals everything it's compared with
    return functools.reduce(operator.and_, found) if found else None


def _either(known: Sequence[_T | None]) -> _T | None:
    found = [one for one in known if one is not None]
    return functools.reduce(operator.or_, found) if len(found) == len(known) else None


def _fold(condition: Expr, of_comparison: Callable[[Any, str, Sequence[Any], int], _T | None]) -> _T | None:
    """Return the result for a condition, combined from its comparisons of columns with constants.

    A truncated column's original value may be later by up to the given number of microseconds.
    """
    kind = condition.variant_name()
    if kind == "BinaryExpr":
        name, (left, right) = condition.rex_call_operator(), condition.rex_call_operands()
        if name in {"AND", "OR"}:
            terms = chain(condition, name)
            known = [_fold(one, of_comparison) for one in terms] if len(terms) <= _MAX_TERMS else [None]
            return (_both if name == "AND" else _either)(known)
        column, slack = _truncated(left)
        is_plain = name in _COMPARISONS and column.variant_name() == "Column" and right.variant_name() == "Literal"
        return of_comparison(column, name, [right], slack) if is_plain else None
    if kind == "InList" and not condition.to_variant().negated():
        column, *listed = condition.rex_call_operands()
        is_plain = column.variant_name() == "Column" and all(one.variant_name() == "Literal" for one in listed)
        return of_comparison(column, "IN", listed, 0) if is_plain and 0 < len(listed) <= _MAX_TERMS else None
    return None


def _limit(  # noqa: PLR0913 - a comparison, and of what
    schema: pa.Schema, column: Any, sign: str, constants: Sequence[Any], slack: int, *, may_change: bool
) -> Expr | None:
    """Return a leakproof condition that is true for all rows for which a comparison is true, or None."""
    name, values = column.to_variant().name(), [one.python_value() for one in constants]
    kind = schema.field(name).type if name in schema.names else None
    if not all(isinstance(one, pa.Scalar) and one.is_valid and one.type == kind for one in values):
        return None
    term = Term(leakproof.COLUMN, kind=leakproof.column_kind(kind))
    if not leakproof.is_leakproof(Term(sign, (term, *map(literal_term, constants)))):
        return None
    compared, value = col(quoted(name)), values[0]
    if sign == "IN":
        return None if may_change else f.in_list(compared, [Expr(one) for one in constants])
    if not slack and not may_change:
        return cast("Expr", _COMPARISONS[sign](compared, Expr(constants[0])))
    if not pa.types.is_timestamp(value.type):
        return None
    ticks = _TICKS_PER_SECOND[value.type.unit]
    bounds = []
    if sign in {">", ">=", "="}:
        moved = value.value - may_change * _DRIFT * ticks // 10**6
        bounds.append(compared >= lit(_moved(moved, value.type)))
    if sign in {"<", "<=", "="} and not may_change:
        # Twice, because a day may have 25 hours.
        bounds.append(compared <= lit(_moved(value.value + 2 * slack * ticks // 10**6, value.type)))
    return _both(bounds)


def _moved(ticks: int, kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(min(max(ticks, _INT64[0]), _INT64[1]), kind)


def _find_scans(plan: LogicalPlan, names: Iterable[str]) -> dict[str, list[_Scan]]:
    """Return the scans of tables that were found completely; scans inside expressions are not found."""
    found: dict[str, list[_Scan]] = {name: [] for name in names}
    _collect(plan, found, None, 0)
    text = plan.display_indent()
    return {name: scans for name, scans in found.items() if scans and len(scans) == text.count(f"TableScan: {name}")}


def _collect(plan: LogicalPlan, scans: dict[str, list[_Scan]], order: SortExpr | None, limit: int) -> None:
    """Add a plan's scans; with `limit`, only the first rows in an order are needed."""
    kind = plan.display().partition(":")[0]
    match kind:
        case "TableScan":
            node = plan.to_variant()
            if node.table_name() in scans:
                conditions = node.filters()
                is_counted = not conditions and node.projection() == []
                scans[node.table_name()].append(_Scan(conditions, None if conditions else order, limit, is_counted))
        case "Sort":
            node = plan.to_variant()
            fetch, first = node.get_fetch_val(), node.sort_exprs()[0]
            is_known = fetch is not None and first.expr().variant_name() == "Column"
            order, limit = (first, fetch) if is_known else (None, 0)
        case "Projection" if order is not None:
            # A column keeps its name here; expressions may rename others.
            if any(one.variant_name() != "Column" for one in plan.to_variant().projections()):
                order = None
        case "SubqueryAlias":
            pass
        case _:
            order = None
    for below in plan.inputs():
        _collect(below, scans, order, limit)


def _mask(  # noqa: PLR0913 - a comparison, and of what
    snapshot: TableSnapshot, column: Any, sign: str, constants: Sequence[Any], slack: int, *, may_change: bool
) -> Mask | None:
    """Return which files may have rows for which a comparison is true, or None if unknown."""
    name = column.to_variant().name()
    values = [one.python_value() for one in constants]
    sign = "=" if sign == "IN" else sign
    return _either([_compare(name, sign, one, snapshot, may_change=may_change, slack=slack) for one in values])


def _truncated(compared: Expr) -> tuple[Expr, int]:
    """Return a truncated column and its unit in microseconds; other expressions are returned unchanged."""
    if compared.variant_name() == "ScalarFunction" and compared.rex_call_operator() == "date_trunc":
        unit, column = compared.rex_call_operands()
        text = unit.python_value() if unit.variant_name() == "Literal" else None
        microseconds = _UNITS.get(text.as_py() if isinstance(text, pa.Scalar) else text)
        if microseconds is not None:
            return column, microseconds
    return compared, 0


def _compare(  # noqa: PLR0913 - a comparison, and of what
    name: str, sign: str, value: object, snapshot: TableSnapshot, *, may_change: bool, slack: int
) -> Mask | None:
    if not isinstance(value, pa.Scalar) or not value.is_valid or name not in snapshot.schema.names:
        return None
    kind = snapshot.schema.field(name).type
    # Dictionaries of a table with hidden rows are flattened.
    if value.type not in {kind, kind.value_type if pa.types.is_dictionary(kind) else kind}:
        return None
    if name in snapshot.partition_columns:
        return None if may_change or slack else _compare_partition(name, sign, value, snapshot)
    bounds = snapshot.bounds
    if bounds is None or bounds.schema.get_field_index(f"min.{name}") < 0:
        return None
    lower, upper = sign in {">", ">=", "="}, sign in {"<", "<=", "="}
    low = high = value.value if isinstance(value, pa.DictionaryScalar) else value
    if pa.types.is_timestamp(value.type):
        # Time bounds in nanoseconds are rounded, by less than `_CUT`.
        microseconds = value.value * 10**6 // _TICKS_PER_SECOND[value.type.unit]
        low, high = (_ticks(microseconds + shift) for shift in (-_CUT - _DRIFT * may_change, _CUT + slack))
        upper = upper and not may_change
    elif may_change:
        return None
    masks = []
    if lower:
        masks.append(
            _unless_false((pc.greater if sign == ">" else pc.greater_equal)(bounds.column(f"max.{name}"), low))
        )
    if upper:
        masks.append(_unless_false((pc.less if sign == "<" else pc.less_equal)(bounds.column(f"min.{name}"), high)))
    return _both(masks)


def _ticks(microseconds: int) -> pa.Scalar:
    return pa.scalar(min(max(microseconds, _INT64[0]), _INT64[1]), pa.int64())


def _unless_false(found: pa.ChunkedArray) -> Mask:
    return np.asarray(pc.fill_null(found, True))


def _first_rows(order: SortExpr, limit: int, snapshot: TableSnapshot) -> Mask | None:
    """Return which files may have one of the first `limit` rows in an order, or None if unknown.

    Files with complete bounds have a known number of rows up to a value; files that begin after that value are not
    needed.
    """
    name, bounds = order.expr().to_variant().name(), snapshot.bounds
    if bounds is None or bounds.schema.get_field_index(f"min.{name}") < 0:
        return None
    near, far, before = ("max", "min", pc.greater_equal) if not order.ascending() else ("min", "max", pc.less_equal)
    nearest, farthest = bounds.column(f"{near}.{name}"), bounds.column(f"{far}.{name}")
    # Nulls may come first, regardless of the bounds.
    is_plain = np.asarray(pc.fill_null(pc.equal(bounds.column(f"nulls.{name}"), 0), False))
    is_plain = is_plain & np.asarray(pc.and_(pc.is_valid(farthest), pc.is_valid(bounds.column("rows"))))
    direction = "ascending" if order.ascending() else "descending"
    places = np.asarray(pc.sort_indices(farthest, sort_keys=[("", direction)]))
    places = places[is_plain[places]]
    rows = np.cumsum(np.asarray(pc.fill_null(bounds.column("rows"), 0))[places])
    enough = int(np.searchsorted(rows, limit))
    if enough == len(rows):
        return None
    last = farthest[int(places[enough])]
    if pa.types.is_timestamp(snapshot.schema.field(name).type):
        last = _ticks(last.as_py() + (2 if order.ascending() else -2) * _CUT)
    mask: Mask = _unless_false(before(nearest, last)) | ~is_plain
    return mask


def _compare_partition(name: str, sign: str, value: pa.Scalar, snapshot: TableSnapshot) -> Mask | None:
    kind, compare = value.type, _COMPARISONS[sign]
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_date(kind)):
        return None

    def comparable(scalar: pa.Scalar) -> Any:
        if pa.types.is_date(kind):
            return scalar.value  # Python doesn't support all dates
        found = scalar.as_py()
        return found.encode() if isinstance(found, str) else found

    constant = comparable(value)
    texts = FileList.of(snapshot.files).partition(snapshot.partition_columns.index(name))
    meets = np.zeros(len(texts.dictionary) + 1, dtype=np.bool_)  # the last element is for files without a value
    for place in texts.indices.unique().drop_null().to_pylist():
        found = partition_value(texts.dictionary[place].as_py(), kind)
        meets[place] = found.is_valid and compare(comparable(found), constant)
    return cast("Mask", meets[texts.indices.fill_null(len(texts.dictionary)).to_numpy(zero_copy_only=False)])
