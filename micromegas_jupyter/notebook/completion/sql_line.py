"""Parses the line of `%sql` and `%%sql`: to run it, and to complete at a cursor in it.

argparse alone cannot: it would read the quotes of SQL as its own, and `NAME <<` is not an option.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.errors import InvalidStatement, UsageError
from micromegas_jupyter.notebook.formatting import cut, printable
from micromegas_jupyter.notebook.shell import HELP_OPTION

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

_MAX_OPTION_CHARACTERS: Final = 60
_TEMPLATE: Final = "{{"
_NAME: Final = re.compile(r"\s*([^\W\d]\w*)\s*<<(?:\s+|$)")
_OPTION: Final = re.compile(r"\s*(--[A-Za-z][\w-]*)(?:=|\s+|$)")
_VALUE: Final = re.compile(r"\"([^\"]*)\"(?:\s+|$)|'([^']*)'(?:\s+|$)|(\S+)(?:\s+|$)")
# Before a cursor, a word is finished only when a space follows it.
_FINISHED_OPTION: Final = re.compile(r"\s*(--[A-Za-z][\w-]*)(?:=|\s+)")
_FINISHED_VALUE: Final = re.compile(r"\"([^\"]*)\"\s+|'([^']*)'\s+|([^\s\"']\S*)\s+")
_OPTION_BEGUN: Final = re.compile(r"--?[\w-]*")
_LINE_MAGIC: Final = re.compile(r"\s*(?:[^\W\d][\w.\[\], ]*=\s*)?%(?P<name>\w+)[ \t]")
_CELL_MAGIC: Final = re.compile(r"\s*%%(?P<name>\w+)(?=[ \t\n])")


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlLine:
    """A parsed line with the statement.

    Attributes:
        name: The variable that takes the rows (`NAME <<`); None when the rows are the cell's value.
        arguments: The options, for argparse.
        sql: The statement: the rest of the line, then the cell's body.
        wants_help: Whether `--help` is among the options; the rest is not parsed then.
    """

    name: str | None
    arguments: tuple[str, ...]
    sql: str
    wants_help: bool = False


@dataclass(slots=True, kw_only=True)
class _Options:
    """What stands before the statement; `unfinished` is an option that `rest` has no value for."""

    rest: str
    name: str | None = None
    options: list[tuple[str, str | None]] = field(default_factory=list)
    unfinished: str | None = None


def _parse_options(text: str, options_with_value: Collection[str], *, before_cursor: bool) -> _Options:
    option_pattern, value_pattern = (_FINISHED_OPTION, _FINISHED_VALUE) if before_cursor else (_OPTION, _VALUE)
    parsed = _Options(rest=text.lstrip())
    while True:
        if parsed.name is None and (found := _NAME.match(parsed.rest)):
            # As Python reads names: `µs` with the sign of a keyboard is the Greek letter there.
            parsed.name = unicodedata.normalize("NFKC", found[1])
        elif found := option_pattern.match(parsed.rest):
            option, value = found[1], None
            if option in options_with_value:
                parsed.rest = parsed.rest[found.end() :]
                found = value_pattern.match(parsed.rest)
                if found is None:
                    parsed.unfinished = option
                    return parsed
                value = next(group for group in found.groups() if group is not None)
            parsed.options.append((option, value))
        else:
            return parsed
        parsed.rest = parsed.rest[found.end() :]


def split_sql_line(line: str, cell: str | None, *, options_with_value: Sequence[str], flags: Sequence[str]) -> SqlLine:
    """Parse the magic's line.

    Args:
        line: The text after the magic's name.
        cell: The body of a cell magic, None for a line magic.
        options_with_value: Options such as `--begin` that take a value.
        flags: Options such as `--traceback` that take none.
    """
    parsed = _parse_options(line, options_with_value, before_cursor=False)
    name, known = parsed.name, (*options_with_value, *flags)
    for option, _ in parsed.options:
        if option == HELP_OPTION:
            return SqlLine(name=name, arguments=(), sql="", wants_help=True)
        if option not in known:
            shown, nearest = cut(printable(option), _MAX_OPTION_CHARACTERS), get_close_matches(option, known, n=1)
            remedy = f"Did you mean {nearest[0]}?" if nearest else f"The options are {', '.join(known)}."
            raise UsageError(f"{shown} is not an option.", remedy=remedy)
    if parsed.unfinished is not None:
        option = parsed.unfinished
        raise UsageError(f"{option} needs a value.", remedy=f"Write it after the option: {option} VALUE.")
    if name is not None and keyword.iskeyword(name):
        raise UsageError(f'"{name}" is a Python keyword, not a name for a variable.', remedy="Choose another name.")
    if name is not None and not name.isidentifier():
        raise UsageError(
            f'"{cut(printable(name), _MAX_OPTION_CHARACTERS)}" is not a name for a variable.',
            remedy="Use letters, digits and _.",
        )
    rest = parsed.rest
    sql = rest if cell is None else f"{rest}\n{cell}" if rest.strip() else cell
    if not sql.strip():
        raise UsageError("No SQL was given.", remedy="Write the statement after %sql, or below %%sql.")
    arguments = [word for option in parsed.options for word in option if word is not None]
    return SqlLine(name=name, arguments=tuple(arguments), sql=sql)


def check_no_template(sql: str) -> None:
    """Refuse `{{…}}`: a value that became part of the SQL could change what it means."""
    position = sql.find(_TEMPLATE)
    if position >= 0:
        raise InvalidStatement(
            "{{…}} is not filled in here.",
            line=sql.count("\n", 0, position) + 1,
            column=position - (sql.rfind("\n", 0, position) + 1) + 1,
            remedy="Write :name for a value; for the name of a table or column build the statement in Python with "
            "quote_identifier(); bind text that holds two braces.",
        )


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
    """The cursor is at an option of the magic; `typed` is its beginning."""

    typed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionValue:
    """The cursor is in the value of an option; `typed` is its beginning."""

    option: str
    typed: str


CursorPosition = Statement | OptionName | OptionValue


def find_position(
    text: str,
    cursor: int,
    *,
    cell_magics: Collection[str],
    line_magics: Collection[str],
    options_with_value: Collection[str],
) -> CursorPosition | None:
    """Return what the cursor is in; None when it is not in one of the magics.

    Args:
        text: The whole cell.
        cursor: The offset of the cursor in it.
        cell_magics: Names of the magics whose cells hold SQL.
        line_magics: Names of the magics whose lines do.
        options_with_value: Their options that take a value.
    """
    found = _CELL_MAGIC.match(text)
    if found and found["name"] in cell_magics:
        return None if cursor <= found.end() else _in_cell(text, cursor, found.end(), options_with_value)
    start = text.rfind("\n", 0, cursor) + 1
    found = _LINE_MAGIC.match(text, start, cursor)
    if found is None or found["name"] not in line_magics:
        return None
    end = text.find("\n", cursor)
    after = text[cursor : len(text) if end < 0 else end]
    return _on_line(text[found.end() : cursor], after, options_with_value)


def _in_cell(text: str, cursor: int, start: int, options_with_value: Collection[str]) -> CursorPosition:
    end = text.find("\n", start)
    if end < 0 or cursor <= end:
        position = _on_line(text[start:cursor], text[cursor:], options_with_value)
        is_empty = isinstance(position, Statement) and not position.before
        return OptionName(typed="") if is_empty else position
    # A statement may begin behind the options.
    first = _on_line(text[start:end] + " ", "", options_with_value)
    begun = first.before.rstrip() + "\n" if isinstance(first, Statement) and first.before.strip() else ""
    options = first.options if isinstance(first, Statement) else {}
    return Statement(before=begun + text[end + 1 : cursor], after=text[cursor:], options=options)


def _on_line(typed: str, after: str, options_with_value: Collection[str]) -> CursorPosition:
    parsed = _parse_options(typed, options_with_value, before_cursor=True)
    if parsed.unfinished is not None:
        return OptionValue(option=parsed.unfinished, typed=parsed.rest)
    if _OPTION_BEGUN.fullmatch(parsed.rest):
        return OptionName(typed=parsed.rest)
    options = {option: value for option, value in parsed.options if value is not None}
    return Statement(before=parsed.rest, after=after, options=options)
