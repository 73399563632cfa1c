"""The views `histogram_increases` and `counter_increases`, over rows made of real OTLP messages."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.engine.contract import TimeRange
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.otlp.decode import decode_request
from micromegas_jupyter.otlp.exchange import ExportRequest, Signal
from micromegas_jupyter.otlp.mapping import OriginCache, map_request
from micromegas_jupyter.telemetry.tables import HISTOGRAMS, INCREASE_LOOKBACK_SECONDS, MEASURES
from tests.fakes.telemetry_rows import NOON, NOON_NS
from tests.integration.otlp.exporting import attributes, export
from tests.unit.engine.conftest import asking
from tests.unit.engine.test_views import stored

SECOND = 10**9
MINUTE = 60 * SECOND
BOUNDS = [1.0, 10.0, 100.0]
DELTA, CUMULATIVE = 1, 2
SUMS = "SELECT sum(histogram['count']) AS n, sum(histogram['sum']) AS total FROM histogram_increases"


def points(values_by_minute, *, start=0, temporality=CUMULATIVE, resets=(), tenant="a", name="latency"):
    """Return a metric whose points are a minute apart; each has the values since the start, or its own if delta."""
    metric = Metric(name=name)
    metric.histogram.aggregation_temporality = temporality
    known, since = [], NOON_NS + start * MINUTE - 30 * SECOND
    for minute, values in enumerate(values_by_minute, start):
        is_new = temporality == DELTA or minute in resets
        since = NOON_NS + minute * MINUTE - 30 * SECOND if is_new else since
        known = list(values) if is_new else [*known, *values]
        counts = np.bincount(np.searchsorted(BOUNDS, known), minlength=4)
        metric.histogram.data_points.add(
            time_unix_nano=NOON_NS + minute * MINUTE, start_time_unix_nano=since, count=len(known), sum=sum(known),
            bucket_counts=counts.tolist(), explicit_bounds=BOUNDS, attributes=attributes({"tenant": tenant}),
        )  # fmt: skip
    return metric


def counter(values, *, kind=CUMULATIVE, name="requests", is_monotonic=True, tenant="a"):
    """Return a counter whose values are a minute apart."""
    metric = Metric(name=name)
    metric.sum.aggregation_temporality, metric.sum.is_monotonic = kind, is_monotonic
    for minute, value in enumerate(values):
        metric.sum.data_points.add(
            time_unix_nano=NOON_NS + minute * MINUTE, as_double=value, attributes=attributes({"tenant": tenant})
        )
    return metric


def mapped_rows(*metrics, name="web"):
    """Return the rows of an export of a service, by table."""
    body = export("metrics", *metrics, service=name).SerializeToString()
    request = ExportRequest(signal=Signal.METRICS, body=body)
    mapped = map_request(
        request.signal, decode_request(request), origins=OriginCache(), now_ns=NOON_NS, is_trusted=True
    )
    assert not mapped.refusals.count
    return mapped.records.items()


def tables(folder, *metrics, services=("web",)):
    """Return both tables, each service in a file of its own."""
    rows = {HISTOGRAMS.name: [], MEASURES.name: []}
    for service in services:
        for table, batch in mapped_rows(*metrics, name=service):
            rows[table].append(batch)
    folder.mkdir(exist_ok=True)
    return [
        stored(folder, definition, rows[definition.name])
        if rows[definition.name]
        else TableSnapshot(name=definition.name, schema=definition.schema, files=(), range_columns=("time", "time"))
        for definition in (HISTOGRAMS, MEASURES)
    ]


@pytest.fixture(scope="module")
def values():
    random = np.random.default_rng(7)
    return [random.lognormal(2, 1, random.integers(0, 9)).tolist() for _ in range(60)]


@pytest.mark.parametrize("temporality", [CUMULATIVE, DELTA])
def test_every_value_counts_once_across_restarts(tmp_path, values, temporality):
    metric = points(values, temporality=temporality, resets={13, 40, 41})
    with asking(tables(tmp_path / "t", metric, services=("web", "api"))) as ask:
        (row,) = ask.rows(SUMS)
        assert row["n"] == 2 * sum(map(len, values))
        assert row["total"] == pytest.approx(2 * sum(map(sum, values)))
        for first, last in ((20, 29), (13, 13), (40, 59), (0, 5)):
            part = values[first : last + 1]
            times = TimeRange(begin=NOON + timedelta(minutes=first), end=NOON + timedelta(minutes=last))
            (row,) = ask.rows(SUMS, time_range=times)
            assert row["n"] == 2 * sum(map(len, part)), (first, last)
        by_seconds = ask.rows("SELECT seconds, count(*) AS n FROM histogram_increases GROUP BY 1 ORDER BY 1")
    restarts = 2 * (60 if temporality == DELTA else 4)
    assert (
        by_seconds == [{"seconds": 30.0, "n": restarts}, {"seconds": 60.0, "n": 120 - restarts}][: 1 + (restarts < 120)]
    )


def test_the_first_point_of_a_series_that_began_long_before_has_no_increase(tmp_path):
    late = points([[5.0]] * 4, start=30)
    late.histogram.data_points[0].start_time_unix_nano -= (INCREASE_LOOKBACK_SECONDS + 1) * SECOND
    for point in late.histogram.data_points:
        point.start_time_unix_nano = late.histogram.data_points[0].start_time_unix_nano
    with asking(tables(tmp_path / "t", late)) as ask:
        rows = ask.rows("SELECT histogram['count'] AS n, seconds FROM histogram_increases ORDER BY time")
        sums = ask.rows(SUMS)
        computed = ask.rows(
            "SELECT sum(h['count']) AS n, count(h['sum']) AS known FROM "
            "(SELECT CASE WHEN histogram['count'] < 3 THEN NULL ELSE histogram END AS h FROM histograms)"
        )
    assert [row["n"] for row in rows] == [None, 1, 1, 1]
    assert sums == [{"n": 3, "total": 15.0}]
    assert computed == [{"n": 7, "known": 2}]


def test_a_first_point_that_begins_at_its_own_time_has_no_increase(tmp_path):
    """OpenTelemetry's sign of an unknown start, as the Collector sends it for what it scrapes from Prometheus."""
    scraped = points([[5.0] * 1000, [5.0], [5.0]])
    for point in scraped.histogram.data_points:
        point.start_time_unix_nano = scraped.histogram.data_points[0].time_unix_nano
    with asking(tables(tmp_path / "t", scraped)) as ask:
        rows = ask.rows("SELECT histogram['count'] AS n, seconds FROM histogram_increases ORDER BY time")
    assert [tuple(row.values()) for row in rows] == [(None, None), (1, 60.0), (1, 60.0)]


def test_a_point_without_a_start_is_no_reset(tmp_path):
    metric = points([[5.0]] * 4)
    metric.histogram.data_points[2].start_time_unix_nano = 0
    with asking(tables(tmp_path / "t", metric)) as ask:
        rows = ask.rows("SELECT histogram['count'] AS n, seconds FROM histogram_increases ORDER BY time")
    assert [tuple(row.values()) for row in rows] == [(1, 30.0), (1, 60.0), (1, 60.0), (1, 60.0)]


def test_a_value_that_is_flagged_as_not_recorded_is_no_reset(tmp_path):
    metric = counter([5, 0, 7])
    metric.sum.data_points[1].flags = 1
    with asking(tables(tmp_path / "t", metric)) as ask:
        rows = ask.rows("SELECT value, increase FROM counter_increases ORDER BY time")
    assert [tuple(row.values()) for row in rows] == [(5.0, None), (7.0, 2.0)]


def test_quantiles_and_merges_are_of_the_values_in_the_range(tmp_path, values):
    with asking(tables(tmp_path / "t", points(values))) as ask:
        times = TimeRange(begin=NOON + timedelta(minutes=10), end=NOON + timedelta(minutes=19))
        (row,) = ask.rows(
            "SELECT histogram_quantile(histogram_merge(histogram), 0.9) AS p90 FROM histogram_increases",
            time_range=times,
        )
        (bins,) = ask.rows(
            "SELECT quantile_from_histogram(histogram_to_bins(histogram_merge(histogram), 0, 100, 100), 0.9) AS p90 "
            "FROM histogram_increases",
            time_range=times,
        )
        buckets = ask.rows(
            "SELECT b['lower'] AS lower, b['count'] AS n FROM "
            "(SELECT unnest(histogram_buckets(histogram_merge(histogram))) AS b FROM histogram_increases) ORDER BY 1",
            time_range=times,
        )
    own = [value for part in values[10:20] for value in part]
    true = np.quantile(own, 0.9, method="inverted_cdf")
    at = int(np.searchsorted(BOUNDS, true))
    assert BOUNDS[at - 1] <= row["p90"] <= BOUNDS[at]
    assert bins["p90"] == pytest.approx(row["p90"], abs=3)
    counts = np.bincount(np.searchsorted(BOUNDS, own), minlength=4)
    assert [bucket["n"] for bucket in buckets] == counts[counts > 0].tolist()


def test_increases_and_rates_of_counters(tmp_path):
    metrics = (
        counter([5, 65, 65, 30, 90]),
        counter([5, 7], kind=DELTA, name="deltas"),
        counter([5, 3], name="level", is_monotonic=False),
    )
    with asking(tables(tmp_path / "t", *metrics)) as ask:
        rows = ask.rows("SELECT name, increase, rate FROM counter_increases ORDER BY name, time")
    assert [tuple(row.values()) for row in rows] == [
        ("deltas", 5.0, None), ("deltas", 7.0, 7 / 60), ("requests", None, None), ("requests", 60.0, 1.0),
        ("requests", 0.0, 0.0), ("requests", 30.0, 0.5), ("requests", 60.0, 1.0),
    ]  # fmt: skip


VISIBLE = "property_get(properties, 'tenant') = 'a'"
STATEMENTS = (
    SUMS,
    "SELECT count(*), min(time), max(time), approx_distinct(series) FROM histogram_increases",
    "SELECT name, histogram['count'], seconds FROM histogram_increases ORDER BY name, time",
    "SELECT 1 / (histogram['count'] - 7) FROM histogram_increases",
    "SELECT time FROM histogram_increases WHERE 1 / (histogram['count'] - 7) > 0 OR name = 'latency'",
    "SELECT CAST(name AS INT) FROM histogram_increases",
    "SELECT histogram_quantile(histogram_merge(histogram), 0.5) FROM histogram_increases",
    "SELECT histogram_quantile(histogram, 1 / (histogram['count'] - 7)) FROM histograms",
    "SELECT histogram_merge(histogram)['count'] FROM histograms GROUP BY name",
    "SELECT histogram_to_bins(histogram, 0, CAST(name AS DOUBLE), 3) FROM histograms",
    "SELECT unnest(histogram_buckets(histogram)) FROM histograms",
    "SELECT name, increase, rate FROM counter_increases ORDER BY name, time",
    "SELECT 1 / (increase - 7) FROM counter_increases",
    "SELECT sum(increase), max(rate) FROM counter_increases WHERE CAST(value AS INT) / (value - 7) > 0 OR true",
    "SELECT * FROM view_instance('histogram_increases', 'global') WHERE 1 / (histogram['count'] - 7) < 9",
)


def _outcome(ask, sql):
    try:
        rows = ask.rows(sql)
    except MicromegasError as error:
        return type(error)  # its text doesn't name values to those who see only some rows
    return sorted(map(repr, rows))


def test_hidden_rows_leave_no_trace_in_what_is_computed_from_them(tmp_path, values):
    own = (points(values[:30], name="1"), counter([1, 8, 15, 2], name="1"))
    hidden = (
        points([*values[30:], [1.0] * 7], tenant="b", name="secret"),
        counter([7, 14], name="secret", tenant="b"),
        points([[1.0] * 7] * 30, tenant="b", name="1"),
    )
    with asking(tables(tmp_path / "own", *own)) as alone, asking(tables(tmp_path / "all", *own, *hidden)) as everything:
        conditions = dict.fromkeys((HISTOGRAMS.name, MEASURES.name), (VISIBLE,))
        shown = everything.seeing({"*": (), **conditions})
        for sql in STATEMENTS:
            assert _outcome(shown, sql) == _outcome(alone, sql), sql
        differing = sum(_outcome(everything, sql) != _outcome(alone, sql) for sql in STATEMENTS)
    assert differing >= len(STATEMENTS) - 3


def test_the_views_need_the_right_to_their_source(tmp_path):
    with asking(tables(tmp_path / "t", counter([1]))) as ask:
        for filters in ({"histogram_increases": ()}, {"histograms": ()}):
            with pytest.raises(MicromegasError, match="no table named histogram_increases"):
                ask.seeing(filters).rows(SUMS)
        assert ask.seeing({"histogram_increases": (), "histograms": ()}).rows(SUMS) == [{"n": None, "total": None}]


def test_a_series_has_the_same_number_in_every_export(tmp_path, values):
    both = tables(tmp_path / "t", points(values[:3]), points(values[:3], tenant="b"), services=("web", "api"))
    again = tables(tmp_path / "again", points(values[3:5], start=3))
    with asking(both) as ask, asking(again) as later:
        numbers = {row["series"] for row in ask.rows("SELECT series FROM histograms")}
        (own,) = {row["series"] for row in later.rows("SELECT series FROM histograms")}
    assert len(numbers) == 4
    assert own in numbers


def test_the_previous_point_may_be_in_another_file(tmp_path, values):
    first, second = points(values[:10]), points(values[:20])
    del second.histogram.data_points[:10]
    with asking(tables(tmp_path / "t", first)) as ask, asking(tables(tmp_path / "u", second)) as other:
        parts = [one.tables.snapshot()[0] for one in (ask, other)]
        whole = replace(
            parts[0],
            files=(*parts[0].files, *parts[1].files),
            bounds=pa.concat_tables([one.bounds for one in parts]),
        )
        with asking([whole]) as joined:
            (row,) = joined.rows(SUMS)
    assert row["n"] == sum(map(len, values[:20]))
