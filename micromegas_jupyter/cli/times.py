"""Times on a command line: RFC 3339, or so many minutes, hours or days ago."""

import re
from datetime import UTC, datetime, timedelta

from micromegas_jupyter.errors import UsageError

_RELATIVE = re.compile(r"([0-9]{1,6})([mhd])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def parse_time(text: str, *, now: datetime) -> datetime:
    """Return the moment that `text` names, aware.

    Args:
        text: RFC 3339 (without an offset: UTC), or `<n>m`, `<n>h`, `<n>d` for that long before `now`.
        now: The current time, aware.

    Raises:
        UsageError: The text is neither.
    """
    relative = _RELATIVE.fullmatch(text)
    if relative:
        return now - timedelta(**{_UNITS[relative[2]]: int(relative[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is not a time.", remedy="Use RFC 3339 (2026-01-31T12:00:00Z) or 15m, 1h, 7d for that long ago."
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
