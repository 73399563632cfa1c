"""SQL functions of the column `histogram`: quantile, merge, increase, buckets. All take whole columns."""

import functools
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
_WAITING_ROWS: Final = 2048  # a call takes as long as some hundred rows
_WAITING_SLICES: Final = 16  # a slice of a few rows keeps its whole batch in memory
_NUMBERS: Final = ("sum", "min", "max")
_ROW_SHIFT: Final = 33  # a bucket's key is its row, then its index, which has 32 bits and a sign


_Columns = dict[str, pa.Array | Numbers | Lists]


class _Parts:
    """The parts of a column of histograms as arrays, each read when it is needed; a null row has no buckets."""

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
                    "A histogram has buckets that its bounds, counts, or scale contradict.",
                    remedy="Pass the column histogram, or what a function of OpenTelemetry's histograms returned.",
                )

    def _read(self, name: str, missing: float) -> Numbers:
        part = self._parts[name]
        found: Numbers = (pc.fill_null(part, missing) if part.null_count else part).to_numpy(zero_copy_only=False)
        return found

    def _list(self, name: str) -> Lists:
        part = self._parts[name]
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
    """The nonempty buckets of all rows, ascending in each row."""

    rows: Numbers
    lower: Numbers
    upper: Numbers
    counts: Numbers
    lengths: Numbers  # of each row

    @property
    def starts(self) -> Numbers:
        starts: Numbers = np.cumsum(self.lengths) - self.lengths
        return starts


@np.errstate(over="ignore", invalid="ignore")
def _find_ranges(parts: _Parts) -> _Ranges:
    """Return the edges of all buckets; those without an end are infinite."""
    positive, negative = parts.indices, parts.negative_indices
    zeros = np.flatnonzero(parts.zero_count > 0)
    lengths = positive.lengths + negative.lengths
    lengths[zeros] += 1
    starts, total = np.cumsum(lengths) - lengths, int(lengths.sum())
    lower, upper, counts = np.empty(total), np.empty(total), np.empty(total, np.int64)
    step = np.exp2(-parts.scale.astype(float))
    # Negative buckets come in reverse, then that of zero, then the positive ones.
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
    """Return bounds by their positions in their rows; infinity before the first and after the last."""
    inside = (at >= 0) & (at < bounds.lengths[rows])
    found = np.where(at < 0, -np.inf, np.inf)
    found[inside] = bounds.values[(bounds.starts[rows] + at)[inside]]
    return found


def _closed(parts: _Parts, ranges: _Ranges) -> tuple[Numbers, Numbers]:
    """Return finite edges: the minimum and maximum where these are known, else 0 and the last bound (as Prometheus)."""
    rows, is_exponential = ranges.rows, parts.is_exponential[ranges.rows]
    least, greatest = parts.min[rows], parts.max[rows]
    first = np.where(np.isfinite(ranges.upper), np.minimum(ranges.upper, 0.0), 0.0)
    lower = np.where(np.isneginf(ranges.lower), np.where(np.isnan(least), first, least), ranges.lower)
    last = np.where(is_exponential, np.finfo(float).max, lower)
    upper = np.where(np.isposinf(ranges.upper), np.where(np.isnan(greatest), last, greatest), ranges.upper)
    return lower, upper


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def quantile(column: pa.Array, ratios: pa.Array) -> pa.Array:
    """Return the value below which a ratio of the values is.

    In an explicit bucket and in that of zero, values are assumed to be spread evenly, in an exponential one
    exponentially, as in Prometheus 3. No result is outside of the minimum and maximum.
    """
    parts = _Parts(column)
    ranges = _find_ranges(parts)
    wanted = pc.fill_null(ratios, np.nan).to_numpy(zero_copy_only=False)
    running = np.concatenate([[0], np.cumsum(ranges.counts)])
    totals = running[ranges.starts + ranges.lengths] - running[ranges.starts]
    known = parts.is_valid & (totals > 0) & (wanted >= 0) & (wanted <= 1)
    rows = np.flatnonzero(known)
    first = ranges.starts[rows]
    rank = running[first] + np.maximum(wanted[rows] * totals[rows], 1e-9)
    at = np.clip(np.searchsorted(running, rank) - 1, first, first + ranges.lengths[rows] - 1)
    share = np.clip((rank - running[at]) / ranges.counts[at], 0, 1)
    lower, upper = (edges[at] for edges in _closed(parts, ranges))
    is_exponential = parts.is_exponential[rows] & (lower * upper > 0)
    found = np.where(is_exponential, lower * (upper / lower) ** share, lower + (upper - lower) * share)
    result = np.full(parts.length, np.nan)
    result[rows] = np.fmin(np.fmax(found, parts.min[rows]), parts.max[rows])
    return pa.array(result, pa.float64(), mask=~known)


def buckets(column: pa.Array) -> pa.Array:
    """Return lower and upper edge and count of each nonempty bucket, ascending; the outermost edges may be infinite."""
    parts = _Parts(column)
    ranges = _find_ranges(parts)
    values = pa.StructArray.from_arrays(
        [pa.array(one) for one in (ranges.lower, ranges.upper, ranges.counts)], fields=list(BUCKETS.value_type)
    )
    ends = np.concatenate([[0], np.cumsum(ranges.lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), values, type=BUCKETS, mask=pa.array(~parts.is_valid))


def to_bins(column: pa.Array, starts: pa.Array, ends: pa.Array, numbers: pa.Array) -> pa.Array:
    """Return histograms with bins of equal width; the values of a bucket are spread evenly over its bins."""
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
                f"histogram_to_bins needs a finite start that is not above its end, and 1 to {MAX_BINS} bins.",
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
                "min": float(least if np.isnan(parts.min[row]) else parts.min[row]),
                "max": float(greatest if np.isnan(parts.max[row]) else parts.max[row]),
                "sum": float(np.nan_to_num(parts.sum[row])),
                "sum_sq": float((counts * ((lower + upper) / 2) ** 2).sum()),
                "count": total,
                "bins": np.diff(running).astype(np.int64).tolist(),
            }
        )
    return pa.array(found, HISTOGRAM)


def increase(column: pa.Array, starts: pa.Array, previous: pa.Array, previous_starts: pa.Array) -> pa.Array:
    """Return what was counted since the previous point of a cumulative series; null without one.

    After a reset it is all of the point: another start, fewer values in a bucket, other bounds, a finer scale.
    """
    now, before = _Parts(column), _Parts(previous)
    is_unset = pc.and_(pc.is_null(starts), pc.is_null(previous_starts))
    is_same_start = pc.or_(is_unset, pc.fill_null(pc.equal(starts, previous_starts), fill_value=False))
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
    sides = [
        (now.indices, now.counts, before.indices, before.counts),
        (now.negative_indices, now.negative_counts, before.negative_indices, before.negative_counts),
    ]
    differences = [_subtract(*side, shift, goes_on) for side in sides]
    for rows, _, left in differences:
        goes_on[rows[left < 0]] = False  # a reset that nobody announced
    zero_count = now.zero_count - before.zero_count
    goes_on &= ~(zero_count < 0) | (now.zero_threshold > before.zero_threshold)
    parts: _Columns = {}
    for prefix, side in zip(("", "negative_"), sides, strict=True):
        rows, indices, left = _subtract(*side, shift, goes_on)
        used = left > 0
        parts[f"{prefix}indices"] = Lists.of_rows(indices[used], rows[used], now.length)
        parts[f"{prefix}counts"] = Lists.of_rows(left[used], rows[used], now.length)
    whole = dict(zip(OTEL_HISTOGRAM.names, column.flatten(), strict=True))
    parts |= {name: whole[name] for name in ("bounds", "scale", "zero_threshold")}
    # Minimum and maximum of a cumulative point are of its whole life.
    ended = pa.array(~goes_on)
    parts |= {name: pc.if_else(ended, whole[name], pa.scalar(None, pa.float64())) for name in ("min", "max")}
    parts["count"] = np.where(goes_on, now.count - before.count, now.count)
    parts["sum"] = pa.array(np.where(goes_on, now.sum - before.sum, now.sum), pa.float64(), from_pandas=True)
    zero_count = np.where(goes_on, np.maximum(zero_count, 0), now.zero_count)
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
    """Return row, index, and count of each bucket, less what the rows that go on had before, in a finer scale."""
    old_rows = old_indices.rows
    used = goes_on[old_rows]
    old_rows = old_rows[used]
    rows = np.concatenate([indices.rows, old_rows])
    at = np.concatenate([indices.values, old_indices.values[used] >> shift[old_rows]])
    return _add_up(rows, at, np.concatenate([counts.values, -old_counts.values[used]]))


def _add_up(rows: Numbers, indices: Numbers, counts: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Return the sum of the counts of each row and index, ascending."""
    if not len(rows):
        return rows, indices, counts
    keys = (rows.astype(np.int64) << _ROW_SHIFT) + indices
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    chosen = order[first]
    return rows[chosen], indices[chosen], np.add.reduceat(counts[order], first)


class Merge(Accumulator):
    """`histogram_merge(histogram)`: the sum; explicit ones are reduced to the bounds that all have."""

    def __init__(self, failures: list[MicromegasError]) -> None:
        self._failures = failures
        self._waiting: list[pa.Array] = []
        self._rows = 0

    def update(self, *values: pa.Array) -> None:
        """Add histograms."""
        self._waiting.append(values[0])
        self._rows += len(values[0])
        if len(self._waiting) >= _WAITING_SLICES or self._rows >= _WAITING_ROWS:
            self._fold()

    def merge(self, states: list[pa.Array]) -> None:
        """Add sums."""
        self.update(states[0])

    def state(self) -> list[pa.Scalar]:
        """Return the sum so far."""
        return [self.evaluate()]

    def evaluate(self) -> pa.Scalar:
        """Return the sum; null without any histogram."""
        self._fold()
        return self._waiting[0][0] if self._waiting else pa.scalar(None, OTEL_HISTOGRAM)

    def _fold(self) -> None:
        try:
            merged = merge_all(pa.concat_arrays(self._waiting)) if self._waiting else None
        except MicromegasError as error:
            self._failures.append(error)
            raise
        self._waiting, self._rows = [] if merged is None else [merged], 0


def merge_all(column: pa.Array) -> pa.Array | None:
    """Return the sum of a column as a column of one row, None without any histogram."""
    if column.null_count:
        column = column.drop_null()
    if not len(column):
        return None
    # Those that counted nothing change nothing: neither minimum and maximum nor bounds or scale.
    is_used = pc.fill_null(pc.greater(column.field("count"), 0), fill_value=False)
    if is_used.true_count < len(column):
        column = column.filter(is_used) if is_used.true_count else column[:1]
    parts = _Parts(column)
    if parts.is_exponential.any() and not parts.is_exponential.all():
        raise InvalidStatement(
            "histogram_merge can't add explicit and exponential histograms.",
            remedy="Add histogram['scale'] IS NULL to GROUP BY, or select one kind with WHERE.",
        )
    merged: _Columns = {"count": np.array([parts.count.sum()])}
    for name, add in (("sum", np.sum), ("min", np.min), ("max", np.max)):
        merged[name] = pa.array([add(getattr(parts, name))], pa.float64(), from_pandas=True)
    own = _merge_exponential(parts) if parts.is_exponential[0] else _merge_explicit(parts)
    return build_histograms(merged | own)


def _merge_explicit(parts: _Parts) -> _Columns:
    bounds, indices = parts.bounds, parts.indices.values
    length = bounds.lengths[0]
    common = bounds.values[:length]
    is_same = (
        (bounds.lengths == length).all() and (bounds.values.reshape(-1, length) == common).all() if length else False
    )
    if not is_same and (bounds.lengths > 0).any():
        values, counts = np.unique(bounds.values, return_counts=True)
        common = values[counts == parts.length]
        indices = np.searchsorted(common, _bound(bounds, parts.indices.rows, indices))
    elif not is_same:
        common, indices = np.zeros(0), np.zeros_like(indices)
    added = np.bincount(indices, weights=parts.counts.values, minlength=1)
    return {"bounds": _one_row(common), **_buckets("", np.flatnonzero(added), added[added > 0])}


def _merge_exponential(parts: _Parts) -> _Columns:
    scale, threshold = int(parts.scale.min()), float(parts.zero_threshold.max())
    found = []
    for indices, counts in ((parts.indices, parts.counts), (parts.negative_indices, parts.negative_counts)):
        shifted = indices.values.astype(np.int64) >> (parts.scale - scale)[indices.rows]
        found.append(_add_up(np.zeros(len(shifted), np.int64), shifted, counts.values))
    while scale > MIN_SCALE and any(len(at) and at[-1] - at[0] >= _MAX_SPREAD for _, at, _ in found):
        scale -= 1
        found = [_add_up(rows, at >> 1, counts) for rows, at, counts in found]
    zero_count = int(parts.zero_count.sum())
    merged: _Columns = {}
    first = np.floor(np.log2(threshold) * 2.0**scale + 1e-9) if threshold > 0 else -np.inf
    for prefix, (_, at, added) in zip(("", "negative_"), found, strict=True):
        inside = at < first  # of the widest zero bucket
        zero_count += int(added[inside].sum())
        merged |= _buckets(prefix, at[~inside], added[~inside])
    return merged | {
        "scale": np.array([scale], np.int32),
        "zero_count": np.array([zero_count]),
        "zero_threshold": np.array([threshold]),
    }


def _buckets(prefix: str, indices: Numbers, counts: Numbers) -> _Columns:
    return {f"{prefix}indices": _one_row(indices), f"{prefix}counts": _one_row(counts)}


def _one_row(values: Numbers) -> Lists:
    return Lists(values, np.array([len(values)]))
