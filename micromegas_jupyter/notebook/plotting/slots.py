"""The numbers in a chart: rows in slots along an axis, and exact aggregates per slot. Independent of Vega."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import TYPE_CHECKING

import numpy as np

from micromegas_jupyter.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

ADDITIVE = frozenset({"count", "sum"})
"""The aggregates that can be summed, and thus stacked."""

_PERCENTILE = re.compile(r"p(100|\d{1,2}(?:\.\d{1,3})?)")
_SHARES = {"min": 0.0, "max": 1.0}
TIME_SLOTS, NUMBER_SLOTS, _MAX_PER_DECADE = 100, 40, 10
_DAY_SECONDS = 86_400
# Clock steps; those below a second are ones that JavaScript's times can represent.
_SECONDS = (
    1e-6, 1e-5, 1e-4, 1e-3, 5e-3, 0.02, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3_600, 10_800, 21_600, 43_200, _DAY_SECONDS,
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Slots:
    """The slot of each row along an axis, or -1, and the slots' edges: one more than there are slots."""

    codes: np.ndarray
    edges: np.ndarray
    middles: np.ndarray
    """The point at which a slot's value is drawn: the time that `date_bin` returns, or the middle of a bin."""

    starts: tuple[int, ...] = ()
    """For times, the edges as whole numbers in their type's unit."""


def check_aggregate(name: str) -> None:
    """Raise UsageError for an unknown aggregate."""
    if name not in ADDITIVE | _SHARES.keys() | {"mean"} and not _PERCENTILE.fullmatch(name):
        remedy = "Use count, sum, mean, min, max, or a percentile such as p50, p95, p99.9."
        raise UsageError(f'"{name}" is not an aggregate.', remedy=remedy)


def aggregate(cells: np.ndarray, size: int, values: np.ndarray, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Return each aggregate of the values in each cell, or NaN for empty cells.

    `cells` has the cell of each value. Percentiles are those of SQL's `percentile_cont`, not estimates.
    """
    counts = np.bincount(cells, minlength=size)
    is_empty = counts == 0
    found = {}
    ordered: np.ndarray | None = None
    for name in names:
        if name == "count":
            result = counts.astype(float)
        elif name in ("sum", "mean"):
            result = np.bincount(cells, values, size) / (1 if name == "sum" else np.maximum(counts, 1))
        else:
            if ordered is None:
                ordered = values[np.lexsort((values, cells))]
            percentile = _PERCENTILE.fullmatch(name)
            share = float(percentile[1]) / 100 if percentile else _SHARES[name]
            at = share * np.maximum(counts - 1, 0)
            below, above = np.floor(at).astype(np.int64), np.ceil(at).astype(np.int64)
            firsts = np.where(is_empty, 0, np.cumsum(counts) - counts)
            low = ordered[firsts + below] if len(ordered) else np.zeros(size)
            result = low + (ordered[firsts + above] - low) * (at - below) if len(ordered) else low
        found[name] = np.where(is_empty, np.nan, result)
    return found


def time_slots(values: np.ndarray, is_drawn: np.ndarray, per_second: int, *, bins: int) -> Slots:
    """Return slots of round durations that are aligned like those of SQL's `date_bin`; edges are in milliseconds.

    `values` are whole numbers with `per_second` units per second. If the times are farther apart than the steps, their
    distance is the step.
    """
    drawn = values[is_drawn]
    low, high = int(drawn.min()), int(drawn.max())
    rough = (high - low) / bins
    # Differences of 64-bit integers only fit into unsigned 64-bit integers.
    distances = np.unique(drawn.astype(np.uint64) - np.uint64(low % 2**64))
    spacing = int(np.diff(distances).min()) if len(distances) > 1 else per_second
    if spacing > rough:
        step = spacing
    else:
        steps = (round(seconds * per_second) for seconds in _SECONDS if seconds * per_second >= 1)
        day = _DAY_SECONDS * per_second
        step = next((step for step in steps if step >= rough), ceil(rough / day) * day)
    first = low // step * step
    codes = (values.astype(np.uint64) - np.uint64(first % 2**64)) // np.uint64(step)
    starts = [first + step * number for number in range((high - first) // step + 2)]
    edges = np.array([start * 1_000 / per_second for start in starts])
    return Slots(np.where(is_drawn, codes, 0).astype(np.int64) - ~is_drawn, edges, edges[:-1], tuple(starts))


def number_slots(values: np.ndarray, *, bins: int, is_log: bool = False) -> Slots:
    """Return bins of 1, 2, or 5 times a power of ten, or for a logarithmic axis, equal parts of powers of ten.

    NaN is in no bin. For a logarithmic axis, all values must be positive.
    """
    drawn = values[~np.isnan(values)]
    low, high = (float(drawn.min()), float(drawn.max())) if len(drawn) else (0.0, 0.0)
    if is_log and len(drawn):
        per_decade = max(1, min(_MAX_PER_DECADE, round(bins / max(log10(high) - log10(low), 1e-9))))
        places = np.arange(floor(log10(low) * per_decade) - 1, floor(log10(high) * per_decade) + 3)
        edges = 10.0 ** (places / per_decade)
        # Drop bins that are empty because logarithms are rounded.
        edges = edges[edges.searchsorted(low, "right") - 1 : edges.searchsorted(high, "right") + 1]
        middles = np.sqrt(edges[:-1] * edges[1:])
    else:
        is_whole = bool((drawn == np.floor(drawn)).all())
        rough = max((high - low) / bins, max(abs(low), abs(high)) * 1e-12, 1e-290)
        power = floor(log10(rough))
        factor = next((factor for factor in (1, 2, 5) if _decimal(factor, power) >= rough), 10)
        if is_whole and _decimal(factor, power) < 1:
            factor, power = 1, 0
        width = _decimal(factor, power)
        is_single = is_whole and width == 1  # center bins on whole numbers
        numbers = np.arange(floor(low / width), floor(high / width) + 3 - is_single)
        edges = _decimal(numbers * factor, power) - 0.5 * is_single
        if not is_single:  # drop bins that are empty because division is rounded
            edges = edges[max(edges.searchsorted(low, "right") - 1, 0) : edges.searchsorted(high, "right") + 1]
        middles = (edges[:-1] + edges[1:]) / 2
    codes = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return Slots(np.where(np.isnan(values), -1, codes), edges, middles)


def _decimal(number: float | np.ndarray, power: int) -> np.ndarray:
    """Return a number times a power of ten, rounded like a decimal literal: 0.3, not 3 * 0.1."""
    return np.multiply(number, 10.0**power) if power >= 0 else np.divide(number, 10.0**-power)


def m4(x: np.ndarray, y: np.ndarray, begin: float, end: float, columns: int) -> np.ndarray:
    """Return the indices of points that draw the same line between `begin` and `end`, `columns` pixels apart.

    These are the first, last, lowest, and highest of each column of pixels (Jugel et al., "M4: A
    Visualization-Oriented Time Series Data Aggregation", VLDB 2014), and a NaN for each gap that is at least a pixel
    wide. `x` ascends.
    """
    is_missing = np.isnan(y)
    chosen, missing, pixel = np.flatnonzero(~is_missing), np.flatnonzero(is_missing), 0.0
    if len(chosen) > 4 * columns:
        pixel = (end - begin) / columns
        column = np.minimum(((x[chosen] - begin) / (pixel or 1.0)).astype(np.int64), columns - 1)
        firsts = np.flatnonzero(np.diff(column, prepend=-1))
        counts = np.diff(firsts, append=len(column))
        picked = [firsts, firsts + counts - 1]
        for extreme in (np.minimum, np.maximum):
            hits = np.flatnonzero(y[chosen] == np.repeat(extreme.reduceat(y[chosen], firsts), counts))
            picked.append(hits[np.searchsorted(hits, firsts)])
        chosen = chosen[np.unique(np.concatenate(picked))]
    has_gap = (np.diff(np.searchsorted(missing, chosen)) > 0) & (np.diff(x[chosen]) >= pixel)
    gaps = missing[np.searchsorted(missing, chosen[:-1][has_gap])]
    return np.sort(np.concatenate((chosen, gaps)))


def one_per_spot(x: np.ndarray, y: np.ndarray, groups: np.ndarray, *, max_points: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of one point per group and spot, and the number of points that each one represents."""
    chosen: np.ndarray = np.arange(len(x))
    counts: np.ndarray = np.ones(len(x))
    cells = 250.0
    while len(chosen) > max_points:
        spots = groups[chosen]
        for values in (x, y):
            at = (values[chosen] - values.min()) / (np.ptp(values) or 1.0)
            spots = spots * (int(cells) + 1) + (at * cells).astype(np.int64)
        first, total = np.empty(spots.max() + 1, np.int64), np.bincount(spots, counts)
        first[spots[::-1]] = chosen[::-1]
        chosen, counts, cells = first[total > 0], total[total > 0], cells * 0.8
    return chosen, counts
