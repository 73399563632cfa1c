"""Numbers with a unit per row, as in OpenTelemetry's `unit` column for metrics (UCUM): 25.3 GB, 99.5 %, 12.3 µs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from micromegas_jupyter.core.text import cut, printable
from micromegas_jupyter.notebook.formats import DURATION_NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_UNIT_CHARACTERS = 20
_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_DAY = 86_400 * 10**9
# Use the largest unit that doesn't exceed the value, taking rounding into account.
_TIMES = ((float(_DAY), "d"), *((float(size), name) for name, size in DURATION_NANOSECONDS.items()))
_TIME_SIZES = {**DURATION_NANOSECONDS, "us": 10**3, "seconds": 10**9, "d": _DAY}
_PREFIXED = {
    "By": (1.0, "B"),
    "bytes": (1.0, "B"),
    "kBy": (1e3, "B"),
    "MBy": (1e6, "B"),
    "GBy": (1e9, "B"),
    "KiBy": (2.0**10, "B"),
    "MiBy": (2.0**20, "B"),
    "GiBy": (2.0**30, "B"),
    "bit": (1.0, "bit"),
    "Hz": (1.0, "Hz"),
    "W": (1.0, "W"),
}
_ROUNDS_UP, _DIGITS, _MAX_FIXED, _MIN_FIXED = 0.9995, 3, 1e15, 1e-6


def quantity(value: float, unit: str | None) -> str:
    """Return a value with its unit, rounded to about three digits."""
    if not math.isfinite(value):
        return str(value)
    if unit in _TIME_SIZES:
        nanoseconds = value * _TIME_SIZES[unit]
        size, name = _step(nanoseconds, _TIMES)
        return f"{_rounded(nanoseconds / size)} {name}"
    if unit in _PREFIXED:
        factor, name = _PREFIXED[unit]
        size, prefix = _step(value * factor, _PREFIXES)
        return f"{_rounded(value * factor / size)} {prefix}{name}"
    name = "%" if unit == "percent" else cut(printable(unit or ""), _MAX_UNIT_CHARACTERS).translate({123: "", 125: ""})
    number = _rounded(value, decimals=2 if name == "%" else 0)
    return number if name in {"", "1"} else f"{number} {name}"


def _step(value: float, steps: Sequence[tuple[float, str]]) -> tuple[float, str]:
    return next((step for step in steps if abs(value) >= step[0] * _ROUNDS_UP), steps[-1])


def _rounded(value: float, *, decimals: int = 0) -> str:
    """Return a number with three digits, but always all digits before the decimal point."""
    if value and not _MIN_FIXED <= abs(value) < _MAX_FIXED:
        return f"{value:.2e}"
    decimals = max(decimals, _DIGITS - 1 - math.floor(math.log10(abs(value)))) if value else 0
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
