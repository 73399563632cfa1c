"""Histograms of real SDKs: no point is lost, and quantiles agree with the values and with promtool."""

import json
import math
import os
import re
import shutil
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from opentelemetry.sdk.metrics import Histogram, MeterProvider, TraceBasedExemplarFilter
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from micromegas_jupyter.engine.contract import TimeRange
from micromegas_jupyter.telemetry.histograms import Lists, build_histograms
from micromegas_jupyter.telemetry.tables import HISTOGRAMS
from tests.architecture.guide_text import blocks
from tests.fakes.telemetry_rows import NOON, NOON_NS
from tests.integration.other_provider.installing import find_node, install_once
from tests.unit.engine.conftest import asking
from tests.unit.engine.test_views import stored

http = pytest.importorskip("opentelemetry.exporter.otlp.proto.http.metric_exporter")
grpc = pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc.metric_exporter")
http_spans = pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
pytestmark = [pytest.mark.integration, pytest.mark.slow]

_DEBIAN_GO = Path("/usr/share/gocode")
_NODE = Path(__file__).parent / "node"
TOKEN = {"authorization": "Bearer collector"}
BOUNDS = [-1.0, -0.5, 0.0, 0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0]
RATIOS = (0.5, 0.9, 0.99)
STEPS, VALUES = 6, 2000


def make_steps(count=STEPS, size=VALUES, *, has_negative=False):
    """Return what a program measures between exports, by route: narrow, wide with zeros, or on both sides of zero."""
    random = np.random.default_rng(3)
    steps = [
        {
            "/cart": random.lognormal(math.log(0.05), 0.7, size).tolist(),
            "/search": [0.0] * (size // 10) + random.lognormal(math.log(0.1), 1.2, size).tolist(),
        }
        for _ in range(count)
    ]
    if has_negative:
        for step in steps:
            step["/drift"] = random.normal(-0.3, 0.3, size).tolist()
    return steps


def send_from_python(server, steps, *, protocol, temporality, service):
    kinds = {Histogram: AggregationTemporality[temporality.upper()]}
    if protocol == "http":
        url = f"{server.url}/v1/metrics"
        exporter = http.OTLPMetricExporter(url, headers=TOKEN, preferred_temporality=kinds)
    else:
        url = server.lake.uri.replace("grpc:", "http:")
        headers = tuple(TOKEN.items())
        exporter = grpc.OTLPMetricExporter(url, insecure=True, headers=headers, preferred_temporality=kinds)
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=math.inf)
    views = [View(instrument_name="*.exp", aggregation=ExponentialBucketHistogramAggregation(max_size=160))]
    provider = MeterProvider([reader], Resource({"service.name": service}), views=views)
    meter = provider.get_meter("shop.meter")
    instruments = (
        meter.create_histogram("latency", "s", explicit_bucket_boundaries_advisory=BOUNDS),
        meter.create_histogram("latency.exp", "s"),
    )
    for step in steps:
        for route, values in step.items():
            for value in values:
                for instrument in instruments:
                    instrument.record(value, {"http.route": route})
        assert provider.force_flush()
    provider.shutdown()


def check_points(server, steps, *, temporality, service):
    """Check that every point and value is there and quantiles are right; return the merged histograms."""
    points = server.rows(
        "SELECT name, is_cumulative, count(*) AS points, count(DISTINCT time) AS times FROM histograms "
        f"WHERE exe = '{service}' GROUP BY 1, 2 ORDER BY 1"
    )
    expected = {"is_cumulative": temporality == "cumulative", "points": len(steps[0]) * len(steps), "times": len(steps)}
    assert points == [{"name": name, **expected} for name in ("latency", "latency.exp")]
    quantiles = ", ".join(f"histogram_quantile(merged, {ratio})" for ratio in RATIOS)
    rows = server.rows(
        f"SELECT name, route, merged, make_array({quantiles}) AS found, histogram_buckets(merged) AS buckets FROM "
        "(SELECT name, property_get(properties, 'http.route') AS route, histogram_merge(histogram) AS merged "
        f"FROM histogram_increases WHERE exe = '{service}' GROUP BY 1, 2) ORDER BY 1, 2"
    )
    routes = sorted(steps[0])
    assert [(row["name"], row["route"]) for row in rows] == [
        (name, route) for name in ("latency", "latency.exp") for route in routes
    ]
    for row in rows:
        values = np.concatenate([step[row["route"]] for step in steps])
        merged, found = row["merged"], np.array(row["found"])
        assert merged["count"] == len(values)
        assert merged["sum"] == pytest.approx(values.sum())
        true = np.quantile(values, RATIOS, method="inverted_cdf")
        error = np.abs(found / true - 1)
        print(f"{service} {row['name']} {row['route']}: {found} scale {merged['scale']}, off by {error}")
        if merged["scale"] is None:
            assert (np.searchsorted(BOUNDS, found) == np.searchsorted(BOUNDS, true)).all()
        else:
            assert (error <= 2 ** (2.0 ** -merged["scale"]) - 1).all()
    return rows


def compare_with_promtool(rows, folder):
    """Check that promtool returns the same from the same buckets; in exponential ones it interpolates linearly."""
    tests, program = [], shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is missing: apt-get install -y prometheus")
    for number, row in enumerate(rows):
        merged = row["merged"]
        if merged["scale"] is None:
            counts = dict(zip(merged["indices"], merged["counts"], strict=True))
            totals = np.cumsum([counts.get(index, 0) for index in range(len(BOUNDS) + 1)])
            labels = [*map(repr, BOUNDS), "+Inf"]
            series = [
                {"series": f'h{number}_bucket{{le="{le}"}}', "values": str(total)}
                for le, total in zip(labels, totals, strict=True)
            ]
            name = f"h{number}_bucket"
        else:
            point = (
                f"schema:{merged['scale']} count:{merged['count']} z_bucket:{merged['zero_count']} "
                + _dense("", merged["indices"], merged["counts"])
                + _dense("n_", merged["negative_indices"], merged["negative_counts"])
            )
            series, name = [{"series": f"h{number}", "values": f"{{{{{point}}}}}"}], f"h{number}"
        asked = [
            {
                "expr": f"histogram_quantile({q}, {name})",
                "eval_time": "0m",
                "exp_samples": [{"labels": "{}", "value": -1}],
            }
            for q in RATIOS
        ]
        tests.append({"interval": "1m", "input_series": series, "promql_expr_test": asked})
    (folder / "tests.yml").write_text(json.dumps({"tests": tests}), encoding="utf-8")
    command = [program, "test", "rules", str(folder / "tests.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    got = re.findall(
        r"expr: \"histogram_quantile\(([\d.]+), h(\d+)(?:_bucket)?\)\".*?got: *\{\} (\S+)", done.stderr, re.DOTALL
    )
    assert len(got) == len(RATIOS) * len(rows), done.stderr
    for ratio, number, text in got:
        row, theirs = rows[int(number)], float(text)
        ours = row["found"][RATIOS.index(float(ratio))]
        print(f"{row['name']} {row['route']} p{ratio}: {ours} here, {theirs} by promtool")
        if row["merged"]["scale"] is not None:
            lower, upper = next(
                (one["lower"], one["upper"]) for one in row["buckets"] if one["lower"] <= theirs <= one["upper"]
            )
            theirs = lower * (upper / lower) ** ((theirs - lower) / (upper - lower))
        assert ours == pytest.approx(theirs, rel=1e-6)


def _dense(prefix, indices, counts):
    """Return buckets as promtool reads them; it counts their indices from 1."""
    if not indices:
        return ""
    found = dict(zip(indices, counts, strict=True))
    listed = " ".join(str(found.get(index, 0)) for index in range(indices[0], indices[-1] + 1))
    return f" {prefix}offset:{indices[0] + 1} {prefix}buckets:[{listed}]"


def test_python_loses_no_point(server):
    """The cheap case of those below."""
    steps = make_steps(3, 200)
    send_from_python(server, steps, protocol="http", temporality="delta", service="cheap")
    check_points(server, steps, temporality="delta", service="cheap")


@pytest.mark.long
@pytest.mark.parametrize("temporality", ["delta", "cumulative"])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_python_s_quantiles_are_those_of_promtool(server, tmp_path, protocol, temporality):
    steps, service = make_steps(), f"python-{protocol}-{temporality}"
    send_from_python(server, steps, protocol=protocol, temporality=temporality, service=service)
    compare_with_promtool(check_points(server, steps, temporality=temporality, service=service), tmp_path)


@pytest.fixture(scope="module")
def node_program(pytestconfig):
    files = ("package.json", "package-lock.json", "send.mjs")
    return install_once(Path(pytestconfig.cache.mkdir("otlp_node")), source=_NODE, files=files) / "send.mjs"


@pytest.mark.long
@pytest.mark.parametrize("temporality", ["delta", "cumulative"])
@pytest.mark.parametrize("protocol", ["proto", "http"])
def test_node_s_quantiles_are_those_of_promtool(server, tmp_path, node_program, protocol, temporality):
    steps, service = make_steps(), f"node-{protocol}-{temporality}"
    (tmp_path / "values.json").write_text(json.dumps({"bounds": BOUNDS, "steps": steps}), encoding="utf-8")
    node, _npm = find_node()
    command = [node, node_program, protocol, temporality, server.url, service, tmp_path / "values.json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    compare_with_promtool(check_points(server, steps, temporality=temporality, service=service), tmp_path)


@pytest.fixture(scope="module")
def go_program(pytestconfig, tmp_path_factory):
    """Build a program with the SDK that Debian has."""
    if shutil.which("go") is None or not (_DEBIAN_GO / "src/go.opentelemetry.io/otel").is_dir():
        pytest.skip("Go's SDK is missing: apt-get install -y golang-go golang-opentelemetry-otel-dev")
    program, cache = tmp_path_factory.mktemp("go") / "send", pytestconfig.cache.mkdir("go")
    environ = {**os.environ, "GO111MODULE": "off", "GOPATH": str(_DEBIAN_GO), "GOCACHE": str(cache)}
    command = ["go", "build", "-o", str(program), str(Path(__file__).parent / "go" / "main.go")]
    subprocess.run(command, env=environ, check=True, timeout=1800)
    return program


@pytest.mark.long
@pytest.mark.parametrize("temporality", ["delta", "cumulative"])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_go_s_quantiles_are_those_of_promtool(server, tmp_path, go_program, protocol, temporality):
    steps, service = make_steps(has_negative=True), f"go-{protocol}-{temporality}"
    (tmp_path / "values.json").write_text(json.dumps({"bounds": BOUNDS, "steps": steps}), encoding="utf-8")
    endpoint = server.url if protocol == "http" else server.lake.uri.replace("grpc:", "http:")
    command = [go_program, protocol, temporality, endpoint, service, tmp_path / "values.json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    compare_with_promtool(check_points(server, steps, temporality=temporality, service=service), tmp_path)


def test_exemplars_lead_to_the_spans_that_measured_them(server):
    resource = Resource({"service.name": "exemplars"})
    spans = TracerProvider(resource=resource)
    spans.add_span_processor(SimpleSpanProcessor(http_spans.OTLPSpanExporter(f"{server.url}/v1/traces", headers=TOKEN)))
    exporter = http.OTLPMetricExporter(f"{server.url}/v1/metrics", headers=TOKEN)
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=math.inf)
    meters = MeterProvider([reader], resource, exemplar_filter=TraceBasedExemplarFilter())
    seconds = meters.get_meter("shop.meter").create_histogram(
        "checkout", "s", explicit_bucket_boundaries_advisory=[1, 2, 3]
    )
    tracer = spans.get_tracer("shop.tracer")
    for number in range(4):  # in a bucket each: an SDK keeps one exemplar of a bucket
        with tracer.start_as_current_span(f"pay {number}"):
            seconds.record(number + 0.5)
    seconds.record(2.25)  # outside of a trace
    assert meters.force_flush()
    spans.shutdown()
    meters.shutdown()
    (statement,) = (block.text for block in blocks("data-model.md") if "jsonb_elements(exemplars)" in block.text)

    found = server.rows(f"SELECT name, value, operation, duration > 0 AS took FROM ({statement}) ORDER BY value")

    assert [tuple(row.values()) for row in found if row["name"] == "checkout"] == [
        ("checkout", number + 0.5, f"pay {number}", True) for number in range(4)
    ]


@pytest.mark.parametrize("temporality", ["delta", "cumulative"])
@pytest.mark.parametrize("aggregation", [None, ExponentialBucketHistogramAggregation()])
def test_the_documented_statements_give_percentile_average_and_attributes(server, aggregation, temporality):
    kind = "explicit" if aggregation is None else "exponential"
    resource = Resource({"service.name": "web", "service.instance.id": f"{kind} {temporality}"})
    reader = PeriodicExportingMetricReader(
        http.OTLPMetricExporter(
            f"{server.url}/v1/metrics",
            headers=TOKEN,
            preferred_temporality={Histogram: AggregationTemporality[temporality.upper()]},
        ),
        export_interval_millis=math.inf,
    )
    views = [] if aggregation is None else [View(instrument_name="*", aggregation=aggregation)]
    meters = MeterProvider([reader], resource, views=views)
    seconds = meters.get_meter("shop.meter").create_histogram(
        "http.server.request.duration", "s", explicit_bucket_boundaries_advisory=[1, 2, 3]
    )
    for values in ([0.5] * 49 + [2.5], [0.5] * 49 + [2.5]):
        for value in values:
            seconds.record(value)
        assert meters.force_flush()
    meters.shutdown()
    per_minute, attributes = (
        next(block.text for block in blocks("sql.md") if text in block.text)
        for text in ("histogram_quantile(histogram_merge", "FROM jsonb_each((")
    )
    instance = "property_get(process_properties, 'otel.resource.service.instance.id')"
    per_minute = per_minute.replace("GROUP BY 1, 2", f"AND {instance} = '{kind} {temporality}' GROUP BY 1, 2")

    rows = server.rows(per_minute)
    found = server.rows(attributes)

    assert 1 <= len(rows) <= 2  # minutes
    for row in rows:
        assert row["exe"] == "web"
        assert row["p99"] == pytest.approx(2.5, abs=0.5)
        assert row["mean"] == pytest.approx(0.54)
    assert {"key": "otel.resource.service.name", "value": "web"} in found


SERIES, POINTS, RESTART = 400, 2500, 250
_SUMS = "SELECT sum(histogram['count']) AS n, sum(histogram['sum']) AS total FROM histogram_increases"


def cumulative_points(added, rows):
    """Return rows of cumulative points ten seconds apart; each series begins anew after every `RESTART` points."""
    series, points, width = added.shape
    running = np.cumsum(added, axis=1, dtype=np.int64)
    age = (np.arange(points) + 7 * np.arange(series)[:, None]) % RESTART  # restarts of series are at different times
    started = np.maximum(np.arange(points) - age, 0)
    before = np.take_along_axis(running, np.maximum(started - 1, 0)[:, :, None], axis=1)
    counts = np.where(started[:, :, None] > 0, running - before, running).reshape(-1, width)
    used = counts > 0
    places, indices = np.nonzero(used)
    total = len(counts)
    times = NOON_NS // 1000 + 10_000_000 * np.arange(points)
    bounds = np.arange(1, width, dtype=float)
    columns = {
        "count": counts.sum(axis=1),
        "sum": (counts @ np.arange(width)).astype(float),
        "bounds": Lists(np.tile(bounds, total), np.full(total, width - 1)),
        "indices": Lists.of_rows(indices, places, total),
        "counts": Lists.of_rows(counts[used], places, total),
    }
    known = {
        "time": pa.array(np.tile(times, series)).cast(pa.timestamp("us", "UTC")),
        "start_time": pa.array((times[started] - 5_000_000).ravel()).cast(pa.timestamp("us", "UTC")),
        "series": pa.array(np.repeat(np.arange(series), points)),
        "is_cumulative": pa.array(np.full(total, fill_value=True)),
        "histogram": build_histograms(columns),
    }
    return pa.table({name: known[name] if name in known else rows(name, total) for name in HISTOGRAMS.schema.names})


def _constant(name, count):
    kind = HISTOGRAMS.schema.field(name).type
    if name == "exemplars":
        return pa.nulls(count, kind)
    if name == "insert_time":
        return pa.array(np.full(count, NOON_NS // 1000)).cast(pa.timestamp("us", "UTC"))
    value = pa.array([b"" if pa.types.is_binary(getattr(kind, "value_type", kind)) else "latency"])
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), value)


@pytest.mark.long
def test_a_million_cumulative_points_with_restarts_add_up(tmp_path):
    added = np.random.default_rng(5).poisson(1.4, (SERIES, POINTS, 15)).astype(np.int32)
    weights = np.arange(15)
    with asking([stored(tmp_path, HISTOGRAMS, [cumulative_points(added, _constant)])]) as ask:
        started = time.process_time()
        (row,) = ask.rows(_SUMS)
        print(f"{added.size // 15} points, {row['n']} values: {time.process_time() - started:.1f} s of CPU")
        assert row == {"n": int(added.sum()), "total": float((added @ weights).sum())}
        # The first point of a range is compared with the one before it, or is the first after a restart.
        for first, last in ((249, 260), (RESTART * 3 - 7, RESTART * 3 - 7), (1000, POINTS - 1)):
            part = added[:, first : last + 1]
            begin, end = (NOON + timedelta(seconds=10 * point) for point in (first, last))
            (row,) = ask.rows(_SUMS, time_range=TimeRange(begin=begin, end=end))
            assert row == {"n": int(part.sum()), "total": float((part @ weights).sum())}, (first, last)
        (row,) = ask.rows("SELECT histogram_merge(histogram)['counts'] AS counts FROM histogram_increases")
        assert row["counts"] == added.sum(axis=(0, 1)).tolist()
