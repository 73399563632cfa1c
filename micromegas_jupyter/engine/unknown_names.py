"""What is said of a name that a statement has and nothing else: where it stands, and what it may have been meant for.

That a name is unknown, `errors` reads from DataFusion's text.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.engine.explanations import listed, suggested
from micromegas_jupyter.engine.scanner import Kind, place_of, scan
from micromegas_jupyter.engine.upstream_names import find_upstream_remedy
from micromegas_jupyter.errors import InvalidStatement

if TYPE_CHECKING:
    from collections.abc import Iterable


_WINDOW_FUNCTIONS: Final = frozenset(
    {"row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "ntile", "lag", "lead"}
)
_OVER = re.compile(r"\bover\b", re.IGNORECASE)


def unknown_name(what: str, name: str, candidates: Iterable[str], sql: str) -> InvalidStatement:
    """Return the error for a name that means nothing.

    Args:
        what: Begins the sentence: `There is no column`.
        name: The name as DataFusion writes it, with dots and quotes.
        candidates: What it may have been meant for, written likewise.
        sql: The statement.
    """
    last = _last_part(name)
    shown = " ".join(name.removeprefix("datafusion.").removeprefix("public.").split())[:120]
    kept = list(candidates)
    known = sorted({_last_part(one) for one in kept})
    owners = sorted({_first_part(one) for one in kept if "." in one})
    if what.endswith("column") and last in known and "." in name and _first_part(name) not in owners:
        what, shown, last, known = "There is no table or alias", _first_part(name), _first_part(name), owners
    line, column = find_name(last, sql)
    # DataFusion suggests one function out of hundreds: worth a guess, not a list.
    is_listed = not what.endswith("function")
    remedy = (
        find_upstream_remedy(what, last)
        or _function_remedy(what, last, sql)
        or _remedy_for(last, known, is_quoted=_is_quoted(sql, line, column), is_listed=is_listed)
    )
    return InvalidStatement(f"{what} named {shown}.", remedy=remedy, line=line, column=column)


def _function_remedy(what: str, name: str, sql: str) -> str | None:
    if what.endswith("function") and name in _WINDOW_FUNCTIONS and not _OVER.search(sql):
        return f"{name} needs a window: {name}(…) OVER (ORDER BY …)."
    return None


def _remedy_for(name: str, known: list[str], *, is_quoted: bool, is_listed: bool) -> str | None:
    others = {one.lower(): one for one in known if one != name}
    if close := difflib.get_close_matches(name.lower(), sorted(others), n=1, cutoff=0.6):
        return f"Did you mean {suggested(others[close[0]])}?"
    if is_quoted:
        return "Text stands in single quotes ('), names in double ones."
    return f"Known here: {shown}." if is_listed and (shown := listed(known)) else None


def _is_quoted(sql: str, line: int | None, column: int | None) -> bool:
    return line is not None and column is not None and sql.split("\n")[line - 1][column - 1 : column] == '"'


def _last_part(name: str) -> str:
    """Return the last part of a dotted name, without quotes: `t."a.b"` is `a.b`."""
    if name.endswith('"'):
        return name[:-1].rpartition('"')[2]
    return name.rpartition(".")[2]


def _first_part(name: str) -> str:
    return name.partition(".")[0].strip('"')


def find_name(name: str, sql: str) -> tuple[int | None, int | None]:
    """Return line and column of the first place where a name stands; None when it is nowhere."""
    for token in scan(sql).tokens:
        if token.kind in {Kind.WORD, Kind.QUOTED} and token.name == name:
            return place_of(sql, token.start)
    return None, None
