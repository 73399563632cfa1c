"""What merging a million histograms costs, beside a native sum of the same buckets; printed, never judged."""

import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.telemetry.histograms import Lists, build_histograms
from tests.fakes.fixed_tables import data_files
from tests.unit.engine.conftest import asking

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

POINTS, GROUPS, SAMPLES, RUNS = 1_000_000, 340, 20, 3
BOUNDS = np.array([0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000], float)
SCALE = 5
NATIVE = (
    "SELECT part, at, sum(n) FROM (SELECT part, unnest(histogram['indices']) AS at, unnest(histogram['counts']) AS n "
    "FROM t) GROUP BY part, at"
)
MERGED = "SELECT part, histogram_quantile(histogram_merge(histogram), 0.99) FROM t GROUP BY part"


def _sparse(indices):
    """Return the nonempty buckets of points by the bucket of each of their samples."""
    indices = np.sort(indices, axis=1)
    first = np.concatenate([np.ones((len(indices), 1), bool), indices[:, 1:] != indices[:, :-1]], axis=1)
    starts = np.flatnonzero(first)
    lengths = first.sum(axis=1)
    return Lists(indices.ravel()[starts], lengths), Lists(np.diff(np.append(starts, indices.size)), lengths)


def _make(folder, *, is_exponential):
    chance = np.random.default_rng(1)
    parts = chance.integers(0, GROUPS, POINTS)
    samples = chance.lognormal(3 + parts[:, None] / GROUPS, 1, (POINTS, SAMPLES))
    columns = {"count": np.full(POINTS, SAMPLES), "sum": samples.sum(axis=1)}
    columns |= {"min": samples.min(axis=1), "max": samples.max(axis=1)}
    if is_exponential:
        found = np.ceil(np.log2(samples) * 2**SCALE).astype(np.int32) - 1
        columns |= {"scale": np.full(POINTS, SCALE, np.int32), "zero_count": np.zeros(POINTS, np.int64)}
        columns |= {"zero_threshold": np.zeros(POINTS)}
    else:
        found = np.searchsorted(BOUNDS, samples).astype(np.int32)
        columns["bounds"] = Lists(np.tile(BOUNDS, POINTS), np.full(POINTS, len(BOUNDS)))
    columns["indices"], columns["counts"] = _sparse(found)
    rows = pa.table({"part": pa.array(parts), "histogram": build_histograms(columns)})
    pq.write_table(rows, folder / "t.parquet", row_group_size=100_000)
    return TableSnapshot(name="t", schema=rows.schema, files=data_files(folder / "t.parquet"))


@pytest.mark.parametrize("kind", ["explicit", "exponential"])
def test_merges_beside_native_sums(tmp_path, say, kind):
    with asking([_make(tmp_path, is_exponential=kind == "exponential")]) as ask:
        native, merged = (min(_seconds(ask, sql) for _ in range(RUNS)) for sql in (NATIVE, MERGED))
    say(
        f"{POINTS:,} {kind} points into p99 of {GROUPS} groups: {merged:.2f} s of CPU, "
        f"x {merged / native:.2f} of {native:.2f} s"
    )


def _seconds(ask, sql):
    started = time.process_time()
    ask.table(sql)
    return time.process_time() - started
