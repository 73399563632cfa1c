"""OpenTelemetry histograms as one Arrow struct, both explicit and exponential; only nonempty buckets are stored.

Bucket `index` of an explicit histogram is (bounds[index - 1], bounds[index]]. With a `scale` it is exponential:
(base**index, base**(index + 1)] where base = 2**(2**-scale), and its mirror image for negative values. The memory for
sparse indices depends only on the number of nonempty buckets, not on a sender's offset.

Source: https://opentelemetry.io/docs/specs/otel/metrics/data-model/#histogram.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Numbers = npt.NDArray[Any]
_INDICES: Final = pa.list_(pa.field("element", pa.int32()))
_COUNTS: Final = pa.list_(pa.field("element", pa.int64()))
OTEL_HISTOGRAM: Final = pa.struct(
    {
        "count": pa.int64(),
        "sum": pa.float64(),
        "min": pa.float64(),
        "max": pa.float64(),
        "bounds": pa.list_(pa.field("element", pa.float64())),
        "scale": pa.int32(),
        "zero_count": pa.int64(),
        "zero_threshold": pa.float64(),
        "indices": _INDICES,
        "counts": _COUNTS,
        "negative_indices": _INDICES,
        "negative_counts": _COUNTS,
    }
)
"""The column `histogram`: null `bounds` in exponential histograms, null `scale` and zero bucket in explicit ones."""
MIN_SCALE: Final = -10
MAX_SCALE: Final = 20
MAX_BUCKETS: Final = 2000
"""Buckets of one point, as sent."""
MAX_COUNT: Final = 2**53
"""Total count in one point; a double represents each smaller integer exactly."""


class Lists(NamedTuple):
    """A list column as one array of all values, and the end of each row; null rows are empty."""

    values: Numbers
    lengths: Numbers

    @property
    def starts(self) -> Numbers:
        """The start of each row."""
        starts: Numbers = np.cumsum(self.lengths) - self.lengths
        return starts

    @property
    def rows(self) -> Numbers:
        """The row of each value."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @classmethod
    def read(cls, column: pa.Array) -> "Lists":
        """Return the values of an Arrow column."""
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        return cls(column.flatten().to_numpy(zero_copy_only=False), lengths.astype(np.int64))

    @classmethod
    def of_rows(cls, values: Numbers, rows: Numbers, count: int) -> "Lists":
        """Return values that are sorted by row."""
        return cls(values, np.bincount(rows, minlength=count))

    def column(self, kind: pa.ListType, mask: Numbers | None = None) -> pa.Array:
        """Return an Arrow column; rows in the mask are null."""
        ends = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int32)
        values = pa.array(
            self.values.astype(pa.array([], kind.value_type).to_numpy().dtype, copy=False), kind.value_type
        )
        masked = None if mask is None else pa.array(mask)
        return pa.ListArray.from_arrays(pa.array(ends), values, type=kind, mask=masked)


def build_histograms(columns: Mapping[str, pa.Array | Numbers | Lists], mask: Numbers | None = None) -> pa.StructArray:
    """Build a histogram column from its parts; missing parts are null, and so are the rows in the mask.

    In a null row the parts are null, too, because DataFusion reads `h['count']` without checking the row itself.
    """
    length = next(len(part.lengths if isinstance(part, Lists) else part) for part in columns.values())
    fields = []
    for field in OTEL_HISTOGRAM:
        part = columns.get(field.name)
        if isinstance(part, Lists):
            part = part.column(field.type)
        elif isinstance(part, np.ndarray):
            part = pa.array(part, field.type)
        elif part is None:
            part = pa.nulls(length, field.type)
        fields.append(part if mask is None else pc.if_else(pa.array(mask), pa.scalar(None, field.type), part))
    return pa.StructArray.from_arrays(
        fields, fields=list(OTEL_HISTOGRAM), mask=None if mask is None else pa.array(mask)
    )
