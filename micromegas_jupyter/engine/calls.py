"""Finds table function calls that must be replaced because DataFusion would run them during planning.

Each call is replaced by a name, and its arguments by blanks, so that positions in messages stay correct.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from micromegas_jupyter.engine.scanner import Kind, Scan, Token, find_calls, line_and_column, scan
from micromegas_jupyter.errors import InvalidStatement, QueryError, StatementRefused

_MAX_CALLS: Final = 64
_NO_BLANK: Final = re.compile(r"\S")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call with its offset in the statement, its placeholder name, and its arguments with their offsets."""

    function: str
    stand_in: str
    start: int
    text: str
    arguments: tuple[tuple[str, int], ...]


def lift_calls(scanned: Scan, functions: Collection[str]) -> list[Call]:
    """Return the outermost calls to these functions."""
    if scanned.names.isdisjoint(functions):
        return []
    tokens, found = scanned.tokens, list[Call]()
    taken = {token.name for token in tokens}
    end = -1
    for first, last in find_calls(scanned, functions):
        if first < end:
            continue
        name, end, number = tokens[first].name, last, len(found) + 1
        while (stand_in := f"{name}_{number}") in taken:
            number += 1
        taken.add(stand_in)
        found.append(_build_call(scanned.sql, tokens[first : last + 1], stand_in))
        if len(found) > _MAX_CALLS:
            raise StatementRefused(f"The statement has more than {_MAX_CALLS} calls to {name}.")
    return found


def with_stand_ins(sql: str, calls: Sequence[Call]) -> Scan:
    """Return the statement with each call replaced by its placeholder name."""
    pieces, end = [], 0
    for call in calls:
        replaced, rest = call.text[: len(call.stand_in)], call.text[len(call.stand_in) :]
        breaks = "\n" * replaced.count("\n")
        pieces += [sql[end : call.start], call.stand_in, breaks, _NO_BLANK.sub(" ", rest)]
        end = call.start + len(call.text)
    return scan("".join([*pieces, sql[end:]]))


def refused(sql: str, at: int, what: str, remedy: str, *, kind: type[QueryError] = InvalidStatement) -> QueryError:
    """Return an error with the line and column of the problem."""
    line, column = line_and_column(sql, at)
    return kind(what, remedy=remedy, line=line, column=column)


def _build_call(sql: str, tokens: Sequence[Token], stand_in: str) -> Call:
    """Return the call whose tokens extend from the function's name to the closing bracket."""
    depth, begin = 0, 2
    arguments: list[tuple[str, int]] = []
    for place, token in enumerate(tokens[2:], start=2):
        depth += {Kind.OPEN: 1, Kind.CLOSE: -1}.get(token.kind, 0)
        is_end = depth < 0
        if is_end or (depth == 0 and token.kind is Kind.COMMA):
            if begin < place or arguments or not is_end:
                first, last = tokens[min(begin, place)], tokens[place - 1]
                text = sql[first.start : last.start + len(last.text)] if begin < place else ""
                arguments.append((text, first.start))
            begin = place + 1
    start, closing = tokens[0].start, tokens[-1]
    return Call(
        function=tokens[0].name,
        stand_in=stand_in,
        start=start,
        text=sql[start : closing.start + len(closing.text)],
        arguments=tuple(arguments),
    )
