"""Looks at a logical plan before it runs: what it reads, how large it became, and the types of its placeholders.

That a plan does not write is held by the options it was made with (`sessions.READ_ONLY`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from micromegas_jupyter.engine.guard import Limits
from micromegas_jupyter.errors import StatementRefused

if TYPE_CHECKING:
    from datafusion.plan import LogicalPlan

_PLAN_NODES: Final = 2000
# A literal with a line break could look like a line of its own: then a statement is refused that need not be, never the
# other way round. Lookups in information_schema ignore case.
_SETTINGS = re.compile(r"^ *TableScan: .*df_settings", re.MULTILINE | re.IGNORECASE)
_JOIN = re.compile(r"^ *(?:\w+ )+Join:", re.MULTILINE)
_EXPLAIN = re.compile(r"(?:Explain|Analyze)\b")
_CHILDREN: Final = ("left", "right", "expr", "low", "high", "pattern", "list")
_MOST_VISITED: Final = 2000


def check_plan(plan: LogicalPlan) -> None:
    """Check what only the plan shows.

    Raises:
        StatementRefused: It reads the engine's settings, which name folders, or it joins or nests too much.
    """
    text = plan.display_indent()
    if _SETTINGS.search(text):
        raise StatementRefused("The settings of the engine are not shown.", remedy="SHOW TABLES and SHOW COLUMNS work.")
    if len(_JOIN.findall(text)) > Limits.JOINS:
        raise StatementRefused(f"The statement has more joins than the {Limits.JOINS} that this server takes.")
    if text.count("\n") > _PLAN_NODES:
        raise StatementRefused(f"The statement's plan has more steps than the {_PLAN_NODES} that this server takes.")


def is_explain(plan: LogicalPlan) -> bool:
    """Return whether the plan's result is a description of a plan, which may show paths."""
    return _EXPLAIN.match(plan.display()) is not None


def placeholder_types(plan: LogicalPlan) -> dict[str, pa.DataType]:
    """Return the types of placeholders (by name, without `$`) that the plan inferred; those it hides are left out."""
    found: dict[str, pa.DataType] = {}
    nodes = [plan]
    expressions: list[Any] = []
    for _ in range(_MOST_VISITED):
        if expressions:
            _visit(expressions.pop(), expressions, found)
        elif nodes:
            node = nodes.pop()
            nodes.extend(node.inputs())
            expressions.extend(_expressions_of(node))
        else:
            break
    return found


def _expressions_of(node: LogicalPlan) -> list[Any]:
    """Return the expressions of a node, of the kinds for which DataFusion-Python shows them."""
    variant = _variant(node)
    match type(variant).__name__:
        case "Filter":
            return [variant.predicate()]
        case "Projection":
            return list(variant.projections())
        case _:
            return []


def _visit(expression: Any, waiting: list[Any], found: dict[str, pa.DataType]) -> None:
    variant = _variant(expression)
    if type(variant).__name__ == "Placeholder":
        field = variant.field()
        if isinstance(field, pa.Field):
            found[variant.id().removeprefix("$")] = field.type
        return
    for name in _CHILDREN:
        child = getattr(variant, name, None)
        value = child() if callable(child) else None
        waiting.extend(value if isinstance(value, list) else [] if value is None else [value])


def _variant(item: Any) -> Any:
    try:
        return item.to_variant()
    except Exception:  # noqa: BLE001 - DataFusion-Python has no class for this kind: an untyped error says so
        return None
