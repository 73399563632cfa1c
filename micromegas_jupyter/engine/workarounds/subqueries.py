"""Rewrites IN (SELECT …) and EXISTS if DataFusion 55.2 cannot plan them or doesn't return NULL where it should.

**IN (SELECT …)** is false instead of NULL below OR, NOT, and in values, so `x NOT IN (SELECT …) OR …` lets NULL pass;
NOT IN with a correlated subquery fails or returns no rows. Such an IN becomes EXISTS, or, in a value, two of them in a
CASE.

**In ON**, an EXISTS or IN cannot be planned if it depends on columns of both sides, of the preserved side of an outer
join, or in a FULL JOIN. In an inner join, it moves to WHERE if no later join can replace its rows with NULL. Otherwise,
it becomes a column of the only table that it depends on: each row of that table is duplicated, with true and with
false, and WHERE keeps the one that equals the subquery.

**EXISTS of an aggregate without GROUP BY** always finds a row, but is planned as if there were groups.

DataFusion-Python can't change plans with such subqueries, so the SQL is parsed and regenerated. This is done only for
statements with one of these defects, and only if the statement that is regenerated without changes has the same plan as
the original. All others of this kind are rejected.
"""

import re
from collections.abc import Callable
from typing import Final

from datafusion import DataFrame
from datafusion.plan import LogicalPlan

from micromegas_jupyter.engine.errors import is_engine_failure
from micromegas_jupyter.engine.workarounds.plan_messages import Step, find_steps
from micromegas_jupyter.errors import UnsupportedStatement

_ANY: Final = re.compile(r"(?:IN|EXISTS) \(<subquery>\)")
_DEFECT: Final = re.compile(
    r"\A(?:\w+ )+Join:.*(?:IN|EXISTS) \(<subquery>\)|"
    # without NULL
    r" OR .*NOT IN \(<subquery>\)|NOT IN \(<subquery>\).* OR |"
    r"(?<!IS )\bNOT (?!IN \(|EXISTS \(|NULL).* IN \(<subquery>\)|CASE .*IN \(<subquery>\)|"
    r" (?:=|!=|<|>|<=|>=|FROM) \S+ (?:NOT )?IN \(<subquery>\)|IN \(<subquery>\) (?:=|!=|<|>|IS )",
    re.DOTALL,
)
_NOT_IN: Final = "NOT IN (<subquery>)"
_EXISTS: Final = "EXISTS (<subquery>)"
_OUTER: Final = "outer_ref("
_SINGLE_AGGREGATE: Final = re.compile(
    r"Subquery:\n(?: *(?:Distinct|Sort):.*\n)* *Projection: .*\n *Aggregate: groupBy=\[\[\]\]"
)

#: Plans a statement.
Plan = Callable[[str], DataFrame]


def needs_rewrite(plan: LogicalPlan, text: str) -> bool:
    """Return whether an unoptimized plan, with its `text`, may have one of these defects."""
    if not _ANY.search(text):
        return False
    is_aggregated = _OUTER in text and _SINGLE_AGGREGATE.search(text) and _EXISTS in text
    return bool(is_aggregated) or _has_defect(plan)


def _has_defect(plan: LogicalPlan) -> bool:
    return any(
        _DEFECT.search(step.text) or (_NOT_IN in step.text and _has_correlated(step)) for step in find_steps(plan)
    )


def _has_correlated(step: Step) -> bool:
    """Return whether one of a step's own subqueries may depend on outer columns."""
    subqueries = (one for one in step.below if one.text == "Subquery:")
    return any(_OUTER in below.text for one in subqueries for below in one.walk())


def rewrite_subqueries(sql: str, frame: DataFrame, plan: Plan) -> str:
    """Return a statement that is equivalent to `sql`; `frame` is the plan of `sql`."""
    from micromegas_jupyter.engine.workarounds import subquery_syntax  # takes a third of a second

    text = str(frame.logical_plan().display_indent())
    try:
        tree = subquery_syntax.parsed(sql)
        as_parsed = subquery_syntax.written(tree) if tree is not None else ""
        same = _planned(plan, as_parsed)
        if tree is not None and same is not None and str(same.logical_plan().display_indent()) == text:
            changed = subquery_syntax.rewritten(tree, lambda trial: _planned(plan, trial) is not None)
            if changed == as_parsed:
                return sql
            found = _planned(plan, changed) if changed is not None else None
            if changed is not None and found is not None and found.schema().names == frame.schema().names:
                return changed
            raise _unsupported()
    except RecursionError:
        pass  # nested too deeply for the parser
    if _has_defect(frame.logical_plan()):
        raise _unsupported()
    return sql


def _unsupported() -> UnsupportedStatement:
    return UnsupportedStatement(
        "The engine cannot evaluate EXISTS or IN (SELECT …) here.",
        remedy="Move it to WHERE, replace NOT IN (SELECT …) with NOT EXISTS (…), and qualify names with table aliases.",
    )


def _planned(plan: Plan, sql: str) -> DataFrame | None:
    try:
        return plan(sql)
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        return None
