"""Converts OTLP histogram points to columns of the `histograms` table, after checking all points.

Source: https://opentelemetry.io/docs/specs/otel/metrics/data-model/#histogram.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice, repeat
from typing import Any, Final

import numpy as np
import pyarrow as pa
from opentelemetry.proto.metrics.v1 import metrics_pb2

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.otlp.decode import ValueCount, decode_message, plain_attributes
from micromegas_jupyter.telemetry.histograms import (
    MAX_BUCKETS,
    MAX_COUNT,
    MAX_SCALE,
    MIN_SCALE,
    Lists,
    Numbers,
    build_histograms,
)
from micromegas_jupyter.telemetry.tables import TIMESTAMP

EXPLICIT: Final = "histogram"
EXPONENTIAL: Final = "exponential_histogram"
_DELTA, _CUMULATIVE = 1, 2  # AggregationTemporality
_MAX_EXEMPLARS: Final = 1000
_MAX_EXEMPLAR_BYTES: Final = 1024 * 1024
_MAX_BUCKET_BYTES: Final = 10 * MAX_BUCKETS + 16  # a count takes at most ten bytes
_TOO_MANY: Final = bytes(8 * MAX_BUCKETS + 8)  # placeholder for values that aren't read
_MAX_EXPORT_BUCKETS: Final = 4_000_000
"""For all points; each takes up to 60 times its bytes while it is read."""
_MANY_BUCKETS: Final = f"It has more than {MAX_BUCKETS:,} buckets."
_MANY_EXEMPLARS: Final = f"It has more than {_MAX_EXEMPLARS:,} exemplars, or they take more than 1 MiB."
_NO_TEMPORALITY: Final = "It is neither delta nor cumulative."
_SERIES: Final = ("stream_id", "target", "name", "unit", "properties")
Encode = Callable[[object], bytes | None]


class HistogramPoints:
    """The histogram points of an export. `extend` adds a metric's points; checks and columns cover all points."""

    def __init__(self, count: ValueCount) -> None:
        self._count = count
        self._facts: tuple[list[Any], ...] = tuple([] for _ in range(11))
        self._parts: list[tuple[bytes, bytes, bytes]] = []  # bounds, positive and negative counts, eight bytes each
        self._exemplars: list[tuple[bytes, ...]] = []
        self._early: dict[int, str] = {}
        self._buckets_left = _MAX_EXPORT_BUCKETS

    def extend(self, points: Sequence[Any], kind: str, temporality: int) -> range:
        """Add a metric's points, and return their numbers."""
        numbers = range(len(self._parts), len(self._parts) + len(points))
        if not numbers:
            return numbers
        positive_offsets: Iterable[int] = repeat(0)
        negative_offsets: Iterable[int] = repeat(0)
        scales: Iterable[int | None] = repeat(None)
        zeros: Iterable[int | None] = repeat(None)
        thresholds: Iterable[float | None] = repeat(None)
        if kind == EXPLICIT:
            parts = [(*_read_explicit(one), b"") for one in points]
        else:
            positive_offsets, positives = zip(*(self._read_buckets(one.positive) for one in points), strict=True)
            negative_offsets, negatives = zip(*(self._read_buckets(one.negative) for one in points), strict=True)
            scales, zeros, thresholds = zip(*((p.scale, p.zero_count, p.zero_threshold) for p in points), strict=True)
            parts = list(zip(repeat(b""), positives, negatives))
        exemplars = [tuple(found) if (found := one.exemplars) else () for one in points]
        is_known = temporality in {_DELTA, _CUMULATIVE}
        for at, (number, (bounds, positive, negative), own) in enumerate(zip(numbers, parts, exemplars, strict=True)):
            if max(len(positive) + len(negative), len(bounds)) > 8 * MAX_BUCKETS:
                self._early[number] = _MANY_BUCKETS
            elif own and (len(own) > _MAX_EXEMPLARS or sum(map(len, own)) > _MAX_EXEMPLAR_BYTES):
                self._early[number] = _MANY_EXEMPLARS
            elif not is_known:
                self._early[number] = _NO_TEMPORALITY
            else:
                continue
            parts[at], exemplars[at] = (b"", b"", b""), ()
        columns = (
            [one.start_time_unix_nano for one in points],
            [one.count for one in points],
            [one.sum if one.HasField("sum") else None for one in points],
            [one.min if one.HasField("min") else None for one in points],
            [one.max if one.HasField("max") else None for one in points],
            scales,
            zeros,
            thresholds,
            positive_offsets,
            negative_offsets,
            repeat(temporality == _CUMULATIVE),
        )
        for known, more in zip(self._facts, columns, strict=True):
            known.extend(islice(more, len(points)))
        self._parts += parts
        self._exemplars += exemplars
        return numbers

    def _read_buckets(self, data: bytes) -> tuple[int, bytes]:
        if not data:
            return 0, b""
        if len(data) > _MAX_BUCKET_BYTES:
            return 0, _TOO_MANY
        buckets = decode_message(metrics_pb2.ExponentialHistogramDataPoint.Buckets, data)
        counts = buckets.bucket_counts[:]
        self._buckets_left -= len(counts)
        if self._buckets_left < 0:
            raise UsageError(
                f"The export's histograms have more than {_MAX_EXPORT_BUCKETS:,} buckets.",
                remedy="Export fewer points at a time (send_batch_max_size).",
            )
        return buckets.offset, np.array(counts, np.uint64).tobytes()

    def find_problems(self) -> list[tuple[Numbers, str]]:
        """Return the reasons for rejected points, each with the numbers of its points."""
        facts = self._facts
        positive_offsets, negative_offsets = facts[8:10]
        counts, is_exponential = np.array(facts[1], np.uint64), np.array([one is not None for one in facts[5]])
        scales, zeros, thresholds = (
            np.array([one or 0 for one in part], kind)
            for part, kind in zip(facts[5:8], (np.int64, np.uint64, np.float64), strict=True)
        )
        bounds, positive, negative = self._read_lists()
        total = _add_up(positive) + _add_up(negative) + zeros
        too_large = (counts > MAX_COUNT) | (zeros > MAX_COUNT)
        for one in (positive, negative):
            too_large[one.rows[one.values > MAX_COUNT]] = True
        steps = np.diff(bounds.values, prepend=-np.inf)
        steps[bounds.starts[bounds.lengths > 0]] = np.inf
        unordered = np.zeros(len(counts), bool)
        unordered[bounds.rows[~(steps > 0) | ~np.isfinite(bounds.values)]] = True
        far = np.zeros(len(counts), bool)
        for offsets, one in ((positive_offsets, positive), (negative_offsets, negative)):
            far |= np.array(offsets, np.int64) + one.lengths > np.iinfo(np.int32).max
        early = [
            (np.array([self._early.get(number) == reason for number in range(len(counts))]), reason)
            for reason in dict.fromkeys(self._early.values())
        ]
        return [
            *early,
            (~is_exponential & (positive.lengths != bounds.lengths + 1), "It needs one bucket more than bounds."),
            (unordered, "Its bounds must be finite and ascend."),
            (too_large, "It counts more than 2^53 values."),
            (total != counts, "Its buckets do not add up to its count."),
            ((scales < MIN_SCALE) | (scales > MAX_SCALE), f"Its scale is not in {MIN_SCALE} to {MAX_SCALE}."),
            (~(thresholds >= 0) | ~np.isfinite(thresholds), "Its zero threshold must be finite and not negative."),
            (far, "The offset of its buckets is too large."),
        ]

    def _read_lists(self) -> tuple[Lists, Lists, Lists]:
        bounds, positive, negative = (
            Lists(np.frombuffer(b"".join(part), kind), np.array([len(one) // 8 for one in part], np.int64))
            for part, kind in zip(zip(*self._parts, strict=True), ("<f8", "<u8", "<u8"), strict=True)
        )
        return bounds, positive, negative

    def columns(self, numbers: Numbers, encode: Encode) -> dict[str, pa.Array]:
        """Return the histogram-only columns of the points with these numbers (ascending)."""
        chosen = numbers.tolist()
        starts, *scalars, positive_offsets, negative_offsets, is_cumulative = (
            [fact[number] for number in chosen] for fact in self._facts
        )
        is_explicit = np.array([one is None for one in scalars[4]])
        bounds, positive, negative = (_take(one, numbers) for one in self._read_lists())
        parts: dict[str, pa.Array | Lists] = {
            name: pa.array(part, kind)
            for name, part, kind in zip(
                ("count", "sum", "min", "max", "scale", "zero_count", "zero_threshold"),
                scalars,
                (pa.int64(), *[pa.float64()] * 3, pa.int32(), pa.int64(), pa.float64()),
                strict=True,
            )
        }
        parts["bounds"] = bounds.column(pa.list_(pa.field("element", pa.float64())), ~is_explicit)
        for prefix, lists, offsets in (("", positive, positive_offsets), ("negative_", negative, negative_offsets)):
            rows, used = lists.rows, lists.values > 0
            at = np.arange(len(rows)) - lists.starts[rows] + np.array(offsets, np.int64)[rows]
            parts[f"{prefix}indices"] = Lists.of_rows(at[used], rows[used], len(numbers))
            parts[f"{prefix}counts"] = Lists.of_rows(lists.values[used], rows[used], len(numbers))
        exemplars = [self._exemplars[number] for number in chosen]
        return {
            "start_time": pa.array([one or None for one in starts], pa.int64()).cast(TIMESTAMP),
            "is_cumulative": pa.array(is_cumulative, pa.bool_()),
            "histogram": build_histograms(parts),
            "exemplars": pa.array(
                [encode([self._plain_exemplar(one) for one in row]) if row else None for row in exemplars], pa.binary()
            ),
        }

    def _plain_exemplar(self, data: bytes) -> Mapping[str, object]:
        one = decode_message(metrics_pb2.Exemplar, data)
        return {
            "attributes": plain_attributes(one.filtered_attributes, self._count),
            "span_id": one.span_id.hex(),
            "time": one.time_unix_nano,
            "trace_id": one.trace_id.hex(),
            "value": one.as_int if one.HasField("as_int") else one.as_double,
        }


def _read_explicit(point: Any) -> tuple[bytes, bytes]:
    """Return bounds and counts, eight bytes per value; a point without them has its count in one bucket."""
    bounds, counts = point.explicit_bounds, point.bucket_counts
    if len(bounds) == len(counts) == 1:
        bounds, counts = bounds[0], counts[0]
        if len(counts) == len(bounds) + 8 and len(bounds) % 8 == 0:
            return bounds, counts
    elif sum(map(len, counts)) > 8 * MAX_BUCKETS:
        return b"", _TOO_MANY
    # The field is not packed or is in several pieces, which every reader must accept, or it is malformed.
    whole = decode_message(metrics_pb2.HistogramDataPoint, point.SerializeToString())
    bounds, counts = (one[: MAX_BUCKETS + 1] for one in (whole.explicit_bounds, whole.bucket_counts))
    if not counts and not bounds:
        counts = [whole.count]
    return np.array(bounds, np.float64).tobytes(), np.array(counts, np.uint64).tobytes()


def _add_up(lists: Lists) -> Numbers:
    running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(lists.values, dtype=np.uint64)])
    added: Numbers = running[lists.starts + lists.lengths] - running[lists.starts]
    return added


def _take(lists: Lists, rows: Numbers) -> Lists:
    chosen = np.zeros(len(lists.lengths), bool)
    chosen[rows] = True
    return Lists(lists.values[np.repeat(chosen, lists.lengths)], lists.lengths[rows])


def number_series(rows: pa.RecordBatch) -> pa.Array:
    """Return the `series` column: a number computed from a series' identity, which is the same in every process."""
    columns = [rows.column(name) for name in _SERIES]
    code, first = np.zeros(rows.num_rows, np.int64), np.zeros(0, np.int64)
    for column in columns:
        code = code * max(len(column.dictionary), 1) + column.indices.to_numpy()
        _, first, code = np.unique(code, return_index=True, return_inverse=True)
    digests = [[_digest(value) for value in column.dictionary.to_pylist()] for column in columns]
    positions = [column.indices.to_numpy()[first] for column in columns]
    numbers = [
        int.from_bytes(_digest(b"".join(digest[at] for digest, at in zip(digests, row, strict=True)))[:8], signed=True)
        for row in zip(*positions, strict=True)
    ]
    return pa.array(np.array(numbers, np.int64)[code], pa.int64())


def _digest(value: str | bytes) -> bytes:
    return hashlib.blake2b(value.encode() if isinstance(value, str) else value, digest_size=16).digest()
