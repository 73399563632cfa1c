"""Metrics of a server and of a validator of which each has counted something, so that all are reported."""

from __future__ import annotations

from micromegas_jupyter.access.metrics import AccessMetrics
from micromegas_jupyter.errors import ResourcesExhausted
from micromegas_jupyter.seams import SYSTEM_CLOCK
from micromegas_jupyter.server import ServerMetrics
from micromegas_jupyter.server.metrics import QueryMeasure


def server_metrics() -> ServerMetrics:
    metrics = ServerMetrics()
    metrics.count_call("/arrow.flight.protocol.FlightService/DoGet", "OK")
    metrics.count_error(ResourcesExhausted("Too much."))
    metrics.count_query(QueryMeasure(SYSTEM_CLOCK), "ok")
    metrics.watch_queries("small", running=lambda: 0, waiting=lambda: 0)
    return metrics


def access_metrics() -> AccessMetrics:
    metrics = AccessMetrics()
    metrics.count_decision("refused", "expired", 0.001)
    metrics.count_key_fetch("https://id.example.com", succeeded=True)
    metrics.count_rate_limited("identity")
    metrics.watch_keys("https://id.example.com", lambda: 1.0)
    metrics.note_in_force(SYSTEM_CLOCK.now())
    return metrics
