"""PEP 249's type objects, which equal the Arrow types in a cursor's description, and its constructors."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time
from functools import partial
from typing import Final

import pyarrow as pa

_is = pa.types


class TypeObject:
    """Equals every Arrow type that one of `checks` accepts; for a dictionary, its value type counts."""

    def __init__(self, *checks: Callable[[pa.DataType], bool]) -> None:
        self._checks = checks

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, pa.DataType):
            return self is other
        kind = other.value_type if _is.is_dictionary(other) else other
        return any(check(kind) for check in self._checks)

    __hash__ = object.__hash__


STRING: Final = TypeObject(_is.is_string, _is.is_large_string, _is.is_string_view)
BINARY: Final = TypeObject(_is.is_binary, _is.is_large_binary, _is.is_binary_view, _is.is_fixed_size_binary)
NUMBER: Final = TypeObject(_is.is_integer, _is.is_floating, _is.is_decimal, _is.is_boolean)
DATETIME: Final = TypeObject(_is.is_timestamp, _is.is_date, _is.is_time)
ROWID: Final = TypeObject()

Binary: Final = bytes
Date: Final = date
Time: Final = time
#: Times are bound with a time zone.
Timestamp: Final = partial(datetime, tzinfo=UTC)
TimestampFromTicks: Final = partial(datetime.fromtimestamp, tz=UTC)


def DateFromTicks(ticks: float) -> date:  # noqa: N802 - PEP 249's name
    """Return the UTC date for seconds since 1970."""
    return TimestampFromTicks(ticks).date()


def TimeFromTicks(ticks: float) -> time:  # noqa: N802 - PEP 249's name
    """Return the UTC time of day for seconds since 1970."""
    return TimestampFromTicks(ticks).time()
