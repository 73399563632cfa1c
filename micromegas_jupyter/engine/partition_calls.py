"""Upstream's functions that change partitions, as administrators call them in SQL, for the front to find.

Of a materialized view, they rebuild the rows in a range of times. Partitions of other tables are the files of Delta
tables here. To materialize or regenerate them merges small files. Retiring them is rejected, because these files are
the only copy of the rows, whereas upstream can rebuild its partitions.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from micromegas_jupyter.engine.calls import Call, lift_calls, refused
from micromegas_jupyter.engine.scanner import scan
from micromegas_jupyter.errors import UnsupportedStatement

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
_KINDS: Final = {"begin": (_TIME, "a time"), "end": (_TIME, "a time"), "seconds": (_NUMBER, "a whole number")}
_TIMES: Final = "Write times as '2026-11-24T12:00:00Z'."
_MAX_SHOWN: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionCall:
    """One call, with the arguments that matter; the range of times is for materialized views."""

    function: str
    view_set: str
    begin: datetime
    end: datetime


def find_partition_call(sql: str) -> PartitionCall | None:
    """Return the call that a statement of an administrator runs, or None. EXPLAIN runs none."""
    if "partition" not in sql.lower():
        return None
    scanned = scan(sql)
    calls = lift_calls(scanned, PARTITION_NAMES)
    if not calls or scanned.tokens[0].name == "explain":
        return None
    call = calls[0]
    if call.function in _BY_ONE:
        what = f"{call.function} is not offered: the files of a table change at any time."
        raise refused(
            sql, call.start, what, "To delete rows, run `micromegas tables delete`.", kind=UnsupportedStatement
        )
    if len(calls) > 1:
        raise refused(sql, calls[1].start, "The statement changes partitions twice.", "Call one function at a time.")
    return _parse(sql, call)


def _parse(sql: str, call: Call) -> PartitionCall:
    function, names = call.function, _PARAMETERS[call.function]
    if len(call.arguments) != len(names):
        what, remedy = f"{function} takes {len(names)} constants.", f"Write {function}({', '.join(names)})."
        raise refused(sql, call.start, what, remedy)
    view_set, times = "", dict[str, datetime]()
    for name, (text, at) in zip(names, call.arguments, strict=True):
        pattern, kind = _KINDS.get(name, (_TEXT, "a text"))
        found = pattern.fullmatch(text)
        if found is None:
            raise refused(sql, at, f"The {name} of {function} is not {kind} as a constant.", _TIMES)
        if pattern is _TIME:
            times[name] = _parse_time(found[1], sql=sql, at=at, function=function)
        if name in {"view", "view set"}:
            view_set = found[1].replace("''", "'")
    return PartitionCall(function=function, view_set=view_set, **times)


def _parse_time(text: str, *, sql: str, at: int, function: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        what = f"{text[:_MAX_SHOWN]!r}, an argument of {function}, is not a time."
        raise refused(sql, at, what, _TIMES) from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
