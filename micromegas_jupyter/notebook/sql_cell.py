"""Finds what a cursor in a cell is about to write: SQL, an option of the magic, an option's value, or none of these.

Understands a line that is not finished; running it is `sql_line`'s and the magic's job.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """The cursor is in SQL.

    Attributes:
        before: The statement up to the cursor, without the magic's options.
        after: The rest of it.
        options: The magic's options that have a value.
    """

    before: str
    after: str
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionName:
    """The cursor is where an option of the magic may stand; `typed` is its beginning."""

    typed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionValue:
    """The cursor is in the value of an option; `typed` is its beginning."""

    option: str
    typed: str


Place = Statement | OptionName | OptionValue

_ASSIGNED: Final = re.compile(r"\s*[^\W\d]\w*\s*<<(?:\s+|\Z)")
_OPTION: Final = re.compile(r"\s*(--[A-Za-z][\w-]*)(?:=|\s+)")
_VALUE: Final = re.compile(r"(?:\"[^\"]*\"|'[^']*'|[^\s\"']\S*)\s+")
_OPTION_BEGUN: Final = re.compile(r"--?[\w-]*")
_LINE_MAGIC: Final = r"\s*(?:[^\W\d][\w.\[\], ]*=\s*)?%(?P<name>\w+)[ \t]"
_CELL_MAGIC: Final = r"\s*%%(?P<name>\w+)(?=[ \t\n])"


def find_place(
    text: str,
    cursor: int,
    *,
    cell_magics: Collection[str],
    line_magics: Collection[str],
    options_with_value: Collection[str],
) -> Place | None:
    """Return what the cursor is about to write; None when it is not in one of the magics.

    Args:
        text: The whole cell.
        cursor: The offset of the cursor in it.
        cell_magics: Names of the magics whose cells hold SQL.
        line_magics: Names of the magics whose lines do.
        options_with_value: Their options that take the next word.
    """
    found = re.match(_CELL_MAGIC, text)
    if found and found["name"] in cell_magics:
        return None if cursor <= found.end() else _in_cell(text, cursor, found.end(), options_with_value)
    start = text.rfind("\n", 0, cursor) + 1
    found = re.compile(_LINE_MAGIC).match(text, start, cursor)
    if found is None or found["name"] not in line_magics:
        return None
    end = text.find("\n", cursor)
    after = text[cursor : len(text) if end < 0 else end]
    return _after_options(text[found.end() : cursor], after, options_with_value)


def _in_cell(text: str, cursor: int, start: int, options_with_value: Collection[str]) -> Place:
    end = text.find("\n", start)
    if end < 0 or cursor <= end:
        place = _after_options(text[start:cursor], text[cursor:], options_with_value)
        is_empty = isinstance(place, Statement) and not place.before
        return OptionName(typed="") if is_empty else place
    # A statement may begin behind the options.
    first = _after_options(text[start:end] + " ", "", options_with_value)
    begun = first.before.rstrip() + "\n" if isinstance(first, Statement) and first.before.strip() else ""
    options = first.options if isinstance(first, Statement) else {}
    return Statement(before=begun + text[end + 1 : cursor], after=text[cursor:], options=options)


def _after_options(typed: str, after: str, options_with_value: Collection[str]) -> Place:
    rest = typed.lstrip()
    is_named = False
    options: dict[str, str] = {}
    while True:
        if not is_named and (found := _ASSIGNED.match(rest)):
            is_named = True
            rest = rest[found.end() :]
        elif found := _OPTION.match(rest):
            rest = rest[found.end() :]
            if found[1] in options_with_value:
                value = _VALUE.match(rest)
                if value is None:
                    return OptionValue(option=found[1], typed=rest)
                options[found[1]] = value[0].strip().strip("\"'")
                rest = rest[value.end() :]
        else:
            break
    if _OPTION_BEGUN.fullmatch(rest):
        return OptionName(typed=rest)
    return Statement(before=rest, after=after, options=options)
