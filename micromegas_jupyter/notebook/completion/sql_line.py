"""Takes the line of `%sql` and `%%sql` apart: to run it, and to find what a cursor in it is about to write.

argparse alone cannot do it: the quotes of SQL would be its quotes, and `NAME <<` is not an option.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.errors import InvalidStatement, UsageError
from micromegas_jupyter.notebook.arguments import HELP_OPTION
from micromegas_jupyter.notebook.formatting import cut, printable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

_MAX_OPTION_CHARACTERS = 60
_TEMPLATE = "{{"
_NAME = re.compile(r"\s*([^\W\d]\w*)\s*<<(?:\s+|$)")
_OPTION = re.compile(r"\s*(--[A-Za-z][\w-]*)(?:=|\s+|$)")
_VALUE = re.compile(r"\"([^\"]*)\"(?:\s+|$)|'([^']*)'(?:\s+|$)|(\S+)(?:\s+|$)")
_OPTION_BEFORE_CURSOR: Final = re.compile(r"\s*(--[A-Za-z][\w-]*)(?:=|\s+)")
_VALUE_BEFORE_CURSOR: Final = re.compile(r"(?:\"[^\"]*\"|'[^']*'|[^\s\"']\S*)\s+")
_OPTION_BEGUN: Final = re.compile(r"--?[\w-]*")
_LINE_MAGIC: Final = r"\s*(?:[^\W\d][\w.\[\], ]*=\s*)?%(?P<name>\w+)[ \t]"
_CELL_MAGIC: Final = r"\s*%%(?P<name>\w+)(?=[ \t\n])"


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlLine:
    """What stood on the magic's line, and the statement.

    Attributes:
        name: The variable that takes the rows (`NAME <<`); None when the rows are the cell's value.
        arguments: The options, for argparse.
        sql: The statement: the rest of the line, then the cell's body.
        wants_help: Whether `--help` stood among the options; the rest was not looked at then.
    """

    name: str | None
    arguments: tuple[str, ...]
    sql: str
    wants_help: bool = False


def split_sql_line(line: str, cell: str | None, *, options_with_value: Sequence[str], flags: Sequence[str]) -> SqlLine:
    """Take the magic's line apart.

    Args:
        line: The text after the magic's name.
        cell: The body of a cell magic, None for a line magic.
        options_with_value: Options such as `--begin` that take the next word.
        flags: Options such as `--traceback` that stand alone.
    """
    name: str | None = None
    arguments: list[str] = []
    rest = line.lstrip()
    while True:
        if name is None and (found := _NAME.match(rest)):
            # As Python reads names: `µs` with the sign of a keyboard is the Greek letter there.
            name = unicodedata.normalize("NFKC", found[1])
            rest = rest[found.end() :]
        elif found := _OPTION.match(rest):
            option = found[1]
            if option == HELP_OPTION:
                return SqlLine(name=name, arguments=(), sql="", wants_help=True)
            rest = rest[found.end() :]
            arguments.append(option)
            if option in options_with_value:
                value, rest = _take_value(option, rest)
                arguments.append(value)
            elif option not in flags:
                raise _unknown(option, (*options_with_value, *flags))
        else:
            break
    if name is not None and keyword.iskeyword(name):
        raise UsageError(f'"{name}" is a Python keyword, not a name for a variable.', remedy="Choose another name.")
    if name is not None and not name.isidentifier():
        raise UsageError(
            f'"{cut(printable(name), _MAX_OPTION_CHARACTERS)}" is not a name for a variable.',
            remedy="Use letters, digits and _.",
        )
    sql = rest if cell is None else f"{rest}\n{cell}" if rest.strip() else cell
    if not sql.strip():
        raise UsageError("No SQL was given.", remedy="Write the statement after %sql, or below %%sql.")
    return SqlLine(name=name, arguments=tuple(arguments), sql=sql)


def check_no_template(sql: str) -> None:
    """Refuse `{{…}}`: a value that became part of the SQL could change what it means."""
    place = sql.find(_TEMPLATE)
    if place >= 0:
        raise InvalidStatement(
            "{{…}} is not filled in here.",
            line=sql.count("\n", 0, place) + 1,
            column=place - (sql.rfind("\n", 0, place) + 1) + 1,
            remedy="Write :name for a value; for the name of a table or column build the statement in Python with "
            "quote_identifier(); bind text that holds two braces.",
        )


def _unknown(option: str, known: Sequence[str]) -> UsageError:
    shown = cut(printable(option), _MAX_OPTION_CHARACTERS)
    nearest = get_close_matches(option, known, n=1)
    remedy = f"Did you mean {nearest[0]}?" if nearest else f"The options are {', '.join(known)}."
    return UsageError(f"{shown} is not an option.", remedy=remedy)


def _take_value(option: str, rest: str) -> tuple[str, str]:
    found = _VALUE.match(rest)
    if found is None:
        raise UsageError(f"{option} needs a value.", remedy=f"Write it after the option: {option} VALUE.")
    return next(group for group in found.groups() if group is not None), rest[found.end() :]


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
        if not is_named and (found := _NAME.match(rest)):
            is_named = True
            rest = rest[found.end() :]
        elif found := _OPTION_BEFORE_CURSOR.match(rest):
            rest = rest[found.end() :]
            if found[1] in options_with_value:
                value = _VALUE_BEFORE_CURSOR.match(rest)
                if value is None:
                    return OptionValue(option=found[1], typed=rest)
                options[found[1]] = value[0].strip().strip("\"'")
                rest = rest[value.end() :]
        else:
            break
    if _OPTION_BEGUN.fullmatch(rest):
        return OptionName(typed=rest)
    return Statement(before=rest, after=after, options=options)
