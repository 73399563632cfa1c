"""Takes the line of `%sql` and `%%sql` apart; what the options mean is argparse's and the magic's job.

argparse alone cannot do it: the quotes of SQL would be its quotes, and `NAME <<` is not an option.
"""

import keyword
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from micromegas_jupyter.errors import InvalidStatement, UsageError
from micromegas_jupyter.notebook.arguments import HELP_OPTION
from micromegas_jupyter.notebook.words import cut, printable

_MAX_OPTION_CHARACTERS = 60
_TEMPLATE = "{{"
_NAME = re.compile(r"\s*([^\W\d]\w*)\s*<<(?:\s+|$)")
_OPTION = re.compile(r"\s*(--[A-Za-z][\w-]*)(?:=|\s+|$)")
_VALUE = re.compile(r"\"([^\"]*)\"(?:\s+|$)|'([^']*)'(?:\s+|$)|(\S+)(?:\s+|$)")


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

    Raises:
        UsageError: An unknown option, an option without its value, a bad name, or no statement.
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
    """Refuse `{{…}}`: a value that became part of the SQL could change what it means.

    Raises:
        InvalidStatement: There is one; it says where.
    """
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
