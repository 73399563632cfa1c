"""OpenTelemetry's SDK for Python as it is installed: what a program sends is what queries find."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from micromegas_jupyter.core import jsonb
from tests.integration.otlp.exporting import properties

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc")
pytestmark = [pytest.mark.integration, pytest.mark.slow]

_ROOT = Path(__file__).parents[3]
_SERVICE = "service.name=shop-{0},service.namespace=demo,host.name=Box-1,process.owner=ada,os.description=Linux 6"


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_what_a_program_sends_is_what_queries_find(server, protocol):
    uri = server.lake.uri
    server.rows("SELECT 1")  # has an executor started, so that the program does not wait for that
    environment = {
        **os.environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": server.url if protocol == "http" else uri.replace("grpc:", "http:"),
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20collector",
        "OTEL_RESOURCE_ATTRIBUTES": _SERVICE.format(protocol),
    }
    command = [sys.executable, "-m", "tests.integration.otlp.program", protocol, uri, f"demo/shop-{protocol}"]
    child = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=True, timeout=120)

    print(child.stdout)
    assert "order 17 is late" in child.stdout
    assert "seen by SQL after" in child.stdout
    (log,) = server.rows(f"SELECT * FROM log_entries WHERE exe = 'demo/shop-{protocol}'")
    (span,) = server.rows(f"SELECT * FROM otel_spans WHERE exe = 'demo/shop-{protocol}'")
    # The SDK sends the metrics a second time when the program ends.
    measure = server.rows(f"SELECT * FROM measures WHERE exe = 'demo/shop-{protocol}' ORDER BY time")[0]
    (process,) = server.rows(f"SELECT * FROM processes WHERE exe = 'demo/shop-{protocol}'")
    streams = server.rows(f"SELECT * FROM streams WHERE process_id = '{process['process_id']}' ORDER BY format")
    blocks = server.rows(f"SELECT * FROM blocks WHERE process_id = '{process['process_id']}'")
    assert {key: log[key] for key in ("level", "msg", "target", "username", "computer")} == {
        "level": 3, "msg": "order 17 is late", "target": "shop.orders", "username": "ada", "computer": "Box-1"
    }  # fmt: skip
    logged = properties(log)
    assert logged["order"] == 17
    assert logged["code.function.name"] == "watched"
    assert (logged["otel.severity_text"], logged["otel.scope.name"]) == ("WARN", "shop.orders")
    assert (logged["otel.trace_id"], logged["otel.span_id"]) == (span["trace_id"].hex(), span["span_id"].hex())
    assert properties(log, "process_properties")["otel.resource.telemetry.sdk.language"] == "python"
    assert {key: span[key] for key in ("name", "kind", "status", "status_message", "parent_span_id")} == {
        "name": "checkout", "kind": "INTERNAL", "status": "UNSET", "status_message": None, "parent_span_id": None
    }  # fmt: skip
    assert properties(span) == {"cart.size": 3, "otel.scope.name": "shop.tracer", "otel.scope.version": "2.0"}
    (event,) = jsonb.decode(span["events"])
    assert (event["name"], event["attributes"]) == ("paid", {"amount": 12.5})
    assert jsonb.decode(span["links"]) == []
    assert span["duration"] >= 0
    assert {key: measure[key] for key in ("name", "unit", "value", "target")} == {
        "name": "orders", "unit": "1", "value": 2.0, "target": "shop.meter"
    }  # fmt: skip
    assert properties(measure) == {
        "country": "fr", "otel.metric.kind": "sum", "otel.metric.aggregation_temporality": 2,
        "otel.metric.is_monotonic": True,
    }  # fmt: skip
    assert {key: process[key] for key in ("username", "realname", "computer", "distro", "tsc_frequency")} == {
        "username": "ada", "realname": "ada", "computer": "Box-1", "distro": "Linux 6", "tsc_frequency": 10**9
    }  # fmt: skip
    assert [(one["format"], one["tags"]) for one in streams] == [
        ("otlp/v1/logs", ["log"]), ("otlp/v1/metrics", ["metrics"]), ("otlp/v1/traces", ["trace"])
    ]  # fmt: skip
    (seconds,) = server.rows(
        "SELECT histogram_quantile(histogram, 0.5) AS median, histogram['count'] AS n FROM histograms "
        f"WHERE exe = 'demo/shop-{protocol}' ORDER BY time LIMIT 1"
    )
    assert seconds == {"median": 0.5, "n": 1}
    objects = {one["block_id"]: one["nb_objects"] for one in blocks}
    assert (objects[log["block_id"]], objects[span["block_id"]], objects[measure["block_id"]]) == (1, 1, 2)
