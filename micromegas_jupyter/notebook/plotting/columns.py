"""The roles of a result's columns in a chart: times, numbers, categories, or numbers that are never summed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from micromegas_jupyter.core.text import cut, printable
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.formats import decoded, sql_type
from micromegas_jupyter.telemetry.tables import ROLE_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_LISTED: Final = 300
"""The maximum length of a list of columns in a message."""

_MAX_CHARACTERS = 50
_IDENTIFIER = re.compile(r"(?:^|[\W_])(?i:ids?|[ptug]id|ppid|port|hash|key)$|[a-z](?:Id|Pid|Tid|Port|Hash)$")
_CODE = re.compile(r"(?:^|[\W_])(?i:levels?|status|codes?)$|[a-z](?:Level|Status|Code)$")
# XML doesn't allow two of these characters. Vega-Lite puts titles into expressions without escaping backslashes and,
# before 5.8, quotation marks.
_REPLACED = {0xFFFE: "\ufffd", 0xFFFF: "\ufffd", ord("\\"): "\u29f5"}
_REPLACED_IN_TITLES = {ord('"'): "\u201d"}
# Vega looks up strings in JavaScript objects, and doesn't draw anything for property names that all objects have.
_OBJECT_PROPERTIES = frozenset(
    {
        "__defineGetter__", "__defineSetter__", "__lookupGetter__", "__lookupSetter__", "__proto__", "constructor",
        "hasOwnProperty", "isPrototypeOf", "propertyIsEnumerable", "toLocaleString", "toString", "valueOf",
    }
)  # fmt: skip

# Identifiers and codes are never summed. Codes repeat, so they are categories unless chosen for an axis.
Role = StrEnum("Role", ["TIME", "NUMBER", "IDENTIFIER", "CATEGORY", "CODE", "NONE"])
_NUMBER_ROLES = {b"measure": Role.NUMBER, b"severity": Role.CODE, b"category": Role.CODE}


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """A column of the result, without dictionary encoding; its title is the name, made safe for display."""

    name: str
    title: str
    values: pa.ChunkedArray
    role: Role


def shown(text: str) -> str:
    """Return an untrusted name or value, shortened and without characters that could control a terminal or page."""
    found = cut(printable(cut(text, _MAX_CHARACTERS)), _MAX_CHARACTERS).translate(_REPLACED) or "(empty)"
    return found + "\u00a0" * (found in _OBJECT_PROPERTIES)


def columns_of(table: pa.Table) -> list[Column]:
    """Return a table's columns with the roles in its schema or, if it has none, those suggested by types and names."""
    has_roles = any(ROLE_KEY in (field.metadata or {}) for field in table.schema)
    return [
        Column(one.name, shown(one.name).translate(_REPLACED_IN_TITLES), each, _role(each, one, has_roles=has_roles))
        for one, each in zip(table.schema, map(decoded, table.columns), strict=True)
    ]


def _role(values: pa.ChunkedArray, field: pa.Field, *, has_roles: bool) -> Role:
    """Return a column's role; if the server assigned any roles, numbers without one aren't measures."""
    kind, name = values.type, field.name
    if types.is_timestamp(kind) or types.is_date(kind):
        return Role.TIME
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_duration(kind):
        if has_roles:
            return _NUMBER_ROLES.get((field.metadata or {}).get(ROLE_KEY, b""), Role.IDENTIFIER)
        role = Role.IDENTIFIER if _IDENTIFIER.search(name) else Role.CODE if _CODE.search(name) else Role.NUMBER
        return role if role is not Role.NUMBER and _are_whole(values) else Role.NUMBER
    return Role.CATEGORY if str(kind) in {"string", "large_string", "string_view", "bool"} else Role.NONE


def _are_whole(values: pa.ChunkedArray) -> bool:
    """Whether all numbers are whole; pandas converts integers with nulls to floats."""
    if types.is_floating(values.type):
        return pc.all(pc.equal(pc.floor(values), values)).as_py() is not False
    return bool(types.is_integer(values.type))


def named_column(columns: Sequence[Column], name: str) -> Column:
    """Return the column with the given name; raise UsageError if it doesn't exist or cannot be plotted."""
    found = next((column for column in columns if column.name == name), None)
    if found is None:
        nearest = get_close_matches(name, [column.name for column in columns], n=1)
        names = cut(", ".join(column.title for column in columns), MAX_LISTED)
        remedy = f"Did you mean {shown(nearest[0])}?" if nearest else f"The columns are {names}."
        raise UsageError(f'The result has no column "{shown(name)}".', remedy=remedy)
    if found.role is Role.NONE:
        raise undrawable("This type cannot be plotted", [found])
    return found


def undrawable(why: str, columns: Sequence[Column], *, remedy: str = "") -> UsageError:
    """Return an error that lists the columns and their types."""
    found = cut(", ".join(f"{each.title} {sql_type(each.values.type)}" for each in columns), MAX_LISTED)
    remedy = remedy or "Select times, numbers or strings, for example: SELECT time, value FROM measures."
    return UsageError(f"{why} ({found or 'no columns'}).", remedy=remedy)
