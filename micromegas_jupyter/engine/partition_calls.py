"""Upstream's functions that change partitions, as administrators call them in SQL, for the front to find.

Partitions are the files of Delta tables here. To materialize or regenerate them merges small files. Retiring them is
rejected, because these files are the only copy of the rows, whereas upstream can rebuild its partitions.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from micromegas_jupyter.engine.calls import Call, lift_calls
from micromegas_jupyter.engine.scanner import line_and_column, scan
from micromegas_jupyter.errors import InvalidStatement, UnsupportedStatement

RETIRE: Final = "retire_partitions"
_OPTIMIZE: Final = ("materialize_partitions", "regenerate_partitions")
MESSAGE_FUNCTIONS: Final = frozenset({RETIRE, *_OPTIMIZE})
_BY_ONE: Final = frozenset({"retire_partition_by_metadata", "retire_partition_by_file"})
PARTITION_NAMES: Final = MESSAGE_FUNCTIONS | _BY_ONE
_PARAMETERS: Final = {
    RETIRE: ("view set", "instance", "begin", "end"),
    **dict.fromkeys(_OPTIMIZE, ("view", "begin", "end", "seconds")),
}
_TEXT: Final = re.compile(r"'((?:[^']|'')*)'")
_TIME: Final = re.compile(r"(?:timestamp\s*)?'([^']{10,40})'(?:\s*::\s*timestamp)?", re.IGNORECASE)
_NUMBER: Final = re.compile(r"[0-9]{1,12}")
_MAX_SHOWN: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionCall:
    """One call, with the arguments that matter: files are merged regardless of range and instance."""

    function: str
    view_set: str


def find_partition_call(sql: str) -> PartitionCall | None:
    """Return the call that a statement of an administrator has, None when it has none."""
    if "partition" not in sql.lower():
        return None
    scanned = scan(sql)
    calls = lift_calls(scanned, PARTITION_NAMES)
    if not calls:
        return None
    call = calls[0]
    if call.function in _BY_ONE:
        raise _refused(
            sql,
            call.start,
            UnsupportedStatement,
            f"{call.function} is not offered: the files of a table change at any time.",
            "To delete rows, run `micromegas tables delete`.",
        )
    if len(calls) > 1:
        raise _refused(
            sql,
            calls[1].start,
            InvalidStatement,
            "The statement changes partitions twice.",
            "Call one function at a time.",
        )
    return _parse(sql, call)


def _parse(sql: str, call: Call) -> PartitionCall:
    names = _PARAMETERS[call.function]
    if len(call.arguments) != len(names):
        raise _refused(
            sql,
            call.start,
            InvalidStatement,
            f"{call.function} takes {len(names)} constants.",
            f"Write {call.function}({', '.join(names)}).",
        )
    view_set = ""
    for name, (text, at) in zip(names, call.arguments, strict=True):
        pattern = {"begin": _TIME, "end": _TIME, "seconds": _NUMBER}.get(name, _TEXT)
        found = pattern.fullmatch(text)
        if found is None:
            kind = {"begin": "a time", "end": "a time", "seconds": "a whole number"}.get(name, "a text")
            raise _refused(
                sql,
                at,
                InvalidStatement,
                f"The {name} of {call.function} is not {kind} as a constant.",
                "Write times as '2026-11-24T12:00:00Z'.",
            )
        if pattern is _TIME:
            _check_time(sql, call, found[1], at)
        elif name in {"view", "view set"}:
            view_set = found[1].replace("''", "'")
    return PartitionCall(function=call.function, view_set=view_set)


def _check_time(sql: str, call: Call, text: str, at: int) -> None:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise _refused(
            sql,
            at,
            InvalidStatement,
            f"{text[:_MAX_SHOWN]!r}, an argument of {call.function}, is not a time.",
            "Write times as '2026-11-24T12:00:00Z'.",
        ) from None


def _refused(
    sql: str, at: int, kind: type[InvalidStatement | UnsupportedStatement], what: str, remedy: str
) -> InvalidStatement | UnsupportedStatement:
    line, column = line_and_column(sql, at)
    return kind(what, remedy=remedy, line=line, column=column)
