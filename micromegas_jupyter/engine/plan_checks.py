"""Looks at a logical plan before it runs: what it reads, how large it became, and the types of its placeholders.

That a plan does not write is held by the options it was made with (`sessions.READ_ONLY`).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from micromegas_jupyter.engine.guard import Limits
from micromegas_jupyter.engine.plan_work import plan_work
from micromegas_jupyter.engine.select_growth import makes_types, select_growth
from micromegas_jupyter.errors import StatementRefused

if TYPE_CHECKING:
    from datafusion.plan import LogicalPlan

    from micromegas_jupyter.engine.placeholders import Placeholders
    from micromegas_jupyter.engine.plan_work import PlanWork
    from micromegas_jupyter.engine.scanner import Scan

#: How large expressions may become: up to here every shape that was tried plans in 0.7 s, behind the barrier in 1.7 s.
LARGEST_EXPRESSIONS: Final = 32768
_PLAN_NODES: Final = 2000
# A literal with a line break could look like a line of its own: then a statement is refused that need not be, never the
# other way round. Lookups in information_schema ignore case.
_SETTINGS = re.compile(r"^ *TableScan: .*df_settings", re.MULTILINE | re.IGNORECASE)
_JOIN = re.compile(r"^ *(?:\w+ )+Join:", re.MULTILINE)
_EXPLAIN = re.compile(r"(?:Explain|Analyze)\b")
_CHILDREN: Final = ("left", "right", "expr", "low", "high", "pattern", "list")
_MOST_VISITED: Final = 2000


def check_plan(plan: LogicalPlan) -> str:
    """Check what only the plan shows; return it as text, one step a line.

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
    return text


def check_work(plan: LogicalPlan, scanned: Scan) -> PlanWork:
    """Check that a plan which was not optimised does not become too large when it is; return what it asks for.

    Args:
        plan: The plan.
        scanned: The statement it was made of.

    Raises:
        StatementRefused: Its expressions repeat each other too often.
    """
    work = plan_work(plan)
    if work.has_subqueries:
        work = replace(work, size=work.size + select_growth(scanned))
    _check_size(work.size)
    return work


def check_types(scanned: Scan) -> None:
    """Check that a statement's types cannot grow from step to step, which planning alone would not survive.

    Raises:
        StatementRefused: It makes types of others, and repeats its own expressions too often.
    """
    if makes_types(scanned):
        _check_size(select_growth(scanned))


def _check_size(size: int) -> None:
    if size > LARGEST_EXPRESSIONS:
        raise StatementRefused(
            "The statement repeats its own expressions too often: where a step names a column several times that is "
            "computed in the step before, the work doubles with each step.",
            remedy="Name a computed column less often, or filter, join and order before it is computed.",
        )


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


def parameter_schema(placeholders: Placeholders, parameters: pa.RecordBatch | None, plan: LogicalPlan) -> pa.Schema:
    """Return the types of the values sent, else those that the plan inferred, else null."""
    if not placeholders.columns:
        return pa.schema([])
    if parameters is not None:
        return pa.schema([pa.field(name, parameters.schema.field(name).type) for name in placeholders.columns])
    types = placeholder_types(plan)
    return pa.schema(
        [
            pa.field(column, types.get(written, pa.null()))
            for column, written in zip(placeholders.columns, placeholders.bound_names, strict=True)
        ]
    )


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
