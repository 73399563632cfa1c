"""Metrics of a server and of a validator of which each has counted something, so that all are reported."""

from pathlib import Path

from micromegas_jupyter.access.audit import AccessMetrics
from micromegas_jupyter.errors import ResourcesExhausted
from micromegas_jupyter.executors.launcher import SpawnLauncher
from micromegas_jupyter.executors.pool import Pool, StatementReport
from micromegas_jupyter.executors.settings import PoolSettings, WorkerOptions
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.server.monitoring import ServerMetrics


def server_metrics():
    metrics = ServerMetrics()
    metrics.count_call("/arrow.flight.protocol.FlightService/DoGet", "OK")
    metrics.count_error(ResourcesExhausted("Too much."))
    metrics.count_query(StatementReport(), 0.001, "ok")
    options = WorkerOptions(lake=None, denials_file=None, spill_directory="")
    metrics.watch_pool(Pool(SpawnLauncher(options), Lake(Path("lake")), settings=PoolSettings(), options=options))
    return metrics


def access_metrics():
    metrics = AccessMetrics()
    metrics.count_decision("refused", "expired", 0.001)
    metrics.count_key_fetch("https://id.example.com", succeeded=True)
    metrics.rate_limited.labels("identity").inc()
    metrics.key_ages = {"https://id.example.com": lambda: 1.0}
    return metrics
