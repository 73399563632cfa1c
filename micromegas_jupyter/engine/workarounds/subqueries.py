"""Rewrites statements whose IN (SELECT …) and EXISTS DataFusion 55.2 cannot plan, or evaluates without NULL.

**IN (SELECT …)** is false in place of NULL below OR, NOT and in values, so `x NOT IN (SELECT …) OR …` lets NULL pass;
NOT IN with a correlated subquery fails or returns no rows. Such an IN becomes EXISTS, in a value two of them in a CASE.

**In ON**, an EXISTS or IN cannot be planned where it depends on columns of both sides, of the preserved side of an
outer join, or in a FULL JOIN. Of an inner join it moves to WHERE if no later join can replace its rows by NULL.
Otherwise it becomes a column of the only table that it depends on: each row of that table is taken twice, with true and
with false, and WHERE keeps the one that equals the subquery.

**EXISTS of an aggregate without GROUP BY** always finds a row, but is planned as if there were groups.

Such subqueries are in no plan that DataFusion-Python could change, so the text is parsed and written anew. This is done
only for statements that have one of these defects, and only if the statement as parsed and written without a change has
the same plan as the original. All others of this kind are rejected.
"""

import re
from collections.abc import Callable
from typing import Final

from datafusion import DataFrame

from micromegas_jupyter.engine.errors import is_engine_failure
from micromegas_jupyter.errors import UnsupportedStatement

_ANY: Final = re.compile(r"(?:IN|EXISTS) \(<subquery>\)")
_IN_JOIN: Final = re.compile(r"^ *(?:\w+ )+Join:.*(?:IN|EXISTS) \(<subquery>\)", re.MULTILINE)
_WITH_NULL: Final = re.compile(
    r"^.*(?: OR .*NOT IN \(<subquery>\)|NOT IN \(<subquery>\).* OR |"
    r"(?<!IS )\bNOT (?!IN \(|EXISTS \(|NULL).* IN \(<subquery>\)|IN \(<subquery>\) IS |CASE .*IN \(<subquery>\)|"
    r" (?:=|!=|<|>|<=|>=|FROM) \S+ (?:NOT )?IN \(<subquery>\)|IN \(<subquery>\) (?:=|!=|<|>|IS )).*$",
    re.MULTILINE,
)
_NOT_IN: Final = re.compile(r"NOT IN \(<subquery>\)")
_OUTER: Final = "outer_ref("
_SINGLE_AGGREGATE: Final = re.compile(r"Subquery:\n *Projection: .*\n *Aggregate: groupBy=\[\[\]\]")
#: Plans a statement.
Plan = Callable[[str], DataFrame]


def needs_rewrite(plan_text: str) -> bool:
    """Return whether an unoptimized plan, one step a line, may have one of these defects."""
    if not _ANY.search(plan_text):
        return False
    return (
        _IN_JOIN.search(plan_text) is not None
        or _WITH_NULL.search(plan_text) is not None
        or (_OUTER in plan_text and (_NOT_IN.search(plan_text) or _SINGLE_AGGREGATE.search(plan_text)) is not None)
    )


def rewrite_subqueries(sql: str, frame: DataFrame, plan: Plan) -> str:
    """Return a statement with the rows of `sql`, which `plan` makes `frame` of."""
    from micromegas_jupyter.engine.workarounds import subquery_syntax  # takes a third of a second

    tree = subquery_syntax.parsed(sql)
    as_parsed = _planned(plan, subquery_syntax.written(tree)) if tree is not None else None
    if tree is None or as_parsed is None or _text(as_parsed) != _text(frame):
        raise _unsupported()
    changed = subquery_syntax.rewritten(tree, lambda text: _planned(plan, text) is not None)
    found = _planned(plan, changed) if changed is not None else None
    if changed is None or found is None or found.schema().names != frame.schema().names:
        raise _unsupported()
    return changed


def _planned(plan: Plan, sql: str) -> DataFrame | None:
    try:
        return plan(sql)
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        return None


def _text(frame: DataFrame) -> str:
    return str(frame.logical_plan().display_indent())


def _unsupported() -> UnsupportedStatement:
    return UnsupportedStatement(
        "The engine cannot evaluate EXISTS or IN (SELECT …) in this place.",
        remedy="Write it in WHERE, NOT IN (SELECT …) as NOT EXISTS (…), and names with their table's alias in front.",
    )
