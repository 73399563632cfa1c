"""SQL functions for histograms, with the same type and arithmetic as Micromegas's own server.

A histogram has bins of equal width from `start` to `end`. Values outside count in the first or the last bin. NaN counts
in the first bin, and so do all values if the width is 0.
"""

import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from datafusion import Accumulator

from micromegas_jupyter.errors import InvalidStatement, MicromegasError

_NUMBERS: Final = ("start", "end", "min", "max", "sum", "sum_sq")
HISTOGRAM: Final = pa.struct(
    [
        *(pa.field(name, pa.float64(), nullable=False) for name in _NUMBERS),
        pa.field("count", pa.uint64(), nullable=False),
        pa.field("bins", pa.list_(pa.field("bin", pa.uint64(), nullable=False)), nullable=False),
    ]
)
BINS: Final = pa.list_(
    pa.struct([pa.field("bin_center", pa.float64(), nullable=False), pa.field("count", pa.uint64(), nullable=False)])
)
MAX_BINS: Final = 65536
_MAX: Final = sys.float_info.max


class _Shape(NamedTuple):
    start: float
    end: float
    bins: int


class _Histogram(Accumulator):
    """Sums all input histograms; the error that stops the statement is added to `failures`."""

    def __init__(self, failures: list[MicromegasError]) -> None:
        self._failures = failures
        self._shape: _Shape | None = None
        self._bins: npt.NDArray[np.uint64] = np.zeros(0, np.uint64)
        self._min, self._max, self._sum, self._sum_sq, self._count = _MAX, -_MAX, 0.0, 0.0, 0

    def merge(self, states: list[pa.Array]) -> None:
        """Add histograms; skip null ones and those without bins."""
        for one in states[0]:
            if not one.is_valid or not len(one["bins"]):
                continue
            found = one.as_py()
            self._take_shape(_Shape(found["start"], found["end"], len(found["bins"])))
            self._bins += np.array(found["bins"], np.uint64)
            self._min, self._max = min(self._min, found["min"]), max(self._max, found["max"])
            self._sum += found["sum"]
            self._sum_sq += found["sum_sq"]
            self._count += found["count"]

    def state(self) -> list[pa.Scalar]:
        """Return the current histogram."""
        return [self.evaluate()]

    def evaluate(self) -> pa.Scalar:
        """Return the histogram, which has no bins if there were no rows."""
        shape = self._shape or _Shape(0.0, 0.0, 0)
        numbers = (shape.start, shape.end, self._min, self._max, self._sum, self._sum_sq)
        found: dict[str, Any] = dict(zip(_NUMBERS, numbers, strict=True))
        return pa.scalar({**found, "count": self._count, "bins": self._bins.tolist()}, HISTOGRAM)

    def _take_shape(self, shape: _Shape) -> None:
        if self._shape is None:
            self._shape, self._bins = shape, np.zeros(shape.bins, np.uint64)
        elif self._shape != shape:
            self._fail("Histograms of different start, end or number of bins cannot be added.", "Group by them.")

    def _fail(self, what: str, remedy: str | None = None) -> None:
        error = InvalidStatement(what, remedy=remedy)
        self._failures.append(error)
        raise error


class MakeHistogram(_Histogram):
    """`make_histogram(start, end, bins, value)`."""

    def update(self, *values: pa.Array) -> None:
        """Count values; the other arguments are the same in all rows."""
        if not len(values[0]):
            return
        start, end, bins = (one[0].as_py() for one in values[:3])
        if start is None or end is None or bins is None or not np.isfinite([start, end]).all() or start > end:
            self._fail("A histogram needs a start that is not above its end; both must be finite and not NULL.")
        if not 1 <= bins <= MAX_BINS:
            self._fail(f"A histogram has 1 to {MAX_BINS} bins.")
        self._take_shape(_Shape(start, end, bins))
        numbers = values[3].drop_null().to_numpy()
        with np.errstate(all="ignore"):
            at = np.floor((numbers - start) / ((end - start) / bins))
            self._sum += float(numbers.sum())
            self._sum_sq += float(numbers @ numbers)
        at = np.clip(np.nan_to_num(at, nan=0.0, posinf=bins, neginf=0.0), 0, bins - 1).astype(np.intp)
        self._bins += np.bincount(at, minlength=bins).astype(np.uint64)
        self._min = float(np.fmin.reduce(numbers, initial=self._min))
        self._max = float(np.fmax.reduce(numbers, initial=self._max))
        self._count += len(numbers)


class SumHistograms(_Histogram):
    """`sum_histograms(histogram)`."""

    def update(self, *values: pa.Array) -> None:
        """Add histograms."""
        self.merge(list(values))


def field(name: str) -> Callable[[pa.StructArray], pa.Array]:
    """Return a function that extracts one field from histograms."""
    return lambda histograms: histograms.flatten()[HISTOGRAM.get_field_index(name)]


def variance(histograms: pa.StructArray) -> pa.Array:
    """Return the sample variance, or NaN for fewer than two values."""
    counts, sums, squares = (field(name)(histograms).cast(pa.float64()) for name in ("count", "sum", "sum_sq"))
    missing = histograms.is_null().to_numpy(zero_copy_only=False)
    n, total, square = (one.fill_null(0).to_numpy() for one in (counts, sums, squares))
    with np.errstate(all="ignore"):
        return pa.array((square / n - (total / n) ** 2) * (n / (n - 1)), mask=missing)


def quantile(histograms: pa.StructArray, ratios: pa.Array) -> pa.Array:
    """Return the values at these ratios (quantiles), interpolated linearly within a bin."""
    pairs = zip(histograms.to_pylist(), ratios.to_pylist(), strict=True)
    return pa.array([None if None in pair else _quantile(*pair) for pair in pairs], pa.float64())


def _quantile(histogram: dict[str, Any], ratio: float) -> float:
    start, end, bins = histogram["start"], histogram["end"], histogram["bins"]
    wanted, below = histogram["count"] * ratio, 0
    for index, count in enumerate(bins):
        if count and below + count >= wanted:
            share = (wanted - below) / count
            width = (end - start) / len(bins)
            return float((1 - share) * (start + index * width) + share * (start + (index + 1) * width))
        below += count
    return float(end)


def rows(histograms: pa.StructArray) -> pa.Array:
    """Return each bin's center and count."""
    found = [None if one is None else _rows(one) for one in histograms.to_pylist()]
    return pa.array(found, BINS)


def _rows(histogram: dict[str, Any]) -> list[dict[str, float]]:
    bins = histogram["bins"]
    span = histogram["end"] - histogram["start"]
    width = 1.0 if abs(span) < sys.float_info.epsilon else span / len(bins)
    return [
        {"bin_center": histogram["start"] + (index + 0.5) * width, "count": count} for index, count in enumerate(bins)
    ]
