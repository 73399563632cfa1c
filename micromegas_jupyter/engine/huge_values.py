"""Refuses statements that make one enormous value with a single call, such as `repeat('x', 1000000000)`.

Such a call takes its memory outside the engine's pool, in one step that nothing can stop, and often while the statement
is planned; where there is not enough, the process ends. Only sizes that stand in the text as numbers, with a sign or in
brackets, are seen, not those that are calculated or cast; for the others there is the operating system's limit around
the process.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.engine.scanner import Kind, Scan, Token
from micromegas_jupyter.errors import StatementRefused

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Characters of a text, or elements of a list.
_LARGEST: Final = 10_000_000
#: Functions whose second argument says how large their result is.
_MAKERS: Final = frozenset({"repeat", "lpad", "rpad", "array_repeat", "list_repeat", "array_resize", "list_resize"})
_SIZE_ARGUMENT: Final = 1
#: Functions that make a list of all numbers from one to another; in FROM they give rows, one after the other.
_RANGES: Final = frozenset({"range", "generate_series"})
_RANGE_ARGUMENTS: Final = 3
_BEFORE_ROWS: Final = frozenset({"from", "join", "lateral"})
_MOST_DIGITS: Final = 18
#: Of one number.
_MOST_SIGNS: Final = 8
_SIGNS: Final = frozenset({"+", "-"})
_AFTER_FROM: Final = frozenset(
    {"where", "group", "having", "order", "limit", "select", "union", "except", "intersect", "window"}
)


@dataclass(slots=True)
class _Call:
    """What is between two brackets: a call of `maker`, or anything else.

    Attributes:
        maker: The function, if it makes values by number.
        argument: Which of its arguments is read.
        factor: How large what it makes is.
        inner: How large what it makes it of is.
        numbers: The arguments of a range, if all are numbers so far.
        sign: That of the next number.
        in_from: Whether what follows a comma is a table.
    """

    maker: str | None = None
    argument: int = 0
    factor: int = 1
    inner: int = 1
    numbers: list[int] | None = field(default_factory=list)
    sign: int = 1
    in_from: bool = False

    @property
    def size(self) -> int:
        factor = _length(self.numbers) if self.maker in _RANGES else self.factor
        return min(factor * self.inner, _LARGEST + 1)


def check_huge_values(scanned: Scan) -> None:
    """Check that no value that a statement asks for by number is enormous; calls in each other multiply.

    Raises:
        StatementRefused: One is.
    """
    if not any(_maker(token) for token in scanned.tokens):
        return
    calls = [_Call()]
    before: Token | None = None
    earlier: Token | None = None
    for token in _without_brackets_around_numbers(_without_comparing_from(scanned.tokens)):
        here = calls[-1]
        match token.kind:
            case Kind.OPEN:
                maker = _maker(before)
                gives_rows = maker in _RANGES and _stands_for_rows(earlier, here)
                here.numbers = None
                calls.append(_Call(maker=None if gives_rows else maker))
            case Kind.CLOSE if len(calls) > 1:
                calls.pop()
                calls[-1].inner = max(calls[-1].inner, here.size)
                if here.maker is not None and here.size > _LARGEST:
                    raise StatementRefused(
                        f"The statement makes a text or list of more than {_LARGEST:,} characters or elements with "
                        f"{here.maker}."
                    )
            case Kind.COMMA:
                here.argument += 1
            case Kind.NUMBER:
                _read_number(here, token.text)
            case Kind.OPERATOR if token.text in _SIGNS:
                here.sign *= -1 if token.text == "-" else 1
            case Kind.WORD:
                here.numbers = None
                here.in_from = token.name in _BEFORE_ROWS or (here.in_from and token.name not in _AFTER_FROM)
            case _:
                here.numbers = None
        before, earlier = token, before


def _without_comparing_from(tokens: Iterable[Token]) -> list[Token]:
    """Leave out the `FROM` of `IS [NOT] DISTINCT FROM`: no table comes behind it."""
    kept: list[Token] = []
    for token in tokens:
        is_from = token.kind is Kind.WORD and token.name == "from"
        before = [each.name for each in kept[-2:] if each.kind is Kind.WORD] if is_from else []
        if before not in (["is", "distinct"], ["not", "distinct"]):
            kept.append(token)
    return kept


def _without_brackets_around_numbers(tokens: Iterable[Token]) -> list[Token]:
    """Leave out brackets around one number, with or without signs, that are not those of a call."""
    kept: list[Token] = []
    for token in tokens:
        opened = _bracket_before_number(kept) if token.text == ")" else None
        if opened is None:
            kept.append(token)
        else:
            del kept[opened]
    return kept


def _bracket_before_number(tokens: list[Token]) -> int | None:
    """Return where the bracket is that the number at the end stands in."""
    if not tokens or tokens[-1].kind is not Kind.NUMBER:
        return None
    place = len(tokens) - 2
    while place >= 0 and len(tokens) - place <= _MOST_SIGNS and tokens[place].text in _SIGNS:
        place -= 1
    if place < 0 or tokens[place].text != "(":
        return None
    is_call = place > 0 and tokens[place - 1].kind in {Kind.WORD, Kind.QUOTED, Kind.CLOSE}
    return None if is_call else place


def _read_number(call: _Call, text: str) -> None:
    if call.maker in _MAKERS and call.argument == _SIZE_ARGUMENT:
        call.factor *= _number(text)
    if call.maker in _RANGES and call.numbers is not None:
        is_next = len(call.numbers) == call.argument < _RANGE_ARGUMENTS and text.isdecimal()
        call.numbers = [*call.numbers, call.sign * int(text[:_MOST_DIGITS])] if is_next else None
    call.sign = 1


def _stands_for_rows(before: Token | None, outer: _Call) -> bool:
    """Return whether a function that is called there gives rows: `before` is in front of its name."""
    if before is None:
        return False
    return (before.kind is Kind.WORD and before.name in _BEFORE_ROWS) or (before.kind is Kind.COMMA and outer.in_from)


def _length(numbers: list[int] | None) -> int:
    """Return how many numbers there are in a range with these arguments; 1 where that is not known."""
    match numbers:
        case [end]:
            return max(1, end)
        case [start, end] | [start, end, 0]:
            return max(1, abs(end - start))
        case [start, end, step]:
            return max(1, abs(end - start) // abs(step))
        case _:
            return 1


def _maker(before: Token | None) -> str | None:
    is_name = before is not None and before.kind in {Kind.WORD, Kind.QUOTED}
    return before.name if is_name and before is not None and before.name in _MAKERS | _RANGES else None


def _number(text: str) -> int:
    return max(1, int(text[:_MOST_DIGITS])) if text.isdecimal() else _LARGEST + 1
