"""Where the marks of an axis stand and what is written beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from micromegas_jupyter.notebook.plot_zone import PlotZone

_SECOND = 1_000_000
_MINUTE, _HOUR, _DAY = 60 * _SECOND, 3_600 * _SECOND, 86_400 * _SECOND
_TIME_STEPS = (
    *(factor * power for power in (1, 10, 100, 1_000, 10_000, 100_000) for factor in (1, 2, 5)),
    *(factor * _SECOND for factor in (1, 2, 5, 10, 15, 30)),
    *(factor * _MINUTE for factor in (1, 2, 5, 10, 15, 30)),
    *(factor * _HOUR for factor in (1, 2, 3, 6, 12)),
    *(factor * _DAY for factor in (1, 2, 7, 14, 30, 91, 182)),
    *(factor * power * 365 * _DAY for power in (1, 10, 100, 1_000) for factor in (1, 2, 5)),
)
_SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1.0, ""))
_SMALLEST_PLAIN, _LARGEST_PLAIN = 1e-4, 1e15
# Below this share of the values, a range is rounding, not a difference.
_SMALLEST_SHARE = 1e-12
_SMALLEST = 1e-290


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A mark of an axis.

    Attributes:
        at: Where it stands, in the axis' own unit.
        text: What is written beside it.
        below: A second line, such as the date; empty when there is none.
    """

    at: float
    text: str
    below: str = ""


def value_range(low: float, high: float) -> tuple[float, float]:
    """Return what a value axis covers: a little more than the values, from zero when that is near."""
    size = max(abs(low), abs(high))
    if size < _SMALLEST:
        return -1.0, 1.0
    if high - low < size * _SMALLEST_SHARE:
        return low - 0.1 * size, high + 0.1 * size
    if 0 <= low <= high / 2:
        return 0.0, high * 1.05
    margin = 0.05 * (high - low)
    return low - margin, high + margin


def value_marks(low: float, high: float, *, max_marks: int = 6) -> list[Mark]:
    """Return marks at round numbers from `low` to `high`."""
    rough = (high - low) / max_marks
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10, 20) if factor * power >= rough)
    places = range(math.ceil(low / step), math.floor(high / step) + 1)
    return [Mark(at=place * step, text=_number_text(place * step, step, max(abs(low), abs(high)))) for place in places]


def time_marks(begin: int, end: int, zone: PlotZone, *, max_marks: int = 7) -> list[Mark]:
    """Return marks at round times of the zone, from `begin` to `end` in microseconds since 1970, UTC."""
    rough = (end - begin) / max_marks
    step = next((step for step in _TIME_STEPS if step >= rough), _TIME_STEPS[-1])
    ahead = zone.moment(begin).utcoffset()
    shift = 0 if ahead is None else round(ahead.total_seconds()) * _SECOND
    marks: list[Mark] = []
    date = ""
    for at in range(-(-(begin + shift) // step) * step - shift, end + 1, step):
        moment = zone.moment(at)
        text, today = _clock_text(zone, at, step), moment.strftime("%Y-%m-%d")
        below = "" if step >= _DAY or today == date else today
        date = today
        marks.append(Mark(at=at, text=text, below=below))
    return marks


def _clock_text(zone: PlotZone, at: int, step: int) -> str:
    moment = zone.moment(at)
    if step >= _DAY:
        return moment.strftime("%Y-%m-%d")
    if step >= _MINUTE:
        return moment.strftime("%H:%M")
    if step >= _SECOND:
        return moment.strftime("%H:%M:%S")
    digits = 3 if step >= _SECOND // 1_000 else 6
    return f"{moment:%H:%M:%S}.{moment.microsecond:06d}"[: len("12:34:56.") + digits]


def _number_text(value: float, step: float, largest: float) -> str:
    if not _SMALLEST_PLAIN <= largest < _LARGEST_PLAIN:
        return f"{value:.3g}"
    scale, suffix = next((scale, suffix) for scale, suffix in _SCALES if largest >= scale or scale == 1.0)
    digits = max(0, -math.floor(math.log10(step / scale) + 1e-9))
    return f"{value / scale + 0.0:,.{digits}f}{suffix}"
