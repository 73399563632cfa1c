"""Fewer marks that look the same: M4 for lines, one point for each spot of a scatter plot, bins for a histogram."""

from __future__ import annotations

import math

import numpy as np

_TIME_STEPS_MS = (
    *(factor * power for power in (1, 10, 100) for factor in (1, 2, 5)),
    *(factor * 1_000 for factor in (1, 2, 5, 10, 15, 30)),
    *(factor * 60_000 for factor in (1, 2, 5, 10, 15, 30)),
    *(factor * 3_600_000 for factor in (1, 2, 3, 6, 12)),
    *(factor * 86_400_000 for factor in (1, 2, 7, 14, 28, 91, 182, 365)),
)
_POINTS_PER_COLUMN = 4
_SPOTS = (240, 120)


def m4(x: np.ndarray, y: np.ndarray, *, begin: float, end: float, columns: int) -> np.ndarray:
    """Return the indices of points that draw the same line between `begin` and `end`, which are `columns` pixels apart.

    These are the first, last, lowest and highest of each column of pixels (Jugel et al., "M4: A Visualization-Oriented
    Time Series Data Aggregation", VLDB 2014), and one NaN for each gap that is at least a pixel wide. `x` ascends.
    """
    is_missing = np.isnan(y)
    chosen, missing = np.flatnonzero(~is_missing), np.flatnonzero(is_missing)
    pixel = 0.0
    if len(chosen) > _POINTS_PER_COLUMN * columns:
        pixel = (end - begin) / columns
        values = y[chosen]
        column = np.minimum(((x[chosen] - begin) / (pixel or 1.0)).astype(np.int64), columns - 1)
        starts = np.flatnonzero(np.diff(column, prepend=-1))
        counts = np.diff(starts, append=len(values))
        picked = [starts, starts + counts - 1]
        for extreme in (np.minimum, np.maximum):
            hits = np.flatnonzero(values == np.repeat(extreme.reduceat(values, starts), counts))
            picked.append(hits[np.searchsorted(hits, starts)])
        chosen = chosen[np.unique(np.concatenate(picked))]
    has_gap = (np.diff(np.searchsorted(missing, chosen)) > 0) & (np.diff(x[chosen]) >= pixel)
    gaps = missing[np.searchsorted(missing, chosen[:-1][has_gap])]
    return np.sort(np.concatenate((chosen, gaps)))


def one_per_spot(x: np.ndarray, y: np.ndarray, groups: np.ndarray, *, max_points: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of one point of each group in each spot, and how many points each stands for.

    Spots are as small as `max_points` allows. The outermost points in each direction are always among them.
    """
    chosen: np.ndarray = np.arange(len(x))
    counts: np.ndarray = np.ones(len(x))
    sides = [(values.min() / 2, values.max() / 2 - values.min() / 2) for values in (x, y)]  # halved against overflow
    share = 1.0
    while len(chosen) > max_points:
        spot = groups[chosen]
        for values, (low, size), cells in zip((x, y), sides, _SPOTS, strict=True):
            count = max(round(cells * share), 1)
            at = (values[chosen] / 2 - low) * (count / (size or 1.0))
            spot = spot * count + np.minimum(at.astype(np.int64), count - 1)
        _, first, spots = np.unique(spot, return_index=True, return_inverse=True)
        chosen, counts, share = chosen[first], np.bincount(spots, counts), share * 0.8
    outer = np.setdiff1d([find(values) for find in (np.argmin, np.argmax) for values in (x, y)], chosen)
    return np.append(chosen, outer), np.append(counts, np.ones(len(outer)))


def number_step(low: float, high: float, *, is_whole: bool, max_bins: int = 40) -> float:
    """Return the width of bins from `low` to `high`: 1, 2 or 5 times a power of ten."""
    rough = max((high / 2 - low / 2) / (max_bins / 2), max(abs(low), abs(high)) * 1e-12, 1e-290)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((factor * power for factor in (1, 2, 5) if factor * power >= rough), 10 * power)
    return max(step, 1.0) if is_whole else step


def time_step(begin_ms: float, end_ms: float, *, max_bins: int = 80) -> float:
    """Return the width of bins from `begin_ms` to `end_ms`: a step of clocks and calendars."""
    rough = (end_ms - begin_ms) / max_bins
    longest = _TIME_STEPS_MS[-1]
    return float(next((step for step in _TIME_STEPS_MS if step >= rough), math.ceil(rough / longest) * longest))
