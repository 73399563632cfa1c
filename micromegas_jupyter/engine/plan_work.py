"""Foresees how large a statement's expressions become when DataFusion puts them into each other.

Where a filter, a join or an order names a column, the optimiser replaces the name by what the column is made of, step
by step down the plan. A chain of steps that each double a column (`SELECT x + x AS x FROM …`) then doubles the work
with every step, and 24 steps in 800 bytes plan for minutes. This adds the sizes up on the plan as it was written, where
each name still stands for itself, in time that is linear in that plan. What is too much is `plan_checks`' answer.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from micromegas_jupyter.engine.errors import is_engine_failure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from datafusion.plan import LogicalPlan

#: Stops the addition; far above every limit.
_MOST: Final = 1 << 40
#: A copy of a subquery becomes a join, which costs as much as this many operators.
_SUBQUERY_SIZE: Final = 200
#: How often the optimiser repeats an operand when it writes a call in simpler terms: `coalesce(x, y)` becomes CASE WHEN
#: x IS NOT NULL THEN x ELSE y, `x BETWEEN a AND b` two comparisons, and a short list of IN one comparison for each.
_REPEATS_IN_CALLS: Final = {"coalesce": 3, "nvl": 3, "ifnull": 3, "nvl2": 3, "array_has": 3}
_LONGEST_WRITTEN_LIST: Final = 4
_UNKNOWN_CALL: Final = "?"
_PASSING: Final = frozenset({"SubqueryAlias", "Filter", "Sort", "Limit", "Distinct", "Subquery", "Join"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanWork:
    """What a plan asks of the optimiser.

    Attributes:
        steps: The plan's nodes.
        size: Columns, constants and operators in what is filtered, joined, grouped or ordered by, and in columns that
            call functions, with every name replaced by what it stands for.
        visited: The expressions that were looked at: the plan as it was written.
        functions: Names of the scalar functions that it calls; `?` for a call that DataFusion-Python does not name.
        has_subqueries: Whether expressions hold subqueries, whose plans DataFusion-Python does not show.
    """

    steps: int
    size: int
    visited: int
    functions: frozenset[str]
    has_subqueries: bool


def plan_work(plan: LogicalPlan) -> PlanWork:
    """Return what `plan`, which was not optimised, asks of the optimiser."""
    addition = _Addition()
    addition.add(plan)
    return PlanWork(
        steps=addition.steps,
        size=addition.size,
        visited=addition.visited,
        functions=frozenset(addition.functions),
        has_subqueries=addition.has_subqueries,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """How large the columns of a step's result are, by name; a column that is not listed is as large as `other`."""

    sizes: Mapping[str, int] = field(default_factory=dict)
    other: int = 1

    def size(self, name: str) -> int:
        return self.sizes.get(name, self.other)

    @property
    def largest(self) -> int:
        return max(self.other, *self.sizes.values(), 1)


def _either(left: _Columns, right: _Columns) -> _Columns:
    """Return the columns of both; of two with one name, the larger one."""
    if left == _Columns():
        return right
    if right == _Columns():
        return left
    names = left.sizes.keys() | right.sizes.keys()
    sizes = {name: max(left.size(name), right.size(name)) for name in names}
    return _Columns(sizes=sizes, other=max(left.other, right.other))


class _Addition:
    """Adds one plan up."""

    def __init__(self) -> None:
        self.steps = 0
        self.size = 0
        self.visited = 0
        self.functions: set[str] = set()
        self.has_subqueries = False

    def add(self, root: Any) -> None:
        """Add `root` and all below it."""
        # Without recursion, since a plan may be deeper than Python's stack.
        results: list[_Columns] = []
        waiting: list[tuple[Any, int | None]] = [(root, None)]
        while waiting:
            node, inputs = waiting.pop()
            if inputs is None:
                below = node.inputs()
                waiting.append((node, len(below)))
                waiting.extend((one, None) for one in reversed(below))
                continue
            start = len(results) - inputs
            found = results[start:]
            del results[start:]
            results.append(self._add_node(node, found))

    def _add_node(self, node: Any, inputs: list[_Columns]) -> _Columns:
        self.steps += 1
        variant = variant_of(node)
        kind = type(variant).__name__
        scope = functools.reduce(_either, inputs, _Columns())
        match kind:
            case "Projection":
                return self._project(variant.projections(), scope)
            case "Aggregate":
                made = [*variant.group_by_exprs(), *variant.aggregate_exprs()]
                sizes = {_name(one): self._count(one, scope) for one in made}
                return _Columns(sizes=sizes, other=max(sizes.values(), default=1))
            case "Union":
                # A filter goes into every branch. Columns meet by position, which the plan does not tell.
                return _Columns(other=min(_MOST, sum(one.largest for one in inputs)))
        for one in _conditions_of(variant):
            self._count(one, scope)
        return scope if kind in _PASSING else _Columns(sizes=scope.sizes, other=scope.largest)

    def _project(self, expressions: list[Any], scope: _Columns) -> _Columns:
        sizes: dict[str, int] = {}
        for one in expressions:
            size, calls = self._measure(one, scope)
            # Operators and CASE stay where they are; a function may make a type that grows with its arguments.
            if calls:
                self._spend(size)
            sizes[_name(one)] = size
        return _Columns(sizes=sizes)

    def _count(self, expression: Any, scope: _Columns) -> int:
        size, _ = self._measure(expression, scope)
        self._spend(size)
        return size

    def _spend(self, size: int) -> None:
        self.size = min(_MOST, self.size + size)

    def _measure(self, expression: Any, scope: _Columns) -> tuple[int, bool]:
        """Return the size of an expression with its names replaced, and whether it calls a function."""
        size = 0
        calls = False
        waiting = [(expression, 1)]
        while waiting and size < _MOST:
            one, times = waiting.pop()
            self.visited += 1
            variant = variant_of(one)
            kind = type(variant).__name__
            size += times if kind != "Alias" else 0
            if kind == "Column":
                size += times * (scope.size(variant.name()) - 1)
            elif kind in {"ScalarSubquery", "Exists", "InSubquery"}:
                self.has_subqueries = True
                size += times * (_SUBQUERY_SIZE + scope.largest)
                waiting.extend((operand, times) for operand in ([variant.expr()] if kind == "InSubquery" else []))
            elif kind not in {"Literal", "Placeholder"}:
                call = _call_name(one) if kind in {"NoneType", "HigherOrderFunction"} else None
                if call is not None:
                    calls = True
                    self.functions.add(call)
                operands = _operands(one)
                if operands is None:
                    size += times * scope.largest
                else:
                    waiting.extend(_repeated(kind, call, operands, times))
        return min(_MOST, size), calls


def _conditions_of(variant: Any) -> list[Any]:
    """Return what a node filters, joins or sorts by."""
    match type(variant).__name__:
        case "Filter":
            return [variant.predicate()]
        case "Sort":
            return [key.expr() for key in variant.sort_exprs()]
        case "Join":
            condition = variant.filter()
            return [side for pair in variant.on() for side in pair] + ([] if condition is None else [condition])
        case _:
            return []


def _repeated(kind: str, call: str | None, operands: list[Any], times: int) -> list[tuple[Any, int]]:
    """Return each operand of an expression that stands `times` times, and how often the optimiser will have it."""
    first, rest = 1, 1
    if kind == "Between":
        first = 2
    elif kind == "InList":
        first = min(max(1, len(operands) - 1), _LONGEST_WRITTEN_LIST)
    elif kind == "Case":
        first = rest = 2  # CASE of truth values becomes AND and OR, with each condition twice
    elif call is not None:
        first = rest = _REPEATS_IN_CALLS.get(call, 1)
    return [(operand, times * (rest if index else first)) for index, operand in enumerate(operands)]


def _call_name(expression: Any) -> str:
    try:
        return str(expression.rex_call_operator())
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        return _UNKNOWN_CALL


def variant_of(item: Any) -> Any:
    """Return DataFusion-Python's object for a node or an expression; None where it has no class for its kind."""
    try:
        return item.to_variant()
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        return None


def _operands(expression: Any) -> list[Any] | None:
    """Return the expressions in one; None when they are not shown."""
    try:
        return list(expression.rex_call_operands())
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        return None


def _name(expression: Any) -> str:
    """Return the name of the column that an expression makes."""
    variant = variant_of(expression)
    match type(variant).__name__:
        case "Alias":
            return str(variant.alias())
        case "Column":
            return str(variant.name())
        case _:
            return str(expression.schema_name())
