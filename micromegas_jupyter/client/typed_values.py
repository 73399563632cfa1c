"""One Python value becomes one Arrow scalar that means the same, or a refusal.

Which values a statement needs is `parameters`' job.
"""

import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final

import pyarrow as pa

from micromegas_jupyter.errors import UsageError

# The data model's timestamps (COMPAT: TS). Text zones of the same meaning compare equal, but one is enough.
_ZONE: Final = "+00:00"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_MAX_INT64: Final = 2**63 - 1
_MAX_UINT64: Final = 2**64 - 1


def to_scalar(value: object, *, name: str) -> pa.Scalar:
    """Return `value` as a typed Arrow scalar.

    Times become nanoseconds in UTC, or microseconds outside 1677 to 2262; durations likewise. A UUID becomes text,
    as the data model has it. numpy scalars count as the Python values they stand for.

    Args:
        value: None, bool, int, float, str, bytes, Decimal, date, aware datetime, timedelta, `pandas.Timestamp`,
            `pandas.Timedelta`, a numpy or Arrow scalar, or a UUID.
        name: The parameter's name, for messages, which never hold the value.

    Raises:
        UsageError: Another type, a time without a zone, or a value that no type holds exactly.
    """
    try:
        return _convert(_unwrap(value), name)
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise UsageError(
            f"The value of :{name} cannot be sent: no SQL type holds it.", remedy="Give a smaller or simpler value."
        ) from error


def _convert(value: object, name: str) -> pa.Scalar:  # noqa: C901, PLR0911, PLR0912 - one line for each type
    match value:
        case None:
            return pa.scalar(None)
        case pa.Scalar():
            return _convert(value.as_py(), name)
        case bool():
            return pa.scalar(value, pa.bool_())
        case int():
            return _integer(int(value))
        case float():
            return pa.scalar(float(value), pa.float64())
        case str():
            return pa.scalar(str.__str__(value), pa.string())
        case bytes() | bytearray() | memoryview():
            return pa.scalar(bytes(value), pa.binary())
        case Decimal():
            return pa.scalar(value)
        case datetime():
            return _timestamp(value, name)
        case date():
            return pa.scalar(value, pa.date32())
        case timedelta():
            return _scaled(_total_nanoseconds(value), pa.duration("ns"), pa.duration("us"))
        case uuid.UUID():
            return pa.scalar(str(value), pa.string())
        case Enum():
            raise UsageError(
                f"The value of :{name} cannot be bound: it is a member of {type(value).__name__}.",
                remedy="Bind its value: .value.",
            )
        case _:
            raise UsageError(
                f"The value of :{name} cannot be bound: it is of type {type(value).__name__}.",
                remedy="Bind numbers, text, bytes, times with a zone, durations, None, or a list of these.",
            )


def _unwrap(value: object) -> object:
    """Return the Python value that a numpy scalar or a pandas missing value stands for."""
    kind = type(value)
    if kind.__module__.partition(".")[0] == "numpy" and hasattr(value, "dtype") and not getattr(value, "shape", ()):
        return _unwrap_numpy(value)
    if kind.__name__ in {"NaTType", "NAType"} and kind.__module__.startswith("pandas."):
        return None
    return value


def _unwrap_numpy(value: Any) -> object:
    if value.dtype.kind != "m":
        # A numpy time has no zone: as a naive datetime it is refused with the right words.
        return value.astype("datetime64[us]").item() if value.dtype.kind == "M" else value.item()
    import pandas as pd

    duration: object = pd.Timedelta(value)
    return None if duration is pd.NaT else duration


def _integer(value: int) -> pa.Scalar:
    if -_MAX_INT64 - 1 <= value <= _MAX_INT64:
        return pa.scalar(value, pa.int64())
    if 0 < value <= _MAX_UINT64:
        return pa.scalar(value, pa.uint64())
    return pa.scalar(Decimal(value))


def _timestamp(value: datetime, name: str) -> pa.Scalar:
    if value.utcoffset() is None:
        raise UsageError(
            f"The time :{name} has no time zone.", remedy="Give it one, for example datetime.now(timezone.utc)."
        )
    nanoseconds = _total_nanoseconds(value.astimezone(UTC) - _EPOCH)
    return _scaled(nanoseconds, pa.timestamp("ns", _ZONE), pa.timestamp("us", _ZONE))


def _total_nanoseconds(duration: timedelta) -> int:
    # pandas.Timedelta is a timedelta with nanoseconds of its own.
    return (duration // _MICROSECOND) * 1000 + int(getattr(duration, "nanoseconds", 0))


def _scaled(nanoseconds: int, exact: pa.DataType, coarse: pa.DataType) -> pa.Scalar:
    if abs(nanoseconds) <= _MAX_INT64:
        return pa.scalar(nanoseconds, pa.int64()).cast(exact)
    return pa.scalar(nanoseconds // 1000, pa.int64()).cast(coarse)
