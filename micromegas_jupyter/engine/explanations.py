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
    return _first(_PLANNING, text)


def explain_value(text: str) -> Explanation | None:
    """Return what a complaint about a value means; None when it is not one of the common ones."""
    return _first(_VALUES, text)


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
        re.compile(r"Regular expression did not compile"),
        lambda _: Explanation(what="A regular expression in the statement is not valid."),
    ),
)

_SYNTAX: Final = (
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
