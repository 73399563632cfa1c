"""Times that a person writes on a command or a magic: RFC 3339, or minutes, hours or days before or after now."""

import re
from datetime import UTC, datetime, timedelta

from micromegas_jupyter.errors import UsageError

_RELATIVE = re.compile(r"([0-9]{1,6})([mhd])")
_ABSOLUTE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})?"
)
_MAX_SHOWN_CHARACTERS = 60
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def parse_time(text: str, *, now: datetime, is_future: bool = False) -> datetime:
    """Return the time that `text` names, aware.

    Args:
        text: RFC 3339 (without an offset: UTC, in a notebook and on a command line), or `<n>m`, `<n>h`, `<n>d` ago.
        now: The current time, aware.
        is_future: Whether the relative forms count from now on instead.
    """
    try:
        if relative := _RELATIVE.fullmatch(text):
            distance = timedelta(**{_UNITS[relative[2]]: int(relative[1])})
            return now + distance if is_future else now - distance
        if _ABSOLUTE.fullmatch(text):
            time = datetime.fromisoformat(text.upper())
            return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        pass  # a month 13, or more days than there are years
    raise UsageError(
        f"{text[:_MAX_SHOWN_CHARACTERS]!r} is not a time.",
        remedy=f"Use 15m, 1h or 7d for that long {'from now' if is_future else 'ago'}, or RFC 3339 such as "
        "2026-01-31T12:00:00Z.",
    )


def parse_range(begin: str | None, end: str | None, *, now: datetime) -> tuple[datetime | None, datetime | None]:
    """Return the range of `--begin` and `--end`; a begin alone lasts until now."""
    if begin is None:
        if end is not None:
            raise UsageError("--end needs --begin.", remedy="Give both, or --begin alone for a range up to now.")
        return None, None
    first = parse_time(begin, now=now)
    last = now if end is None else parse_time(end, now=now)
    if first > last:
        raise UsageError("--begin is after --end.", remedy="Swap the two.")
    return first, last
