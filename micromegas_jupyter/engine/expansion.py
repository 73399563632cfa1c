"""Counts how many copies of sub-plans a statement's common table expressions unfold into.

DataFusion puts a CTE's plan wherever its name stands, so a chain of CTEs that each name the one before twice doubles
with every link: 20 links in 800 bytes keep the planner busy for a minute. Refusing is the guard's job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from micromegas_jupyter.engine.scanner import Kind, Scan, Token

if TYPE_CHECKING:
    from collections.abc import Collection

_NAMES = (Kind.WORD, Kind.QUOTED)


class _Body(NamedTuple):
    """One `name AS ( … )`: the name, where it stands, and the token indexes of its brackets."""

    name: str
    named_at: int
    first: int
    last: int


def plan_copies(scanned: Scan, *, at_most: int) -> int:
    """Return the number of sub-plan copies of the whole statement, or any number above `at_most` once it is passed."""
    tokens = scanned.tokens
    bodies = _find_bodies(scanned)
    if not bodies:
        return 0
    # Inner bodies end first and later ones may only name earlier ones, so the order of ends is the order of meaning.
    copies: dict[str, int] = {body.name: 0 for body in bodies}
    references = _references(tokens, copies.keys(), {body.named_at for body in bodies})
    for body in sorted(bodies, key=lambda found: found.last):
        made = 1 + _count(references, body.first, body.last, copies)
        copies[body.name] = max(copies[body.name], made)
        if made > at_most:
            return made
    return sum(_count(references, first, last, copies) for first, last in _outside(bodies, len(tokens)))


def _outside(bodies: list[_Body], end: int) -> list[tuple[int, int]]:
    """Return the ranges of tokens that are in no body."""
    ranges: list[tuple[int, int]] = []
    place = 0
    for body in sorted(bodies, key=lambda found: found.first):
        if body.first > place:
            ranges.append((place, body.first))
        place = max(place, body.last)
    return [*ranges, (place, end)]


def _references(tokens: tuple[Token, ...], names: Collection[str], definitions: set[int]) -> list[tuple[int, str]]:
    """Return where a defined name stands for its table: not where it is defined, a qualifier or a function."""
    found: list[tuple[int, str]] = []
    for index, token in enumerate(tokens):
        if token.kind in _NAMES and index not in definitions and (name := token.name) in names:
            following = tokens[index + 1].text if index + 1 < len(tokens) else ""
            if following not in {".", "("}:
                found.append((index, name))
    return found


def _count(references: list[tuple[int, str]], first: int, last: int, copies: dict[str, int]) -> int:
    return sum(copies[name] for index, name in references if first <= index < last)


def _find_bodies(scanned: Scan) -> list[_Body]:
    bodies: list[_Body] = []
    opened: list[tuple[int, int | None]] = []
    openers: dict[int, int] = {}
    tokens = scanned.tokens
    for index, token in enumerate(tokens):
        if token.kind is Kind.OPEN:
            opened.append((index, _name_before(tokens, index, openers)))
        elif token.kind is Kind.CLOSE and opened and token.start < scanned.certain_until:
            first, named_at = opened.pop()
            openers[index] = first
            if named_at is not None:
                bodies.append(_Body(tokens[named_at].name, named_at, first, index))
    bodies.extend(
        _Body(tokens[named_at].name, named_at, first, len(tokens)) for first, named_at in opened if named_at is not None
    )
    return bodies


def _name_before(tokens: tuple[Token, ...], index: int, openers: dict[int, int]) -> int | None:
    """Return where the name stands in `name [(columns)] AS [[NOT] MATERIALIZED] (`; `index` is the last bracket."""
    place = index - 1
    while place >= 0 and tokens[place].kind is Kind.WORD and tokens[place].text.lower() in {"not", "materialized"}:
        place -= 1
    if place < 1 or tokens[place].kind is not Kind.WORD or tokens[place].text.lower() != "as":
        return None
    place -= 1
    if tokens[place].kind is Kind.CLOSE:
        place = openers.get(place, 0) - 1
    return place if place >= 0 and tokens[place].kind in _NAMES else None
