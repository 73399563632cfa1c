"""Says in plain words, and with a remedy, what DataFusion's commonest complaints about a statement mean.

Which class an error gets, and what of other texts may pass, is `errors`' job.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST_NAME: Final = 120
_LONGEST_LIST: Final = 200
_MOST_LISTED: Final = 12
_PLAIN_NAME: Final = re.compile(r"[a-z_][a-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What a complaint means.

    Attributes:
        what: What is wrong, one sentence.
        remedy: What to do; None for the general one.
        name: A name in the statement that it is about, as DataFusion writes it; None when there is none.
    """

    what: str
    remedy: str | None = None
    name: str | None = None


def explain_planning(text: str) -> Explanation | None:
    """Return what a complaint of the planner means; None when it is not one of the common ones."""
    return _first((*_PLANNING, *_PLANNING_BY_TYPE), text)


def explain_value(text: str) -> Explanation | None:
    """Return what a complaint about a value means; None when it is not one of the common ones."""
    return _first(_VALUES, text)


def explain_unsupported(text: str) -> Explanation | None:
    """Return what of a statement the engine does not implement; None when it is not one of the common cases."""
    return _first(_UNSUPPORTED, text)


def explain_syntax(text: str) -> Explanation | None:
    """Return what a complaint of the parser means; None when it is not one of the common ones."""
    return _first(_SYNTAX, text)


def suggested(name: str) -> str:
    """Return a name as it is written in a statement, in quotes where it needs them, shortened."""
    shown = name[:_LONGEST_NAME]
    return shown if _PLAIN_NAME.fullmatch(shown) else '"' + shown.replace('"', '""') + '"'


def listed(names: list[str]) -> str:
    """Return a short list of names as they are written in a statement; empty when there are none, or too many."""
    text = ", ".join(suggested(name) for name in names[: _MOST_LISTED + 1])
    return text if len(names) <= _MOST_LISTED and len(text) <= _LONGEST_LIST else ""


def _first(
    rules: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Explanation]], ...], text: str
) -> Explanation | None:
    for pattern, explain in rules:
        if found := pattern.search(text):
            return explain(found)
    return None


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…"


def _last(name: str) -> str:
    return name.rpartition(".")[2].strip('"')


_PLANNING: Final = (
    (
        re.compile(r"Ambiguous reference to unqualified field (\S+)"),
        lambda found: Explanation(
            what=f"The column {_short(found[1])} is in more than one of the tables.",
            remedy=f"Write the table's name or alias in front of it: t.{_short(found[1])}.",
            name=_last(found[1]),
        ),
    ),
    (
        re.compile(r'column "([^"]+(?:"\."[^"]+)?)" must appear in the GROUP BY clause'),
        lambda found: Explanation(
            what=f"The column {_short(found[1])} is neither in GROUP BY nor inside an aggregate function.",
            remedy=f"Add it to GROUP BY, or take one of its values, for example max({_short(_last(found[1]))}).",
            name=_last(found[1]),
        ),
    ),
    (
        re.compile(r"Cannot coerce arithmetic expression (.+?) to valid types"),
        lambda found: Explanation(
            what=f"{_short(found[1])} cannot be calculated.",
            remedy="Convert one side, for example with CAST(x AS BIGINT).",
        ),
    ),
    (
        re.compile(r"non-boolean predicate '?(.+?)'? returning (\w+)"),
        lambda found: Explanation(
            what=f"A condition must be true or false, and {_short(found[1])} is {found[2]}.",
            remedy="Compare it with something.",
            name=_last(found[1]),
        ),
    ),
    (
        re.compile(r"No function matches the given name and argument types '(\w+)\(([^']*)\)'"),
        lambda found: Explanation(
            what=f"The function {_short(found[1])} does not take these arguments: {_short(found[2]) or 'none'}.",
            remedy="Give it other arguments, or convert them with CAST.",
            name=found[1],
        ),
    ),
    (
        re.compile(r"Substring without for/from is not valid"),
        lambda _: Explanation(
            what="substr needs to know where to begin.", remedy="Write substr(text, 1, 10).", name="substr"
        ),
    ),
)

_PLANNING_BY_TYPE: Final = (
    (
        re.compile(r"Cannot get result type for temporal operation (.+?): "),
        lambda found: Explanation(
            what=f"{_short(found[1])} cannot be calculated.",
            remedy="Add an interval to a time, or subtract it; a placeholder for one is written CAST(? AS INTERVAL).",
        ),
    ),
    (
        re.compile(r"Function '(\w+)' (?:failed to match any signature|user-defined coercion failed)"),
        lambda found: Explanation(
            what=f"The function {_short(found[1])} does not take these arguments.",
            remedy="Give it other arguments, or convert them with CAST.",
            name=found[1],
        ),
    ),
    (
        re.compile(r"Unsupported Value '\w*?Literal\("),
        lambda _: Explanation(
            what="This kind of literal is not supported.",
            remedy="Write text as 'text', and with escapes as E'a\\n'.",
        ),
    ),
    (
        re.compile(r"Invalid HexStringLiteral '([^']*)'"),
        lambda found: Explanation(
            what=f"X'{_short(found[1])}' is not hexadecimal.", remedy="Write two hexadecimal digits for each byte."
        ),
    ),
    (
        re.compile(
            r"Cannot infer common argument type for (?:comparison|logical boolean) operation (.+?)\.?$", re.DOTALL
        ),
        lambda found: Explanation(
            what=f"Values of different types are compared or joined by AND or OR: {_short(found[1])}.",
            remedy="Convert one side with CAST, or compare it first.",
        ),
    ),
    (
        re.compile(r"Failed to coerce types (.+?) in (\w+) expression"),
        lambda found: Explanation(
            what=f"Values of different types stand in {found[2]}: {_short(found[1])}.", remedy="Convert them with CAST."
        ),
    ),
    (
        re.compile(r"There isn't a common type to coerce (.+?) in (\w+) expression"),
        lambda found: Explanation(
            what=f"{found[2]} does not take these types: {_short(found[1])}.",
            remedy="Convert one side with CAST(x AS VARCHAR).",
        ),
    ),
    (
        re.compile(r"Too many columns! The subquery should only return one column"),
        lambda _: Explanation(
            what="A sub-query that stands for one value has several columns.", remedy="Select one column in it."
        ),
    ),
    (
        re.compile(r"(UNION|INTERSECT|EXCEPT) queries have different number of columns"),
        lambda found: Explanation(
            what=f"The two sides of {found[1]} have different numbers of columns.",
            remedy="Select as many columns on both sides; NULL fills a place.",
        ),
    ),
    (
        re.compile(r"Incompatible inputs for Union"),
        lambda _: Explanation(
            what="The two sides of UNION have columns of different types.", remedy="Convert one side with CAST."
        ),
    ),
    (
        re.compile(r"Aggregate functions are not allowed in the WHERE clause"),
        lambda _: Explanation(
            what="WHERE is about single rows, so no aggregate function can stand in it.",
            remedy="Put the condition into HAVING.",
        ),
    ),
    (
        re.compile(r"HAVING clause references: (.+?) must appear in the GROUP BY"),
        lambda found: Explanation(
            what=f"HAVING is about groups, and {_short(found[1])} is about single rows.",
            remedy="Use WHERE, or add the column to GROUP BY.",
        ),
    ),
    (
        re.compile(r'variable \["([^"]*)"\] has no type information'),
        lambda found: Explanation(
            what=f"There is no variable {_short(found[1])}.", remedy="Parameters are written $1, $name or ?."
        ),
    ),
)

_UNSUPPORTED: Final = (
    (
        re.compile(r"Cannot run range queries on datatype: (.+?)\.?$"),
        lambda found: Explanation(
            what=f"A window cannot be ordered by values of the type {_short(found[1])}.",
            remedy="Order by encode(bytes, 'hex') or by the fields of a struct, or write OVER (ORDER BY … ROWS BETWEEN "
            "UNBOUNDED PRECEDING AND CURRENT ROW).",
        ),
    ),
    (
        re.compile(r"Dot access not supported"),
        lambda _: Explanation(
            what="A part of a value is named with a dot where the engine takes none.",
            remedy="Write value['part'], or give the table another alias if its name is a word of SQL.",
        ),
    ),
    (
        re.compile(r"Unsupported ast node (?:in \w+: )?(\w+)"),
        lambda found: Explanation(what=f"The engine does not implement {_short(found[1])}."),
    ),
    (
        re.compile(r"Unsupported SQL type (.+?)\.?$", re.DOTALL),
        lambda found: Explanation(
            what=f"The engine has no type named {_short(found[1])}.",
            remedy="Use BIGINT, DOUBLE, DECIMAL(p, s), VARCHAR, BOOLEAN, DATE, TIMESTAMP or INTERVAL, for example.",
            name=found[1].lower(),
        ),
    ),
)

_VALUES: Final = (
    (
        re.compile(r"^Divide by zero"),
        lambda _: Explanation(
            what="The statement divides by zero.", remedy="Divide by NULLIF(divisor, 0), which gives NULL instead."
        ),
    ),
    (
        re.compile(r"^(?:\w+ error: )?(Cannot cast string .*)", re.DOTALL),
        lambda found: Explanation(
            what=f"The statement failed on a value: {found[1].rstrip('.')}.",
            remedy="TRY_CAST gives NULL for what cannot be converted.",
        ),
    ),
    (
        re.compile(
            r"^(?:\w+ error: )?((?:Can(?:no|')t cast (?:value|to)|Failed to parse string).*)",
            re.DOTALL,
        ),
        lambda found: Explanation(
            what=f"The statement failed on a value: {_short(found[1].rstrip('.'))}.",
            remedy="TRY_CAST gives NULL for what cannot be converted.",
        ),
    ),
    (
        re.compile(r"(Error parsing timestamp from .*)", re.DOTALL),
        lambda found: Explanation(
            what=f"The statement failed on a value: {found[1].rstrip('.')}.",
            remedy="A time is written '2026-11-25T12:00:00Z'. TRY_CAST gives NULL for what cannot be converted.",
        ),
    ),
    (
        re.compile(r"Timestamp out of range|represented as nanoseconds|Date arithmetic overflow"),
        lambda _: Explanation(
            what="A time is outside the years 1677 to 2262, which nanoseconds can hold, or a date is out of range.",
            remedy="Use a shorter interval, or keep the value as text.",
        ),
    ),
    (
        re.compile(r"[Oo]verflow|too large to store"),
        lambda found: Explanation(
            what=f"A calculation left the range of its type: {_short(found.string.rstrip('.'))}.",
            remedy="Convert to a larger type first, for example with CAST(x AS DOUBLE) or CAST(x AS DECIMAL(38, 0)).",
        ),
    ),
    (
        re.compile(r"Scalar subquery returned more than one row"),
        lambda _: Explanation(
            what="A sub-query that stands for one value gives several rows.",
            remedy="Compare with IN (…), or take one row with LIMIT 1 or an aggregate function.",
        ),
    ),
    (
        re.compile(r"Regular expression did not compile"),
        lambda _: Explanation(what="A regular expression in the statement is not valid."),
    ),
)

_SYNTAX: Final = (
    (
        re.compile(r"Unexpected EOF while in a multi-line comment"),
        lambda _: Explanation(what="A comment is not closed.", remedy="Close it with */."),
    ),
    (
        re.compile(r"Expected: end of statement, found: (.*)", re.DOTALL),
        lambda found: Explanation(
            what=f"Did not expect {_short(found[1].strip())} here.",
            remedy="Is a comma, an operator or a keyword missing or misspelt before it?",
        ),
    ),
    (
        re.compile(r"Expected: (.+?), found: EOF", re.DOTALL),
        lambda found: Explanation(
            what=f"The statement ends too early: {_short(found[1])} is missing.", remedy="Complete it."
        ),
    ),
    (
        re.compile(r"Expected: (.+?), found: (.*)", re.DOTALL),
        lambda found: Explanation(what=f"Expected {_short(found[1])} here, not {_short(found[2].strip())}."),
    ),
    (
        re.compile(r"Unterminated string literal"),
        lambda _: Explanation(
            what="The text that begins here is not closed.", remedy="Close it with a single quote (')."
        ),
    ),
    (
        re.compile(r"Expected close delimiter '(.)' before EOF"),
        lambda found: Explanation(what="The name that begins here is not closed.", remedy=f"Close it with {found[1]}."),
    ),
)
