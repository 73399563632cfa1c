"""Looks at what would run for a statement with joins, for two faults of DataFusion 55.2 that give wrong rows.

A join that compares each row with each other row (`NestedLoopJoinExec`) reads its left side anew when that does not fit
into memory and there is room on disk. But a scan gives each of its files once, and a join below it all its rows: what
was read before is missing or counted twice, and nothing says so. Without room on disk it ends for want of memory.

A condition above a join is handed down by the name of its column, not by its place: where both sides have a column of
that name, it may reach the other one, and rows are lost. What may go down has gone down before, when the logical plan
was made better, and by tables' names. So where fewer conditions are above joins in what would run than in that plan,
one has gone astray, or is handed down for no good. Random statements that were compared with SQLite bear that out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

import pyarrow as pa

from micromegas_jupyter.engine.errors import is_engine_failure
from micromegas_jupyter.engine.scanner import Kind, scan
from micromegas_jupyter.engine.sessions import READ_ONLY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from datafusion import SessionContext

# A literal with a line break could look like a line of its own; then a statement is looked at that need not be.
_JOINING: Final = re.compile(r"^ *(?:(?:\w+ )+Join:|Subquery:)", re.MULTILINE)
_SYNTAX: Final = re.compile(r"[()]|\b(?:AND|OR|CASE|END)\b")
_DEEPER: Final = {"(": 1, "CASE": 1, ")": -1, "END": -1}
# What such words and signs in a text would be taken for.
_WORDS: Final = re.compile(r"\b(?:AND|OR|CASE|END)\b")
_SIGNS: Final = re.compile(r"[()\r\n]")
_SUBQUERY: Final = "Subquery:"
_NESTED_LOOPS: Final = "NestedLoopJoinExec"


class _Words(NamedTuple):
    """How the steps are written in a plan, one a line, with what they read below and further in."""

    join: re.Pattern[str]
    condition: re.Pattern[str]


_LOGICAL: Final = _Words(re.compile(r"(?:\w+ )+Join:"), re.compile(r"Filter: (.*)"))
_PHYSICAL: Final = _Words(
    re.compile(r"\w*JoinExec\b"), re.compile(r"FilterExec: (.*?)(?:, projection=\[[^\]]*\])?(?:, fetch=\d+)?$")
)


class JoinsLook(NamedTuple):
    """What would run, as far as joins are concerned."""

    nests_loops: bool
    has_stray_conditions: bool


def may_join(plan_text: str) -> bool:
    """Return whether a plan, which was not optimised, one step a line, may have a join or become one."""
    return _JOINING.search(plan_text) is not None


def look_at_joins(session: SessionContext, sql: str, values: Mapping[str, pa.Scalar]) -> JoinsLook:
    """Plan a statement to the end and return what there is about its joins; one that cannot run has nothing.

    The plan is described by DataFusion itself, so that the interpreter's lock is free meanwhile.

    Args:
        session: The session that would run it.
        sql: The statement; no EXPLAIN.
        values: Values of its placeholders.
    """
    try:
        plans = _described(session, _plain(sql), {name: _plain_value(value) for name, value in values.items()})
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        plans = _described(session, sql, values)  # a text of it was more than a text
    logical, physical = plans.get("logical_plan", ""), plans.get("physical_plan")
    if physical is None:
        return JoinsLook(nests_loops=False, has_stray_conditions=False)
    return JoinsLook(
        nests_loops=_NESTED_LOOPS in physical, has_stray_conditions=has_stray_conditions(logical, physical)
    )


def _described(session: SessionContext, sql: str, values: Mapping[str, pa.Scalar]) -> dict[str, str]:
    described = session.sql_with_options(f"EXPLAIN {sql}", READ_ONLY, param_values=dict(values)).collect()
    return {row["plan_type"]: row["plan"] for batch in described for row in batch.to_pylist()}


def _plain(sql: str) -> str:
    """Return a statement without what could be taken for syntax in its texts, since plans show them without quotes."""
    parts, place = [], 0
    for token in scan(sql).tokens:
        if token.kind is Kind.STRING:
            parts += [sql[place : token.start], _plain_text(token.text)]
            place = token.start + len(token.text)
    return "".join([*parts, sql[place:]])


def _plain_value(value: pa.Scalar) -> pa.Scalar:
    is_text = pa.types.is_string(value.type) or pa.types.is_large_string(value.type)
    return pa.scalar(_plain_text(value.as_py()), value.type) if is_text and value.is_valid else value


def _plain_text(text: str) -> str:
    return _WORDS.sub(lambda found: found[0].lower(), _SIGNS.sub("-", text))


def has_stray_conditions(logical: str, physical: str) -> bool:
    """Return whether a condition above a join in the optimised plan is not above one in what would run.

    Also where that cannot be told.
    """
    try:
        return _conditions_above_joins(logical, _LOGICAL) != _conditions_above_joins(physical, _PHYSICAL)
    except _UnclearError:
        return True


class _UnclearError(Exception):
    """A condition's brackets do not match, so that there is a text in it which was made while planning."""


def _conditions_above_joins(plan: str, words: _Words) -> int:
    count = 0
    # How far in a step is, and its condition where it was not counted yet; None for a sub-query, no part of that.
    above: list[tuple[int, str | None]] = []
    for line in plan.splitlines():
        step = line.lstrip()
        depth = len(line) - len(step)
        while above and above[-1][0] >= depth:
            above.pop()
        if words.join.match(step):
            inside = max((place for place, (_, text) in enumerate(above, 1) if text is None), default=0)
            count += sum(_conditions_in(text) for _, text in above[inside:] if text)
            above[inside:] = [(further, "") for further, _ in above[inside:]]
        found = words.condition.match(step)
        text = found[1] if found else ""
        above.append((depth, None if step.startswith(_SUBQUERY) else text))
    return count


def _conditions_in(text: str) -> int:
    """Return of how many conditions a filter consists, each of which may be handed down by itself."""
    count, depth, is_either = 1, 0, False
    for word in _SYNTAX.findall(text):
        depth += _DEEPER.get(word, 0)
        if depth < 0:
            raise _UnclearError
        is_either = is_either or (depth == 0 and word == "OR")
        count += depth == 0 and word == "AND"
    if depth:
        raise _UnclearError
    return 1 if is_either else count
