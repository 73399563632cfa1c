"""Tells which statements cannot fail on any value, so that the order in which they look at rows tells nothing.

Only what is known to be leakproof counts: plain columns, constants, comparisons, LIKE with a constant, and the common
aggregates of such. A statement needs the barrier when any other part is in its plan, or one that DataFusion-Python does
not show. The optimized plan is examined, since type coercion adds casts to the plan as it was written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from micromegas_jupyter.engine.errors import is_engine_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from collections.abc import Set as AbstractSet

    from datafusion import DataFrame

_MAX_VISITED: Final = 5000
_OPERATORS: Final = frozenset(
    {"=", "!=", "<", "<=", ">", ">=", "AND", "OR", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"}
)
_AGGREGATES: Final = frozenset({"count", "min", "max", "sum", "avg"})
_SINGLE: Final = frozenset(
    {
        "Alias", "Not", "IsNull", "IsNotNull", "IsTrue", "IsFalse", "IsUnknown", "IsNotTrue", "IsNotFalse",
        "IsNotUnknown",
    }
)  # fmt: skip


def is_leakproof(frame: DataFrame, *, nested_columns: AbstractSet[str]) -> bool:
    """Return whether no value of any row can make the statement fail.

    Args:
        frame: The statement, planned without the barrier.
        nested_columns: Names of columns with a nested type, for which comparisons are not known to be leakproof.
    """
    try:
        return _are_leakproof_nodes(frame.optimized_logical_plan(), nested_columns)
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        return False  # a part that DataFusion-Python has no class for, or a plan that fails when it is run


def _are_leakproof_nodes(root: Any, nested_columns: AbstractSet[str]) -> bool:
    nodes: list[Any] = [root]
    expressions: list[Any] = []
    for _ in range(_MAX_VISITED):
        if expressions:
            parts = _parts(expressions.pop(), nested_columns)
            if parts is None:
                return False
            expressions.extend(parts)
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


def _parts(expression: Any, nested_columns: AbstractSet[str]) -> list[Any] | None:  # noqa: PLR0911 - one per kind
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
