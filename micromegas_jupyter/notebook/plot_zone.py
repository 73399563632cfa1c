"""Time zones as Arrow names them, for the labels of a time axis."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

from micromegas_jupyter.notebook.words import cut, printable

_OFFSET = re.compile(r"([+-])([01][0-9]|2[0-3]):([0-5][0-9])")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_NAME_CHARACTERS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotZone:
    """A time zone and what a person is told of it."""

    zone: tzinfo
    label: str

    def moment(self, microseconds: int) -> datetime:
        """Return so many microseconds since the beginning of 1970, UTC, as a time in this zone."""
        return (_EPOCH + timedelta(microseconds=microseconds)).astimezone(self.zone)


def plot_zone(name: str | None) -> PlotZone:
    """Return the zone of that name; times without one, and of one that nobody knows, are labelled as in UTC."""
    if name is None:
        return PlotZone(zone=UTC, label="no time zone")
    if offset := _OFFSET.fullmatch(name):
        sign, hours, minutes = offset.groups()
        ahead = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1)
        return PlotZone(zone=timezone(ahead), label=f"UTC{name}" if ahead else "UTC")
    shown = cut(printable(name), _MAX_NAME_CHARACTERS)
    try:
        return PlotZone(zone=ZoneInfo(name), label=shown)
    except (ValueError, LookupError, OSError):
        return PlotZone(zone=UTC, label=f"UTC, for {shown} is not known here")
