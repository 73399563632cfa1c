"""Placeholders of a statement and the values that take their place.

`?` is rewritten to `$1`, `$2`, … outside strings, names and comments; values are bound by the engine and never become
part of the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from micromegas_jupyter.engine.interim.statement_text import Kind, cut_statement
from micromegas_jupyter.errors import InvalidStatement

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLACEHOLDER = re.compile(r"\?|\$([0-9]{1,4}|[A-Za-z_][A-Za-z0-9_]*)")
_MAX_PLACEHOLDERS = 2000


@dataclass(frozen=True, slots=True)
class Numbered:
    """A statement whose placeholders all have a name.

    Attributes:
        sql: The statement for the engine.
        names: The placeholders' names without `$`, in order of their first appearance (numbers in order of number).
    """

    sql: str
    names: tuple[str, ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """The names under which a caller binds them: `$1` is "0"."""
        return tuple(str(int(name) - 1) if name.isdigit() else name for name in self.names)


def number_placeholders(sql: str) -> Numbered:
    """Give each `?` its number and list all placeholders.

    Raises:
        InvalidStatement: `?` and `$n` are mixed, or there are too many.
    """
    marks = _Marks()
    text = "".join(
        _PLACEHOLDER.sub(marks.name, piece.text) if piece.kind is Kind.CODE else piece.text
        for piece in cut_statement(sql)
    )
    if marks.questions and marks.has_numbers:
        raise InvalidStatement("The statement mixes ? and $1.", remedy="Use one of the two.")
    if marks.questions + len(marks.names) > _MAX_PLACEHOLDERS:
        raise InvalidStatement(f"The statement has more than {_MAX_PLACEHOLDERS} placeholders.")
    if marks.questions:
        return Numbered(text, (*(str(number) for number in range(1, marks.questions + 1)), *marks.names))
    numbers = sorted((name for name in marks.names if name.isdigit()), key=int)
    return Numbered(text, (*numbers, *(name for name in marks.names if not name.isdigit())))


class _Marks:
    def __init__(self) -> None:
        self.questions = 0
        self.names: dict[str, None] = {}

    @property
    def has_numbers(self) -> bool:
        return any(name.isdigit() for name in self.names)

    def name(self, found: re.Match[str]) -> str:
        if found[0] == "?":
            self.questions += 1
            return f"${self.questions}"
        self.names[found[1]] = None
        return found[0]


def parameter_values(numbered: Numbered, parameters: pa.RecordBatch | None) -> Mapping[str, pa.Scalar]:
    """Return each placeholder's value by the name that the engine knows it by.

    Raises:
        InvalidStatement: There is not exactly one row, or a placeholder has no value.
    """
    if parameters is None or not numbered.names:
        return {}
    if parameters.num_rows != 1:
        raise InvalidStatement("Parameters are one row of values.", remedy="Bind one row at a time.")
    by_name = dict(zip(parameters.schema.names, parameters.columns, strict=True))
    if numbered.names and not set(numbered.fields) & set(by_name) and len(by_name) == len(numbered.names):
        # Some clients give no names that mean anything: the order says it.
        by_name = dict(zip(numbered.fields, parameters.columns, strict=True))
    missing = [f"${name}" for name, field in zip(numbered.names, numbered.fields, strict=True) if field not in by_name]
    if missing:
        raise InvalidStatement(f"There is no value for {missing[0]}.", remedy="Give a value for every placeholder.")
    return {name: by_name[field][0] for name, field in zip(numbered.names, numbered.fields, strict=True)}
