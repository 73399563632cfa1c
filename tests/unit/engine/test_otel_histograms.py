"""Histogram functions against the values that the histograms were made of, and against slow, plain arithmetic."""

import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from micromegas_jupyter.engine.functions import otel_histograms as functions
from micromegas_jupyter.errors import InvalidStatement
from micromegas_jupyter.telemetry.histograms import OTEL_HISTOGRAM

BOUNDS = [0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 1000.0]
TIME = pa.timestamp("ns", tz="+00:00")


def explicit(values, bounds=BOUNDS):
    """Return the histogram of values as a dictionary."""
    counts = np.bincount(np.searchsorted(bounds, values), minlength=len(bounds) + 1)
    used = np.flatnonzero(counts)
    return {**_facts(values), "bounds": list(bounds), "indices": used.tolist(), "counts": counts[used].tolist()}


def exponential(values, scale=3, zero_threshold=0.0):
    """Return the exponential histogram of values as a dictionary."""
    values = np.asarray(values, float)
    zero = np.abs(values) <= zero_threshold
    found = {**_facts(values), "scale": scale, "zero_count": int(zero.sum()), "zero_threshold": zero_threshold}
    for prefix, own in (("", values[~zero & (values > 0)]), ("negative_", -values[~zero & (values < 0)])):
        indices, counts = np.unique(np.ceil(np.log2(own) * 2.0**scale - 1e-9).astype(int) - 1, return_counts=True)
        found |= {f"{prefix}indices": indices.tolist(), f"{prefix}counts": counts.tolist()}
    return found


def _facts(values):
    if not len(values):
        return {"count": 0, "sum": 0.0}
    return {
        "count": len(values),
        "sum": float(np.sum(values)),
        "min": float(np.min(values)),
        "max": float(np.max(values)),
    }


def column(*histograms):
    return pa.array(histograms, OTEL_HISTOGRAM)


def quantile(histogram, ratio):
    return functions.quantile(column(histogram), pa.array([ratio], pa.float64()))[0].as_py()


def normal(found):
    """Return a histogram without what is null or empty, with the sum rounded."""
    return {
        name: round(value, 6) if name == "sum" else value
        for name, value in found.items()
        if value is not None and value != [] and not (name.startswith("zero") and not value)
    }


def merge_all(histograms):
    return functions.merge_groups(histograms, np.zeros(len(histograms), np.int64), 1)


def merged(*histograms):
    (found,) = merge_all(column(*histograms)).to_pylist()
    return None if found is None else normal(found)


def test_quantiles_of_explicit_histograms_are_in_the_bucket_of_the_true_one() -> None:
    values = np.random.default_rng(1).lognormal(3, 1, 5000)
    for ratio in (0.01, 0.5, 0.9, 0.99, 0.999):
        true = np.quantile(values, ratio, method="inverted_cdf")
        at = int(np.searchsorted(BOUNDS, true))
        assert [*BOUNDS, math.inf][at - 1] <= quantile(explicit(values), ratio) <= [*BOUNDS, math.inf][at]


@pytest.mark.parametrize("scale", [-1, 0, 3, 5])
@pytest.mark.parametrize("sign", [1, -1])
def test_quantiles_of_exponential_histograms_are_within_one_bucket(scale: int, sign: int) -> None:
    values = sign * np.random.default_rng(2).lognormal(0, 2, 5000)
    base = 2 ** (2**-scale)
    for ratio in (0.0, 0.01, 0.5, 0.9, 0.99, 1.0):
        true = np.quantile(values, ratio, method="inverted_cdf")
        found = quantile(exponential(values, scale), ratio)
        assert 1 / base - 1e-9 <= found / true <= base + 1e-9


@pytest.mark.parametrize(
    ("histogram", "ratio", "expected"),
    [
        # Evenly between the edges of its bucket.
        ({"count": 4, "bounds": [10.0, 20.0], "indices": [1], "counts": [4]}, 0.5, 15.0),
        # Without a minimum, the first bucket starts at 0, or at its bound where that is negative.
        ({"count": 4, "bounds": [10.0, 20.0], "indices": [0], "counts": [4]}, 0.5, 5.0),
        ({"count": 4, "bounds": [-10.0, 20.0], "indices": [0], "counts": [4]}, 0.5, -10.0),
        # Without a maximum, the last bucket ends at the last bound.
        ({"count": 4, "bounds": [10.0, 20.0], "indices": [2], "counts": [4]}, 0.5, 20.0),
        ({"count": 4, "max": 40.0, "bounds": [10.0, 20.0], "indices": [2], "counts": [4]}, 0.5, 30.0),
        ({"count": 4, "min": 2.0, "max": 4.0, "bounds": [], "indices": [0], "counts": [4]}, 0.5, 3.0),
        # Exponentially in an exponential one: the middle of (1, 4] is 2.
        ({"count": 4, "scale": -1, "zero_count": 0, "indices": [0], "counts": [4]}, 0.5, 2.0),
        ({"count": 4, "scale": -1, "zero_count": 0, "negative_indices": [0], "negative_counts": [4]}, 0.5, -2.0),
        # The bucket of zero ends at 0 on the side without values.
        ({"count": 2, "scale": 0, "zero_count": 2, "zero_threshold": 1.0}, 0.5, 0.0),
        ({"count": 5, "scale": 0, "zero_count": 4, "zero_threshold": 1.0, "indices": [3], "counts": [1]}, 0.4, 0.5),
        ({"count": 0, "bounds": [1.0]}, 0.5, None),
        ({"count": 1, "bounds": [1.0], "indices": [0], "counts": [1]}, 1.5, None),
        ({"count": 1, "bounds": [1.0], "indices": [0], "counts": [1]}, float("nan"), None),
        (None, 0.5, None),
    ],
)
def test_quantiles_where_edges_are_missing(histogram, ratio: float, expected: float | None) -> None:
    assert quantile(histogram, ratio) == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("others", [[3], [2**53 - 1], [2**62, 2**62, 2**62], [7**7] * 1000])
def test_a_quantile_is_not_changed_by_other_rows(others) -> None:
    """Rows that a filter removes later may be in the same batch."""
    row = explicit(np.random.default_rng(3).lognormal(3, 1, 999))
    rows = column(*({"count": one, "bounds": [1.0], "indices": [0], "counts": [one]} for one in others), row)
    for ratio in (0.0, 0.1, 0.5, 0.9, 0.99, 1.0):
        found = functions.quantile(rows, pa.array([ratio] * len(rows), pa.float64()))

        assert found[-1].as_py() == quantile(row, ratio)


def test_buckets_are_listed_in_ascending_order() -> None:
    values = [-3.0, -0.5, 0.0, 0.0, 0.6, 3.0, 3.5]
    (found,) = functions.buckets(column(exponential(values, scale=0))).to_pylist()
    expected = [(-4, -2, 1), (-0.5, -0.25, 1), (0, 0, 2), (0.5, 1, 1), (2, 4, 2)]
    assert [tuple(one.values()) for one in found] == [(float(a), float(b), n) for a, b, n in expected]
    (found,) = functions.buckets(column(explicit([-1.0, 7.0, 8.0, 5000.0]))).to_pylist()
    assert [tuple(one.values()) for one in found] == [(-math.inf, 0, 1), (5, 10, 2), (1000, math.inf, 1)]
    assert functions.buckets(column(None, {"count": 0, "bounds": [1.0]})).to_pylist() == [None, []]


def _samples(least: float = -1e6):
    return st.lists(
        st.floats(least, 1e6, allow_nan=False, width=32).filter(lambda x: not 0 < abs(x) < 1e-6), max_size=12
    )


@given(parts=st.lists(_samples(), max_size=6))
@settings(deadline=None)
def test_a_merge_of_explicit_histograms_is_the_histogram_of_all_values(parts: list[list[float]]) -> None:
    whole = list(itertools.chain(*parts))
    found = merged(*map(explicit, parts))
    assert found == (normal(explicit(whole)) if parts else None)


@given(parts=st.lists(st.tuples(_samples(), st.integers(0, 4)), min_size=1, max_size=6))
@settings(deadline=None)
def test_a_merge_of_exponential_histograms_has_the_coarsest_scale(parts: list[tuple[list[float], int]]) -> None:
    found = merged(*(exponential(values, scale) for values, scale in parts))
    whole = list(itertools.chain(*(values for values, _ in parts)))
    scales = [scale for values, scale in parts if values] or [parts[0][1]]
    assert found == normal(exponential(whole, min(scales)))


def test_a_merge_keeps_the_bounds_that_all_have() -> None:
    values = [1.0, 4.0, 7.0, 30.0, 30.0]
    found = merged(explicit(values, [2.0, 5.0, 10.0]), explicit(values, [5.0, 20.0]), explicit(values, [0.5, 5.0]))
    assert found == normal(explicit(values * 3, [5.0]))
    assert merged(explicit(values, [2.0]), explicit(values, [3.0]))["counts"] == [10]
    assert merged(explicit(values, []), explicit(values, [3.0]))["counts"] == [10]


def test_a_merge_reduces_the_scale_until_the_buckets_are_close_enough() -> None:
    found = merged(*({"count": 1, "scale": 20, "indices": [at], "counts": [1]} for at in (-(2**31), 0, 2**31 - 1)))
    assert found["scale"] == 20 - 20
    assert found["indices"] == [-(2**11), 0, 2**11 - 1]


def test_a_merge_puts_small_buckets_into_the_widest_zero_bucket() -> None:
    values = [-3.0, -0.2, 0.1, 0.2, 3.0]
    found = merged(exponential(values, scale=2), exponential(values, scale=2, zero_threshold=1.0))
    assert found == normal(exponential(values * 2, scale=2, zero_threshold=1.0))


def test_both_kinds_cannot_be_merged() -> None:
    with pytest.raises(InvalidStatement, match="explicit histograms with exponential"):
        merge_all(column(explicit([1.0]), exponential([1.0])))


@pytest.mark.parametrize("make", [explicit, exponential])
@given(parts=st.lists(_samples(), min_size=1, max_size=8), resets=st.sets(st.integers(0, 7)))
@settings(deadline=None)
def test_increases_add_up_to_what_was_measured(make, parts: list[list[float]], resets: set[int]) -> None:
    points, starts, total = [], [], []
    for at, values in enumerate(parts):
        total = list(values) if at in resets or not at else [*total, *values]
        starts.append(at if at in resets or not at else starts[-1])
        points.append(make(total))
    found = functions.increase(
        column(*points),
        pa.array(starts, pa.int64()).cast(TIME),
        column(None, *points[:-1]),
        pa.array([None, *starts[:-1]], pa.int64()).cast(TIME),
    )
    for at, one in enumerate(found.to_pylist()):
        if not at:
            assert one is None
            continue
        expected = make(parts[at])
        if at not in resets:
            expected = {name: value for name, value in expected.items() if name not in {"min", "max"}}
        assert {**normal(one), "sum": 0} == {**normal(expected), "sum": 0}
        assert one["sum"] == pytest.approx(expected["sum"], abs=1e-3, rel=1e-6)
    found.validate(full=True)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (explicit([1.0, 7.0, 7.0]), explicit([1.0, 1.0, 1.0, 7.0])),
        (explicit([1.0]), explicit([1.0, 2.0], [2.0])),
        (exponential([1.0], scale=2), exponential([1.0, 2.0], scale=3)),
        (exponential([1.0, 0.0, 0.0]), exponential([1.0, 2.0, 4.0, 0.0])),
        (explicit([1.0]), exponential([1.0, 2.0])),
    ],
)
def test_a_reset_that_nobody_announced_starts_again(before, after) -> None:
    starts = pa.array([5], pa.int64()).cast(TIME)
    (found,) = functions.increase(column(after), starts, column(before), starts).to_pylist()
    assert normal(found) == normal(after)


def test_a_coarser_scale_is_no_reset() -> None:
    before, after = exponential([1.5, 3.0], scale=4), exponential([1.5, 3.0, 6.0], scale=1)
    for starts in (pa.array([5], pa.int64()).cast(TIME), pa.nulls(1, TIME)):
        (found,) = functions.increase(column(after), starts, column(before), starts).to_pylist()
        assert found["count"] == 1
        assert found["counts"] == [1]


def test_bins_hold_all_values() -> None:
    values = np.random.default_rng(3).uniform(0, 1000, 10_000)
    ends = (pa.array([0.0]), pa.array([1000.0]), pa.array([10]))
    for histogram in (exponential(values, scale=5), explicit(values, [float(edge) for edge in range(0, 1000, 50)])):
        (found,) = functions.to_bins(column(histogram), *ends).to_pylist()
        assert sum(found["bins"]) == found["count"] == 10_000
        assert np.abs(np.array(found["bins"]) - np.histogram(values, 10, (0, 1000))[0]).max() < 60
    assert functions.to_bins(column(None), *ends).to_pylist() == [None]
    with pytest.raises(InvalidStatement, match="finite start"):
        functions.to_bins(column(histogram), pa.array([5.0]), pa.array([1.0]), pa.array([10]))


def test_parts_of_a_null_row_are_null() -> None:
    starts = pa.nulls(1, TIME)
    found = functions.increase(column(explicit([1.0])), starts, column(None), starts)
    assert found.flatten()[0].to_pylist() == [None]
    assert found.field("count").to_pylist() == [None]


def test_an_empty_part_changes_nothing() -> None:
    values = [1.0, 7.0, 30.0]
    for whole in (explicit(values), exponential(values)):
        for empty in ({"count": 0, "sum": 0.0}, {"count": 0, "scale": -2, "zero_count": 0}, explicit([], [3.0])):
            assert merged(empty, whole, empty) == normal(whole)


@pytest.mark.parametrize(
    "parts",
    [
        {"bounds": [1.0], "indices": [10**9], "counts": [1]},
        {"bounds": [1.0], "indices": [-1], "counts": [1]},
        {"bounds": [1.0], "indices": [0, 1], "counts": [1]},
        {"bounds": [1.0], "indices": [0], "counts": [-1]},
        {"scale": 2**31 - 1, "indices": [0], "counts": [1]},
    ],
)
def test_a_histogram_that_nothing_sent_is_rejected(parts) -> None:
    wrong = column({"count": 1, **parts})
    for call in (merge_all, functions.buckets, lambda one: functions.quantile(one, pa.array([0.5]))):
        with pytest.raises(InvalidStatement, match="inconsistent"):
            call(wrong)


BUCKET = {"count": 1, "bounds": [1.0], "indices": [0], "counts": [1]}


def test_infinite_and_unknown_facts_stay_what_they_are() -> None:
    ends = {"min": -math.inf, "max": math.inf, "sum": math.inf}
    assert merged({**BUCKET, **ends}, {**BUCKET, "min": 0.5, "max": 0.5, "sum": 0.5})["min"] == -math.inf
    for parts in ({**ends, "sum": math.nan}, {"min": 0.5}):
        found = merged({**BUCKET, **parts}, {**BUCKET, "min": 0.5, "sum": 0.5})
        assert (found["count"], "sum" in found) == (2, False)
    assert "sum" not in merged({**BUCKET, "sum": math.inf}, {**BUCKET, "sum": -math.inf})
    unbounded = {"count": 4, **ends, "bounds": [10.0], "indices": [1], "counts": [4]}
    for ratio in (0.0, 0.5, 1.0):
        assert quantile(unbounded, ratio) == 10.0
    starts = pa.array([5], pa.int64()).cast(TIME)
    (found,) = functions.increase(
        column({**BUCKET, "count": 2, "counts": [2], **ends}), starts, column({**BUCKET, **ends}), starts
    ).to_pylist()
    assert (found["count"], found["sum"]) == (1, None)


@pytest.mark.parametrize("kind", [{"bounds": [1.0]}, {"scale": 3, "zero_count": 0, "zero_threshold": 0.0}])
def test_merged_counts_are_exact_beyond_what_a_double_holds(kind) -> None:
    parts = [{"count": count, **kind, "indices": [1], "counts": [count]} for count in (2**53, 1, 2**53, 1, 1)]
    found = merged(*parts)
    assert (found["count"], found["counts"]) == (2**54 + 3, [2**54 + 3])


def test_a_wider_zero_bucket_is_no_reset() -> None:
    values, starts = [-3.0, -0.2, 0.1, 0.2, 3.0], pa.array([5], pa.int64()).cast(TIME)
    before, after = exponential(values, scale=2), exponential([*values, 0.0, 5.0, -0.1], scale=1, zero_threshold=1.0)
    (found,) = functions.increase(column(after), starts, column(before), starts).to_pylist()
    assert (found["count"], found["zero_count"], found["counts"], found["negative_counts"]) == (3, 2, [1], [])
    (found,) = functions.increase(
        column(exponential([0.1], zero_threshold=1.0)), starts, column(before), starts
    ).to_pylist()
    assert (found["count"], found["zero_count"]) == (1, 1)


@given(
    parts=st.lists(st.tuples(st.integers(0, 3), st.sampled_from([explicit, exponential, None]), _samples()), max_size=9)
)
@settings(deadline=None)
def test_groups_are_merged_as_each_alone(parts) -> None:
    kinds = {}
    rows = [(group, kinds.setdefault(group, make), values) for group, make, values in parts]
    bounds = [BOUNDS, BOUNDS[2:], [], BOUNDS]
    made = [
        None if make is None else make(values, bounds[(group + at) % 4]) if make is explicit else make(values, at % 3)
        for at, (group, make, values) in enumerate(rows)
    ]
    found = functions.merge_groups(column(*made), np.array([group for group, *_ in rows], np.int64), 4).to_pylist()
    for group, one in enumerate(found):
        own = [histogram for histogram, (number, *_) in zip(made, rows, strict=True) if number == group]
        assert (None if one is None else normal(one)) == merged(*own)
