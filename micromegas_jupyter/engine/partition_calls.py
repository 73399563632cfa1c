"""Upstream's functions that change partitions, as administrators call them in SQL, for the front to find.

Partitions are the files of Delta tables here: to retire is to delete rows by when they came, to materialize or to
regenerate is to make few large files of many small ones.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
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
    """One call with its arguments; the times are aware."""

    function: str
    view_set: str
    begin: datetime
    end: datetime
    instance: str = field(default="global")


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
            f"Delete rows by when they came: {RETIRE}(…).",
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
    values: dict[str, str] = {}
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
        values[name] = found[found.lastindex or 0]
    times = {
        name: _parse_time(sql, call, values[name], call.arguments[names.index(name)][1]) for name in ("begin", "end")
    }
    view_set = values.get("view set", values.get("view", "")).replace("''", "'")
    return PartitionCall(
        function=call.function, view_set=view_set, instance=values.get("instance", "global").replace("''", "'"), **times
    )


def _parse_time(sql: str, call: Call, text: str, at: int) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise _refused(
            sql,
            at,
            InvalidStatement,
            f"{text[:_MAX_SHOWN]!r}, an argument of {call.function}, is not a time.",
            "Write times as '2026-11-24T12:00:00Z'.",
        ) from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def _refused(
    sql: str, at: int, kind: type[InvalidStatement | UnsupportedStatement], what: str, remedy: str
) -> InvalidStatement | UnsupportedStatement:
    line, column = line_and_column(sql, at)
    return kind(what, remedy=remedy, line=line, column=column)
