"""A server that takes exports, and the messages of exporters, made one by one so that a test can change any of them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import requests
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from micromegas_jupyter.core import jsonb
from micromegas_jupyter.flightsql.commands import messages
from micromegas_jupyter.server.http.endpoint import HttpEndpoint
from tests.fakes.telemetry_rows import NOON_NS
from tests.integration.ingest.lake_server import LakeServer, lake_server

if TYPE_CHECKING:
    from pathlib import Path

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
REQUESTS = {
    "logs": ExportLogsServiceRequest, "metrics": ExportMetricsServiceRequest, "traces": ExportTraceServiceRequest
}  # fmt: skip
ANSWERS = {
    "logs": ExportLogsServiceResponse, "metrics": ExportMetricsServiceResponse, "traces": ExportTraceServiceResponse
}  # fmt: skip
NOON = NOON_NS


@dataclass
class ExportServer:
    """A running server, and where it takes exports over HTTP."""

    lake: LakeServer
    url: str

    def post(self, signal, body, *, token="collector", kind=PROTOBUF, prefix="", **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"Authorization": f"Bearer {token}", "Content-Type": kind, **named}
        data = body if isinstance(body, bytes | str) else body.SerializeToString()
        return requests.post(f"{self.url}{prefix}/v1/{signal}", data=data, headers=sent, timeout=60)

    def rows(self, sql):
        with self.lake.client("alice") as client:
            return client.query_arrow(sql).to_pylist()

    def count(self, name, **labels):
        registry = self.lake.flight.server.metrics.registry
        return registry.get_sample_value(f"micromegas_server_otlp_{name}_total", labels)


@contextmanager
def export_server(root: Path, **settings):
    with lake_server(root, **settings) as lake:
        server = lake.flight.server
        endpoint = HttpEndpoint(
            "127.0.0.1",
            0,
            validator=lake.flight.validator,
            registries=(server.metrics.registry,),
            readiness=lambda: None,
            exports=server.exports,
        )
        try:
            yield ExportServer(lake, f"http://127.0.0.1:{endpoint.start()}")
        finally:
            endpoint.stop()


def status_of(answer):
    """The `google.rpc.Status` of an answer in protobuf."""
    return messages.Status.FromString(answer.content)


def any_value(value):
    if value is None:
        return AnyValue()
    if isinstance(value, list):
        made = AnyValue()
        made.array_value.values.extend(map(any_value, value))
        return made
    if isinstance(value, dict):
        made = AnyValue()
        made.kvlist_value.values.extend(attributes(value))
        return made
    kind = {bool: "bool_value", int: "int_value", float: "double_value", bytes: "bytes_value", str: "string_value"}
    return AnyValue(**{kind[type(value)]: value})


def attributes(values):
    return [KeyValue(key=key, value=any_value(value)) for key, value in values.items()]


def export(signal, *records, service="shop", scope="shop.lib", **resource):
    """A request with records of one resource and one scope."""
    request = REQUESTS[signal]()
    suffix = "spans" if signal == "traces" else signal
    message = getattr(request, f"resource_{suffix}").add()
    message.resource.attributes.extend(attributes({"service.name": service, **resource}))
    part = getattr(message, f"scope_{suffix}").add()
    part.scope.name = scope
    part.scope.version = "1.2"
    field = {"logs": "log_records", "metrics": "metrics", "traces": "spans"}[signal]
    getattr(part, field).extend(records)
    return request


def properties(row, name="properties"):
    return jsonb.decode(row[name])
