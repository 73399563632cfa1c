"""Upstream's functions that change partitions, called by administrators in SQL.

For a materialized view, they rebuild the rows in a range of times. Partitions of other tables are the files of Delta
tables here. Materializing or regenerating them merges small files. Retiring them is rejected, because these files are
the only copy of the rows, whereas upstream can rebuild its partitions.

DataFusion's planner finds the calls (`functions.administration`), so this module doesn't parse SQL.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from micromegas_jupyter.errors import InvalidStatement

RETIRE: Final = "retire_partitions"
_OPTIMIZE: Final = ("materialize_partitions", "regenerate_partitions")
MESSAGE_FUNCTIONS: Final = frozenset({RETIRE, *_OPTIMIZE})
#: Unsupported functions, with their number of arguments.
BY_ONE: Final[Mapping[str, int]] = {"retire_partition_by_metadata": 4, "retire_partition_by_file": 1}
PARTITION_NAMES: Final = MESSAGE_FUNCTIONS | BY_ONE.keys()
_PARAMETERS: Final = {
    RETIRE: ("view set", "instance", "begin", "end"),
    **dict.fromkeys(_OPTIMIZE, ("view", "begin", "end", "seconds")),
}
_TIMES: Final = "Write times as '2026-11-24T12:00:00Z'."
_MAX_SHOWN: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionCall:
    """One call with its relevant arguments; the time range applies to materialized views."""

    function: str
    view_set: str
    begin: datetime
    end: datetime


def may_call_partition_function(sql: str) -> bool:
    """Return whether a statement contains the name of one of the functions, without which it can't call them."""
    lower = sql.lower()
    return any(name in lower for name in MESSAGE_FUNCTIONS)


def parse_partition_call(function: str, arguments: Sequence[object]) -> PartitionCall:
    """Return a call with these arguments; an argument that isn't a constant is None."""
    names = _PARAMETERS[function]
    if len(arguments) != len(names):
        what, remedy = f"{function} takes {len(names)} constants.", f"Write {function}({', '.join(names)})."
        raise InvalidStatement(what, remedy=remedy)
    view_set, times = "", dict[str, datetime]()
    for name, value in zip(names, arguments, strict=True):
        if name in {"begin", "end"}:
            times[name] = _parse_time(name, value, function)
        elif name == "seconds":
            if not isinstance(value, int) or value < 0:
                raise _unfit(name, function, "a whole number")
        elif not isinstance(value, str):
            raise _unfit(name, function, "a string")
        elif name != "instance":
            view_set = value
    return PartitionCall(function=function, view_set=view_set, **times)


def _parse_time(name: str, value: object, function: str) -> datetime:
    found = value
    if isinstance(value, str):
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            what = f"{value[:_MAX_SHOWN]!r}, an argument of {function}, is not a time."
            raise InvalidStatement(what, remedy=_TIMES) from None
    elif isinstance(value, date) and not isinstance(value, datetime):
        found = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if not isinstance(found, datetime):
        raise _unfit(name, function, "a time")
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _unfit(name: str, function: str, kind: str) -> InvalidStatement:
    return InvalidStatement(f"The {name} of {function} is not {kind} as a constant.", remedy=_TIMES)
