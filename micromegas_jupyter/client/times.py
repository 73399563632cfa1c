"""Time arguments: what a caller may write for a point in time becomes RFC 3339 text with an offset.

Where the text goes is `headers`' job.
"""

import re
from datetime import UTC, datetime
from typing import Final

from micromegas_jupyter.errors import UsageError

# RFC 3339 section 5.6, with a space allowed as its note says and any fraction up to nanoseconds.
_RFC3339: Final = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})[Tt ](?P<time>\d{2}:\d{2}:\d{2})(?:\.(?P<fraction>\d{1,9}))?"
    r"(?P<offset>[Zz]|[+-]\d{2}:\d{2})",
    re.ASCII,
)
_MICROSECOND_DIGITS: Final = 6
_EPOCH: Final = "1970-01-01T00:00:00+00:00"
_REMEDY: Final = (
    "Give a datetime with a time zone, a pandas.Timestamp with one, or RFC 3339 text such as 2026-11-24T12:00:00Z."
)

TimeArgument = datetime | str | None


def format_time(value: TimeArgument, *, name: str = "time") -> str | None:
    """Return RFC 3339 text with an offset in upstream's format; nanoseconds are kept.

    Args:
        value: An aware `datetime` (or a subclass, such as `pandas.Timestamp`), RFC 3339 text, or None.
        name: What the argument is called in a message.

    Raises:
        UsageError: There is no time zone, or it is not a time.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return _format_text(value, name)
    if not isinstance(value, datetime):
        raise UsageError(f"{name} is not a time: {type(value).__name__}.", remedy=_REMEDY)
    try:
        offset = value.utcoffset()
    except ValueError:  # pandas.NaT is a datetime that has none
        offset = None
    if offset is None:
        raise UsageError(f"{name} has no time zone.", remedy=_REMEDY)
    if offset.total_seconds() % 60:
        # RFC 3339 offsets end at minutes; historic local times have seconds.
        value = value.astimezone(UTC)
    return value.isoformat()


def format_time_range(begin: TimeArgument, end: TimeArgument, *, now: datetime) -> tuple[str | None, str | None]:
    """Return both ends of a time range, or neither.

    A server applies a range only when it is told both ends, and would silently give all rows otherwise: a missing
    begin becomes 1970, a missing end becomes `now`.

    Raises:
        UsageError: An end is not a time, or the range ends before it begins.
    """
    begin_text, end_text = format_time(begin, name="begin"), format_time(end, name="end")
    if begin_text is None and end_text is None:
        return None, None
    begin_text, end_text = begin_text or _EPOCH, end_text or now.isoformat()
    if _to_sort_key(begin_text) > _to_sort_key(end_text):
        raise UsageError("begin is after end.", remedy="Exchange them; without an end, the range ends now.")
    return begin_text, end_text


def _format_text(text: str, name: str) -> str:
    found = _RFC3339.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{name} is not RFC 3339 text with an offset.", remedy=_REMEDY)
    fraction = found["fraction"] or ""
    offset = "+00:00" if found["offset"] in {"Z", "z"} else found["offset"]
    try:
        base = datetime.fromisoformat(f"{found['date']}T{found['time']}{offset}")
        if len(fraction) <= _MICROSECOND_DIGITS:
            microsecond = int(fraction.ljust(_MICROSECOND_DIGITS, "0"))
            return base.replace(microsecond=microsecond).isoformat()
    except ValueError:
        raise UsageError(f"{name} is not a time that exists.", remedy=_REMEDY) from None
    return f"{base.replace(tzinfo=None).isoformat()}.{fraction}{offset}"


def _to_sort_key(text: str) -> tuple[datetime, str]:
    found = _RFC3339.fullmatch(text)
    if found is None:  # a datetime before the year 1000 or an offset that RFC 3339 cannot say
        raise UsageError("The time range cannot be sent.", remedy=_REMEDY)
    at = datetime.fromisoformat(f"{found['date']}T{found['time']}{found['offset']}")
    try:
        return at.astimezone(UTC), (found["fraction"] or "").ljust(9, "0")
    except OverflowError:
        raise UsageError("The time range cannot be sent.", remedy=_REMEDY) from None
