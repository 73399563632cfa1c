"""Stub: to be replaced."""

import re
from dataclasses import dataclass

from micromegas_jupyter.errors import InvalidStatement
from micromegas_jupyter.telemetry.view_definitions import ViewDefinition

_CREATE = re.compile(
    r"\s*CREATE\s+(OR\s+REPLACE\s+)?MATERIALIZED\s+VIEW\s+(\w+)\s+WITH\s*\((.*)\)\s*;?\s*\Z", re.IGNORECASE | re.DOTALL
)
_DROP = re.compile(r"\s*DROP\s+MATERIALIZED\s+VIEW\s+(IF\s+EXISTS\s+)?(\w+)\s*;?\s*\Z", re.IGNORECASE)
_OPTION = re.compile(r"\s*(\w+)\s*=\s*(\$\$.*?\$\$|'(?:[^']|'')*'|\d+)\s*,?", re.DOTALL)


@dataclass(frozen=True)
class CreateView:
    definition: ViewDefinition
    replaces: bool


@dataclass(frozen=True)
class DropView:
    name: str
    if_exists: bool


def parse_view_statement(sql):
    sql_body = re.sub(r"\A(?:\s*(?:--[^\n]*\n|/\*.*?\*/))*", "", sql, flags=re.S)
    full, sql = sql, sql_body
    if m := _DROP.match(sql):
        return DropView(m[2], bool(m[1]))
    if not (m := _CREATE.match(sql)):
        return None
    values = {}
    for one in _OPTION.finditer(m[3]):
        text = one[2]
        values[one[1]] = (
            text[2:-2] if text.startswith("$$") else text[1:-1].replace("''", "'") if text[0] == "'" else int(text)
        )
    known = {k: v for k, v in values.items() if k in ViewDefinition.__dataclass_fields__}
    try:
        return CreateView(ViewDefinition(name=m[2], sql=full, **known), bool(m[1]))
    except TypeError as e:
        raise InvalidStatement(str(e)) from e
