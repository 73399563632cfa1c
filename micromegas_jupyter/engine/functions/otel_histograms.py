"""SQL functions for the `histogram` column: quantile, merge, increase, and buckets. All process whole columns."""

import functools
import threading
from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datafusion import Accumulator

from micromegas_jupyter.engine.functions.histograms import HISTOGRAM, MAX_BINS
from micromegas_jupyter.errors import InvalidStatement, MicromegasError
from micromegas_jupyter.telemetry.histograms import (
    MAX_SCALE,
    MIN_SCALE,
    OTEL_HISTOGRAM,
    Lists,
    Numbers,
    build_histograms,
)

BUCKETS: Final = pa.list_(pa.struct({"lower": pa.float64(), "upper": pa.float64(), "count": pa.int64()}))
_MAX_SPREAD: Final = 4096  # indices between the first and the last bucket of a merged histogram
_WAITING_ROWS: Final = 65_536  # across all groups
_WAITING_SLICES: Final = 8192  # a slice of a few rows keeps its whole batch in memory
_DENSE: Final = 4  # maximum ratio of a sum table's size to the number of buckets
_ROW_SHIFT: Final = 33  # a bucket's key is its row, followed by its index, a signed 32-bit integer


_Columns = dict[str, pa.Array | Numbers | Lists]


class _Parts:
    """The parts of a histogram column as arrays, each read on demand; null rows have no buckets."""

    def __init__(self, column: pa.Array) -> None:
        self.column = column
        self.length = len(column)
        fields = column.flatten() if column.null_count else _fields(column)
        self._parts = dict(zip(OTEL_HISTOGRAM.names, fields, strict=True))
        self.is_valid: Numbers = column.is_valid().to_numpy(zero_copy_only=False)
        self.is_exponential: Numbers = self._parts["scale"].is_valid().to_numpy(zero_copy_only=False)
        scale = self.scale
        for indices, counts in ((self.indices, self.counts), (self.negative_indices, self.negative_counts)):
            is_explicit = ~self.is_exponential[indices.rows] if not self.is_exponential.all() else None
            wrong = not np.array_equal(indices.lengths, counts.lengths) or (counts.values < 0).any()
            if not wrong and is_explicit is not None:
                at, ends = indices.values[is_explicit], self.bounds.lengths[indices.rows[is_explicit]]
                wrong = ((at < 0) | (at > ends)).any()
            if wrong or (scale < MIN_SCALE).any() or (scale > MAX_SCALE).any():
                raise InvalidStatement(
                    "A histogram's buckets are inconsistent with its bounds, counts, or scale.",
                    remedy="Pass the histogram column, or the result of a histogram function.",
                )

    def _read(self, name: str, missing: float) -> Numbers:
        part = self._parts[name]
        found: Numbers = (pc.fill_null(part, missing) if part.null_count else part).to_numpy(zero_copy_only=False)
        return found

    def _list(self, name: str) -> Lists:
        part = self._parts[name]
        if part.null_count == len(part):
            return Lists(part.values.slice(0, 0).to_numpy(), np.zeros(len(part), np.int64))
        if part.null_count:
            part = pc.fill_null(part, pa.scalar([], part.type))
        offsets = part.offsets.to_numpy()
        values = part.values[int(offsets[0]) : int(offsets[-1])]
        if values.null_count:
            values = pc.fill_null(values, 0)
        return Lists(values.to_numpy(zero_copy_only=False), np.diff(offsets).astype(np.int64))

    count = functools.cached_property(lambda self: self._read("count", 0))
    sum = functools.cached_property(lambda self: self._read("sum", np.nan))
    min = functools.cached_property(lambda self: self._read("min", np.nan))
    max = functools.cached_property(lambda self: self._read("max", np.nan))
    scale = functools.cached_property(lambda self: self._read("scale", 0))
    zero_count = functools.cached_property(lambda self: self._read("zero_count", 0))
    zero_threshold = functools.cached_property(lambda self: self._read("zero_threshold", 0.0))
    bounds = functools.cached_property(lambda self: self._list("bounds"))
    indices = functools.cached_property(lambda self: self._list("indices"))
    counts = functools.cached_property(lambda self: self._list("counts"))
    negative_indices = functools.cached_property(lambda self: self._list("negative_indices"))
    negative_counts = functools.cached_property(lambda self: self._list("negative_counts"))


def _fields(column: pa.Array) -> list[pa.Array]:
    return [column.field(at) for at in range(column.type.num_fields)]


class _Ranges(NamedTuple):
    """The nonempty buckets of all rows, in ascending order per row."""

    rows: Numbers
    lower: Numbers
    upper: Numbers
    counts: Numbers
    lengths: Numbers  # per row

    @property
    def starts(self) -> Numbers:
        starts: Numbers = np.cumsum(self.lengths) - self.lengths
        return starts


@np.errstate(over="ignore", invalid="ignore")
def _find_ranges(parts: _Parts) -> _Ranges:
    """Return the edges of all buckets; open buckets have infinite edges."""
    positive, negative = parts.indices, parts.negative_indices
    zeros = np.flatnonzero(parts.zero_count > 0)
    lengths = positive.lengths + negative.lengths
    lengths[zeros] += 1
    starts, total = np.cumsum(lengths) - lengths, int(lengths.sum())
    lower, upper, counts = np.empty(total), np.empty(total), np.empty(total, np.int64)
    step = np.exp2(-parts.scale.astype(float))
    # Negative buckets are first, in reverse order, then the zero bucket, then the positive ones.
    rows = negative.rows
    at = (starts + negative.lengths - 1)[rows] - (np.arange(len(rows)) - negative.starts[rows])
    lower[at], upper[at] = (-np.exp2(step[rows] * (negative.values + more)) for more in (1.0, 0.0))
    counts[at] = parts.negative_counts.values
    at = (starts + negative.lengths)[zeros]
    has_negative, has_positive = negative.lengths[zeros] > 0, positive.lengths[zeros] > 0
    threshold = parts.zero_threshold[zeros]
    lower[at] = np.where(has_negative | ~has_positive, -threshold, 0.0)
    upper[at] = np.where(has_positive | ~has_negative, threshold, 0.0)
    counts[at] = parts.zero_count[zeros]
    rows = positive.rows
    at = (starts + lengths - positive.lengths)[rows] + np.arange(len(rows)) - positive.starts[rows]
    lower[at], upper[at] = (
        np.where(
            parts.is_exponential[rows],
            np.exp2(step[rows] * (positive.values + more)),
            _bound(parts.bounds, rows, positive.values + more - 1),
        )
        for more in (0, 1)
    )
    counts[at] = parts.counts.values
    return _Ranges(np.repeat(np.arange(parts.length), lengths), lower, upper, counts, lengths)


def _bound(bounds: Lists, rows: Numbers, at: Numbers) -> Numbers:
    """Return bounds by position in their rows; infinite before the first and after the last."""
    inside = (at >= 0) & (at < bounds.lengths[rows])
    found = np.where(at < 0, -np.inf, np.inf)
    found[inside] = bounds.values[(bounds.starts[rows] + at)[inside]]
    return found


def _closed(parts: _Parts, ranges: _Ranges) -> tuple[Numbers, Numbers]:
    """Return finite edges: minimum and maximum if known, otherwise 0 and the last bound (like Prometheus)."""
    rows, is_exponential = ranges.rows, parts.is_exponential[ranges.rows]
    least, greatest = parts.min[rows], parts.max[rows]
    first = np.where(np.isfinite(ranges.upper), np.minimum(ranges.upper, 0.0), 0.0)
    lower = np.where(np.isneginf(ranges.lower), np.where(np.isfinite(least), least, first), ranges.lower)
    last = np.where(is_exponential, np.finfo(float).max, lower)
    upper = np.where(np.isposinf(ranges.upper), np.where(np.isfinite(greatest), greatest, last), ranges.upper)
    return lower, upper


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def quantile(column: pa.Array, ratios: pa.Array) -> pa.Array:
    """Return the values at these ratios (quantiles).

    Values are assumed to be distributed evenly in explicit buckets and in the zero bucket, and exponentially in
    exponential buckets, like in Prometheus 3. Results are never outside of the minimum and maximum.
    """
    parts = _Parts(column)
    ranges = _find_ranges(parts)
    wanted = pc.fill_null(ratios, np.nan).to_numpy(zero_copy_only=False)
    # Sums over all rows may wrap around, but differences within a row are exact, regardless of earlier rows.
    running = np.concatenate([[0], np.cumsum(ranges.counts)])
    before = running[ranges.starts]
    totals = running[ranges.starts + ranges.lengths] - before
    known = parts.is_valid & (totals > 0) & (wanted >= 0) & (wanted <= 1)
    rank = np.maximum(wanted * totals, 1e-9)
    is_below = np.concatenate([[0], np.cumsum(running[1:] - before[ranges.rows] < rank[ranges.rows])])
    rows = np.flatnonzero(known)
    first, lengths, rank = ranges.starts[rows], ranges.lengths[rows], rank[rows]
    at = first + np.minimum(is_below[first + lengths] - is_below[first], lengths - 1)
    share = np.clip((rank - (running[at] - before[rows])) / ranges.counts[at], 0, 1)
    lower, upper = (edges[at] for edges in _closed(parts, ranges))
    is_exponential = parts.is_exponential[rows] & (lower * upper > 0)
    found = np.where(is_exponential, lower * (upper / lower) ** share, lower + (upper - lower) * share)
    result = np.full(parts.length, np.nan)
    result[rows] = np.fmin(np.fmax(found, parts.min[rows]), parts.max[rows])
    return pa.array(result, pa.float64(), mask=~known)


def buckets(column: pa.Array) -> pa.Array:
    """Return the edges and count of each nonempty bucket, ascending; the outermost edges may be infinite."""
    parts = _Parts(column)
    ranges = _find_ranges(parts)
    values = pa.StructArray.from_arrays(
        [pa.array(one) for one in (ranges.lower, ranges.upper, ranges.counts)], fields=list(BUCKETS.value_type)
    )
    ends = np.concatenate([[0], np.cumsum(ranges.lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), values, type=BUCKETS, mask=pa.array(~parts.is_valid))


def to_bins(column: pa.Array, starts: pa.Array, ends: pa.Array, numbers: pa.Array) -> pa.Array:
    """Return histograms with equal-width bins; a bucket's values are distributed evenly over its bins."""
    parts = _Parts(column)
    ranges = _find_ranges(parts)
    lowers, uppers = _closed(parts, ranges)
    found: list[dict[str, object] | None] = []
    shapes = zip(starts.to_pylist(), ends.to_pylist(), numbers.to_pylist(), strict=True)
    for row, ((start, end, bins), first) in enumerate(zip(shapes, ranges.starts.tolist(), strict=True)):
        if not parts.is_valid[row] or start is None or end is None or bins is None:
            found.append(None)
            continue
        if not np.isfinite([start, end]).all() or start > end or not 1 <= bins <= MAX_BINS:
            raise InvalidStatement(
                f"histogram_to_bins requires a finite start and end, with start <= end, and 1 to {MAX_BINS} bins.",
                remedy="For example: histogram_to_bins(histogram, 0.0, 1000.0, 50).",
            )
        own = slice(first, first + int(ranges.lengths[row]))
        lower, upper, counts = lowers[own], uppers[own], ranges.counts[own]
        edges = np.linspace(start, end, bins + 1)[1:-1]
        width = np.where(upper > lower, upper - lower, 1.0)
        below = np.array(
            [(counts * np.where(upper > lower, ((x - lower) / width).clip(0, 1), x > lower)).sum() for x in edges]
        )
        total = int(counts.sum())
        running = np.concatenate([[0], np.rint(below), [total]])
        least, greatest = (lower[0], upper[-1]) if total else (start, end)
        found.append(
            {
                "start": start,
                "end": end,
                "min": float(parts.min[row] if np.isfinite(parts.min[row]) else least),
                "max": float(parts.max[row] if np.isfinite(parts.max[row]) else greatest),
                "sum": float(np.nan_to_num(parts.sum[row])),
                "sum_sq": float((counts * ((lower + upper) / 2) ** 2).sum()),
                "count": total,
                "bins": np.diff(running).astype(np.int64).tolist(),
            }
        )
    return pa.array(found, HISTOGRAM)


@np.errstate(invalid="ignore")
def increase(column: pa.Array, starts: pa.Array, previous: pa.Array, previous_starts: pa.Array) -> pa.Array:
    """Return the increase since the previous point of a cumulative series; null without a previous point.

    After a reset, the increase is the whole point. Resets are: another start, fewer values in a bucket, other bounds,
    or a finer scale.
    """
    now, before = _Parts(column), _Parts(previous)
    is_same_start = pc.fill_null(pc.equal(starts, previous_starts), fill_value=True)  # null if a sender omits it
    goes_on: Numbers = (
        is_same_start.to_numpy(zero_copy_only=False)
        & now.is_valid
        & before.is_valid
        & (now.count >= before.count)
        & (now.is_exponential == before.is_exponential)
        & (now.scale <= before.scale)
        & (now.zero_threshold >= before.zero_threshold)
        & (now.bounds.lengths == before.bounds.lengths)
    )
    compared = np.flatnonzero(goes_on & ~now.is_exponential)
    ours, theirs = (_positions(one.bounds, compared) for one in (now, before))
    differs = now.bounds.values[ours] != before.bounds.values[theirs]
    goes_on[np.repeat(compared, now.bounds.lengths[compared])[differs]] = False
    shift = np.clip(before.scale - now.scale, 0, 31)
    first = np.where(now.zero_threshold > before.zero_threshold, _first_above(now.zero_threshold, now.scale), -np.inf)
    zeros_before = before.zero_count.astype(np.int64)
    sides = []
    for prefix in ("", "negative_"):
        (indices, counts), (old_indices, old_counts) = (
            (getattr(one, f"{prefix}indices"), getattr(one, f"{prefix}counts")) for one in (now, before)
        )
        rows = old_indices.rows
        inside = old_indices.values >> shift[rows] < first[rows]  # for a zero bucket that became wider
        np.add.at(zeros_before, rows[inside], old_counts.values[inside])
        old_indices, old_counts = (
            Lists.of_rows(one.values[~inside], rows[~inside], before.length) for one in (old_indices, old_counts)
        )
        sides.append((indices, counts, old_indices, old_counts))
    differences = [_subtract(*side, shift, goes_on) for side in sides]
    for rows, _, left in differences:
        goes_on[rows[left < 0]] = False  # an unannounced reset
    zero_count = now.zero_count - zeros_before
    goes_on &= zero_count >= 0
    parts: _Columns = {}
    for prefix, side in zip(("", "negative_"), sides, strict=True):
        rows, indices, left = _subtract(*side, shift, goes_on)
        used = left > 0
        parts[f"{prefix}indices"] = Lists.of_rows(indices[used], rows[used], now.length)
        parts[f"{prefix}counts"] = Lists.of_rows(left[used], rows[used], now.length)
    whole = dict(zip(OTEL_HISTOGRAM.names, column.flatten(), strict=True))
    parts |= {name: whole[name] for name in ("bounds", "scale", "zero_threshold")}
    # A cumulative point's minimum and maximum cover its entire lifetime.
    ended = pa.array(~goes_on)
    parts |= {name: pc.if_else(ended, whole[name], pa.scalar(None, pa.float64())) for name in ("min", "max")}
    parts["count"] = np.where(goes_on, now.count - before.count, now.count)
    parts["sum"] = pa.array(np.where(goes_on, now.sum - before.sum, now.sum), pa.float64(), from_pandas=True)
    zero_count = np.where(goes_on, zero_count, now.zero_count)
    parts["zero_count"] = pa.array(zero_count, pa.int64(), mask=~now.is_exponential)
    return build_histograms(parts, ~(now.is_valid & before.is_valid))


def _positions(lists: Lists, rows: Numbers) -> Numbers:
    lengths = lists.lengths[rows]
    starts = np.repeat(lists.starts[rows] - (np.cumsum(lengths) - lengths), lengths)
    positions: Numbers = starts + np.arange(len(starts))
    return positions


def _subtract(  # noqa: PLR0913, PLR0917 - two columns of buckets
    indices: Lists, counts: Lists, old_indices: Lists, old_counts: Lists, shift: Numbers, goes_on: Numbers
) -> tuple[Numbers, Numbers, Numbers]:
    """Return row, index, and count of each bucket, minus the earlier counts of continuing rows, on a finer scale."""
    old_rows = old_indices.rows
    used = goes_on[old_rows]
    old_rows = old_rows[used]
    rows = np.concatenate([indices.rows, old_rows])
    at = np.concatenate([indices.values, old_indices.values[used] >> shift[old_rows]])
    return _add_up(rows, at, np.concatenate([counts.values, -old_counts.values[used]]))


def _add_up(rows: Numbers, indices: Numbers, counts: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Return the total count per row and index, ascending; dense results omit zeros."""
    if not len(rows):
        return rows, indices, counts
    low, height = int(indices.min()), int(rows.max()) + 1
    width = int(indices.max()) - low + 1
    if width * height <= _DENSE * len(rows):
        sums = np.zeros(width * height, np.int64)  # integers stay exact beyond 2^53
        np.add.at(sums, rows * width + (indices - low), counts)
        keys = np.flatnonzero(sums)
        return keys // width, keys % width + low, sums[keys]
    keys = (rows.astype(np.int64) << _ROW_SHIFT) + indices
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    chosen = order[first]
    return rows[chosen], indices[chosen], np.add.reduceat(counts[order], first)


class MergePool:
    """The pending input of a statement's groups, summed together because one call per group is much slower."""

    def __init__(self, failures: list[MicromegasError]) -> None:
        self._failures = failures
        self._lock = threading.Lock()
        self._waiting: dict[Merge, None] = {}
        self._rows = self._slices = 0

    def add(self, group: "Merge", column: pa.Array) -> None:
        """Add a slice of histograms to a group."""
        with self._lock:
            group.parts.append(column)
            self._waiting[group] = None
            self._rows += len(column)
            self._slices += 1
            if self._slices >= _WAITING_SLICES or self._rows >= _WAITING_ROWS:
                self._fold()

    def total(self, group: "Merge") -> pa.Scalar:
        """Return the sum of a group; null without histograms."""
        with self._lock:
            if group in self._waiting:
                self._fold()
        return group.parts[0][0] if group.parts else pa.scalar(None, OTEL_HISTOGRAM)

    def _fold(self) -> None:
        groups, self._waiting = list(self._waiting), {}
        self._rows = self._slices = 0
        numbers = np.repeat(np.arange(len(groups)), [sum(map(len, one.parts)) for one in groups])
        try:
            merged = merge_groups(
                pa.concat_arrays([part for one in groups for part in one.parts]), numbers, len(groups)
            )
        except MicromegasError as error:
            self._failures.append(error)
            raise
        for number, group in enumerate(groups):
            group.parts = [merged.slice(number, 1)]


class Merge(Accumulator):
    """`histogram_merge(histogram)`: the sum; explicit histograms are reduced to their common bounds."""

    def __init__(self, pool: MergePool) -> None:
        self._pool = pool
        self.parts: list[pa.Array] = []

    def update(self, *values: pa.Array) -> None:
        """Add histograms."""
        self._pool.add(self, values[0])

    def merge(self, states: list[pa.Array]) -> None:
        """Add sums."""
        self.update(states[0])

    def state(self) -> list[pa.Scalar]:
        """Return the sum so far."""
        return [self.evaluate()]

    def evaluate(self) -> pa.Scalar:
        """Return the sum; null without histograms."""
        return self._pool.total(self)


def merge_groups(column: pa.Array, groups: Numbers, count: int) -> pa.Array:
    """Return the sums of histograms by group number, for `count` groups; null for empty groups."""
    keep: Numbers = column.is_valid().to_numpy(zero_copy_only=False)
    counted = pc.fill_null(column.field("count"), 0).to_numpy(zero_copy_only=False) > 0
    # Empty histograms don't affect the minimum, maximum, bounds, or scale.
    has_counted = np.zeros(count, bool)
    has_counted[groups[keep & counted]] = True
    idle = np.flatnonzero(keep & ~has_counted[groups])
    keep &= counted
    keep[idle[np.unique(groups[idle], return_index=True)[1]]] = True
    if not keep.all():
        column, groups = column.filter(pa.array(keep)), groups[keep]
    parts = _Parts(column)
    if parts.is_exponential.any() and not parts.is_exponential.all():
        is_exponential = np.zeros(count, bool)
        is_exponential[groups[parts.is_exponential]] = True
        if is_exponential[groups[~parts.is_exponential]].any():
            raise InvalidStatement(
                "histogram_merge can't merge explicit histograms with exponential ones.",
                remedy="Add histogram['scale'] IS NULL to GROUP BY, or select one kind with WHERE.",
            )
        exponential, explicit = (
            merge_groups(column.filter(pa.array(mask)), groups[mask], count)
            for mask in (parts.is_exponential, ~parts.is_exponential)
        )
        return pc.if_else(pa.array(is_exponential), exponential, explicit)
    is_empty = np.ones(count, bool)
    is_empty[groups] = False
    merged: _Columns = {"count": _fold_groups(np.add, parts.count, groups, np.zeros(count, np.int64))}
    for name, add, start in (("sum", np.add, 0.0), ("min", np.minimum, np.inf), ("max", np.maximum, -np.inf)):
        found = _fold_groups(add, getattr(parts, name), groups, np.full(count, start))
        merged[name] = pa.array(found, pa.float64(), from_pandas=True)
    merge = _merge_exponential if parts.is_exponential.any() else _merge_explicit
    return build_histograms(merged | merge(parts, groups, count), is_empty if is_empty.any() else None)


@np.errstate(invalid="ignore")
def _fold_groups(add: np.ufunc, values: Numbers, groups: Numbers, result: Numbers) -> Numbers:
    add.at(result, groups, values)
    return result


def _merge_explicit(parts: _Parts, groups: Numbers, count: int) -> _Columns:
    bounds, indices = parts.bounds, parts.indices.values
    rows = parts.indices.rows
    found, first = np.unique(groups, return_index=True)
    first_of = np.zeros(count, np.int64)
    first_of[found] = first
    pattern, length = first_of[groups], bounds.lengths[0] if len(bounds.lengths) else 0
    if (bounds.lengths == length).all():
        table = bounds.values.reshape(len(bounds.lengths), length)
        differs = (table != table[pattern]).any(axis=1)
    else:
        differs = bounds.lengths != bounds.lengths[pattern]
        alike = np.flatnonzero(~differs)
        ours, theirs = (bounds.values[_positions(bounds, one)] for one in (alike, pattern[alike]))
        differs[np.repeat(alike, bounds.lengths[alike])[ours != theirs]] = True
    lengths = np.zeros(count, np.int64)
    lengths[found] = bounds.lengths[first]
    common = np.split(bounds.values[_positions(bounds, first)], np.cumsum(lengths)[:-1])
    for group in np.unique(groups[differs]).tolist():
        own = np.flatnonzero(groups == group)
        values, numbers = np.unique(bounds.values[_positions(bounds, own)], return_counts=True)
        common[group] = values[numbers == len(own)]
        at = np.flatnonzero(groups[rows] == group)
        indices = indices.astype(np.int64)
        indices[at] = np.searchsorted(common[group], _bound(bounds, rows[at], indices[at]))
    used, indices, added = _add_up(groups[rows], indices, parts.counts.values)
    lists = Lists(np.concatenate([np.zeros(0), *common]), np.array([len(one) for one in common], np.int64))
    return {"bounds": lists, **_buckets("", used, indices, added, count)}


def _merge_exponential(parts: _Parts, groups: Numbers, count: int) -> _Columns:
    scale = _fold_groups(np.minimum, parts.scale, groups, np.full(count, MAX_SCALE))
    threshold = _fold_groups(np.maximum, parts.zero_threshold, groups, np.zeros(count))
    shift, found = parts.scale - scale[groups], []
    for indices, counts in ((parts.indices, parts.counts), (parts.negative_indices, parts.negative_counts)):
        rows = indices.rows
        shifted = indices.values.astype(np.int64) >> shift[rows]
        found.append(_add_up(groups[rows], shifted, counts.values))
    while (is_wide := (scale > MIN_SCALE) & _are_wide(found, count)).any():
        scale = scale - is_wide
        found = [_add_up(rows, at >> is_wide[rows].astype(np.int64), added) for rows, at, added in found]
    zero_count = _fold_groups(np.add, parts.zero_count, groups, np.zeros(count, np.int64))
    merged: _Columns = {}
    first = _first_above(threshold, scale)
    for prefix, (rows, at, added) in zip(("", "negative_"), found, strict=True):
        inside = at < first[rows]  # of the widest zero bucket
        np.add.at(zero_count, rows[inside], added[inside])
        merged |= _buckets(prefix, rows[~inside], at[~inside], added[~inside], count)
    return merged | {"scale": scale.astype(np.int32), "zero_count": zero_count, "zero_threshold": threshold}


@np.errstate(divide="ignore")
def _first_above(threshold: Numbers, scale: Numbers) -> Numbers:
    """Return the first exponential bucket that is not inside the zero bucket."""
    first: Numbers = np.floor(np.log2(threshold) * np.exp2(scale.astype(float)) + 1e-9)
    return first


def _are_wide(found: Iterable[tuple[Numbers, Numbers, Numbers]], count: int) -> Numbers:
    """Return which rows have buckets that are too far apart."""
    result = np.zeros(count, bool)
    for rows, at, _ in found:
        if len(rows):
            starts = np.flatnonzero(np.concatenate([[True], rows[1:] != rows[:-1]]))
            ends = np.append(starts[1:], len(rows)) - 1
            result[rows[starts]] |= at[ends] - at[starts] >= _MAX_SPREAD
    return result


def _buckets(prefix: str, rows: Numbers, indices: Numbers, counts: Numbers, count: int) -> _Columns:
    return {
        f"{prefix}indices": Lists.of_rows(indices, rows, count),
        f"{prefix}counts": Lists.of_rows(counts, rows, count),
    }
