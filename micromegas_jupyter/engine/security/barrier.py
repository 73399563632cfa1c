"""The security barrier: what a caller wrote is never evaluated on rows that the caller must not see.

A predicate that fails on a value (a cast, a division) reveals something of the row it was evaluated on, and DataFusion
moves predicates and expressions as far down as it can. No single node of DataFusion stops all of them:

- a LIMIT stops filters while the logical plan is optimised, but becomes a property of the filter below it in the
  physical plan, and `SELECT shown, CAST(secret AS INT) + x` is then computed below that filter;
- UNNEST of a list with one element keeps its place in the physical plan, where neither expressions nor filters that
  are made while the query runs pass it, but in the logical plan filters do.

Both together stop everything. Statements that cannot fail on any value need none of this (`is_leakproof`): those of
plain columns, constants, comparisons, LIKE with a constant, and the common aggregates of these. The optimized plan is
examined, since type coercion adds casts.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
from datafusion import col, lit
from datafusion import functions as f

from micromegas_jupyter.engine.scanner import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from collections.abc import Set as AbstractSet

    from datafusion import DataFrame, SessionContext

_log = logging.getLogger(__name__)

_ALL_ROWS: Final = (1 << 63) - 1
_SAMPLE: Final = {"shown": [True, False], "text": ["1", "hidden"], "number": [1, 0]}
_REVEALING: Final = (
    "SELECT shown, CAST(text AS INT) + number FROM sample",
    "SELECT shown FROM sample WHERE CAST(text AS INT) = 1",
    "SELECT shown FROM sample WHERE 1 / number = 1 ORDER BY CAST(text AS INT) LIMIT 1",
    "SELECT a.shown FROM sample a JOIN sample b ON CAST(a.text AS INT) = 1 / b.number",
)
_MAX_VISITED: Final = 5000
_OPERATORS: Final = frozenset(
    {"=", "!=", "<", "<=", ">", ">=", "AND", "OR", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"}
)
_AGGREGATES: Final = frozenset({"count", "min", "max", "sum", "avg"})
_SINGLE: Final = {"Alias", "Not", "IsNull", "IsNotNull", "IsTrue", "IsFalse", "IsUnknown", "IsNotTrue", "IsNotFalse",
                  "IsNotUnknown"}  # fmt: skip


def behind_barrier(rows: DataFrame) -> DataFrame:
    """Return `rows` so that nothing on top of them is evaluated on other rows."""
    names = rows.schema().names
    extra = "barrier"
    while extra in names:
        extra += "_"
    unnested = rows.with_column(extra, f.make_array(lit(True))).unnest_columns(extra)
    return unnested.select(*(col(quoted(name)) for name in names)).limit(_ALL_ROWS)


def barrier_holds(context: SessionContext, barrier: Callable[[DataFrame], DataFrame] = behind_barrier) -> bool:
    """Return whether statements that fail on a hidden row of a sample do not, behind `barrier`."""
    rows = context.read_batch(pa.record_batch(_SAMPLE)).filter(col("shown"))
    context.register_table("sample", barrier(rows).into_view())
    try:
        for sql in _REVEALING:
            context.sql(sql).collect()
    except Exception:  # noqa: BLE001 - DataFusion has no class for it
        _log.error("the security barrier failed its self-test")
        return False
    return True


def is_leakproof(frame: DataFrame, *, nested_columns: AbstractSet[str]) -> bool:
    """Return whether no value of any row can make the statement, planned without the barrier, fail.

    Comparisons of `nested_columns` are not known to be leakproof.
    """
    try:
        return _are_leakproof_nodes(frame.optimized_logical_plan(), nested_columns)
    except Exception:  # noqa: BLE001
        return False  # a part that DataFusion-Python has no class for, or a plan that fails when it is run


def _are_leakproof_nodes(root: Any, nested_columns: AbstractSet[str]) -> bool:
    nodes: list[Any] = [root]
    expressions: list[Any] = []
    for _ in range(_MAX_VISITED):
        if expressions:
            operands = _operands(expressions.pop(), nested_columns)
            if operands is None:
                return False
            expressions.extend(operands)
        elif nodes:
            node = nodes.pop()
            variant = node.to_variant()
            expressions_of = _EXPRESSIONS.get(type(variant).__name__)
            if expressions_of is None:
                return False
            nodes.extend(node.inputs())
            expressions.extend(expressions_of(variant))
        else:
            return True
    return False


def _join_expressions(join: Any) -> list[Any]:
    condition = join.filter()
    return [side for pair in join.on() for side in pair] + ([] if condition is None else [condition])


# All expressions of a node, by its kind; kinds that are not here are not known to be leakproof.
_EXPRESSIONS: Final[Mapping[str, Callable[[Any], list[Any]]]] = {
    "Projection": lambda node: list(node.projections()),
    "Filter": lambda node: [node.predicate()],
    "TableScan": lambda node: list(node.filters()),
    "Aggregate": lambda node: [*node.group_by_exprs(), *node.aggregate_exprs()],
    "Sort": lambda node: [sort.expr() for sort in node.sort_exprs()],
    "Join": _join_expressions,
    "SubqueryAlias": lambda _: [],
    "Union": lambda _: [],
    "EmptyRelation": lambda _: [],
    "Limit": lambda _: [],
}


def _operands(expression: Any, nested_columns: AbstractSet[str]) -> list[Any] | None:  # noqa: PLR0911 - one per kind
    """Return the expressions in a leakproof one; None for any other."""
    found = expression.to_variant()
    match type(found).__name__:
        case "Literal":
            return []
        case "Column":
            return None if found.name() in nested_columns else []
        case "BinaryExpr":
            return [found.left(), found.right()] if found.op() in _OPERATORS else None
        case "Between":
            return [found.expr(), found.low(), found.high()]
        case "InList":
            return [found.expr(), *found.list()]
        case "Like":
            return [found.expr()] if type(found.pattern().to_variant()).__name__ == "Literal" else None
        case "AggregateFunction":
            return list(found.args()) if _is_plain_aggregate(expression, found) else None
        case kind:
            return [found.expr()] if kind in _SINGLE else None


def _is_plain_aggregate(expression: Any, found: Any) -> bool:
    """Return whether an aggregate is a known one without FILTER and ORDER BY, which are seen in its text only."""
    name = found.aggregate_type()
    text = expression.canonical_name()
    return name in _AGGREGATES and text.startswith(f"{name}(") and " FILTER (" not in text and " ORDER BY " not in text
