"""The pages of metrics name all and only what is reported; dashboard and alerts ask only for what there is."""

import json
import re
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from prometheus_client import CollectorRegistry

from micromegas_jupyter.access.audit import AccessMetrics
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import ResourcesExhausted
from micromegas_jupyter.executors.launcher import SpawnLauncher
from micromegas_jupyter.executors.pool import Pool, StatementReport
from micromegas_jupyter.executors.settings import PoolSettings, WorkerOptions
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.server.monitoring import ServerMetrics
from micromegas_jupyter.server.recorder.recorder import ProcessSampler
from micromegas_jupyter.server.settings import TlsFiles
from micromegas_jupyter.server.tls import HttpTls
from tests.architecture.guide_text import DOCS, ROOT, read_page, table_rows
from tests.fakes.certificates import Authority

PAGE = read_page("metrics.md")
METRIC = re.compile(r"\b((?:micromegas|process)_[a-z_]+)\b(?:\{([^}]*)\})?")
#: What Prometheus adds itself.
ADDED_LABELS = {"instance", "job"}


def server_metrics():
    """Return metrics of which each has counted something, so that all are reported."""
    metrics = ServerMetrics()
    metrics.count_call("/arrow.flight.protocol.FlightService/DoGet", "OK")
    metrics.count_error(ResourcesExhausted("Too much."))
    metrics.count_query(StatementReport(), 0.001, "ok")
    options = WorkerOptions(lake=None, denials_file=None, spill_directory="")
    metrics.watch_pool(Pool(SpawnLauncher(options), Lake(Storage("lake")), settings=PoolSettings(), options=options))
    return metrics.registry


def access_metrics():
    metrics = AccessMetrics()
    metrics.count_decision("refused", "expired", 0.001)
    metrics.count_key_fetch("https://id.example.com", succeeded=True)
    metrics.count_rate_limited("identity")
    metrics.key_ages = {"https://id.example.com": lambda: 1.0}
    return metrics.registry


def tls_metrics():
    registry = CollectorRegistry()
    with TemporaryDirectory() as folder:
        pair = Authority(Path(folder)).issue("server")
        registry.register(HttpTls(TlsFiles(certificate_file=pair.certificate_file, key_file=pair.key_file)))
    return registry


@cache
def families():
    """Return by its name each metric that a server reports, with a sample of it."""
    registries = (server_metrics(), access_metrics(), tls_metrics())
    found = [family for registry in registries for family in registry.collect()]
    return {f"{family.name}_total" if family.type == "counter" else family.name: family for family in found}


def test_every_limit_that_an_error_names_has_a_row():
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "micromegas_jupyter").rglob("*.py"))
    raised = set(re.findall(r'\blimit="([a-z_]+)"', source)) | {"other"}
    samples = families()["micromegas_server_limits_reached_total"].samples
    section = PAGE.split("| `limit` |")[1].split("\n## ")[0]

    assert sorted(row[0].strip("`") for row in table_rows(section) if row[0].startswith("`")) == sorted(raised)
    assert raised == {sample.labels["limit"] for sample in samples}


@pytest.fixture(scope="module")
def reported():
    """The labels of each sample that a server reports."""
    return {sample.name: set(sample.labels) for family in families().values() for sample in family.samples}


def dashboard_expressions():
    board = json.loads((DOCS / "operating" / "dashboard.json").read_text(encoding="utf-8"))
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def alert_rules():
    groups = yaml.safe_load((DOCS / "deploy" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.parametrize(
    "expressions", [dashboard_expressions(), [rule["expr"] for rule in alert_rules()]], ids=["dashboard", "alerts"]
)
def test_every_metric_and_label_that_is_asked_for_is_reported(reported, expressions):
    asked = set()
    for expression in expressions:
        groups = re.findall(r"(?:by|on) \(([^)]*)\)", expression)
        grouped = {label.strip() for group in groups for label in group.split(",")}
        for found in METRIC.finditer(expression):
            asked.add(found[1])
            chosen = set(re.findall(r"(\w+)\s*=?[=~!]", found[2] or ""))
            assert (chosen | grouped) - ADDED_LABELS <= reported.get(found[1], set()), expression

    assert asked <= set(reported)
    assert len(asked) > 15


def test_every_alert_has_a_name_of_its_own_and_names_labels_that_its_expression_leaves(reported):
    rules = alert_rules()

    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        named = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        kept = re.search(r"sum by \(([^)]*)\)", rule["expr"])
        metric = METRIC.search(rule["expr"])
        reported_labels = reported[metric[1]] if metric else set()
        assert named <= (set(re.findall(r"\w+", kept[1])) if kept else reported_labels | ADDED_LABELS), rule["alert"]


def test_whatever_the_server_measures_of_itself_is_named():
    sampler = ProcessSampler()
    sampler.sample(time_ns=0, monotonic_seconds=0)
    measured = {row.name for row in sampler.sample(time_ns=1, monotonic_seconds=1)}
    section = read_page("ingest.md").partition("### The server's own telemetry\n")[2].partition("\n##")[0]
    named = {name for _, cell in table_rows(section)[2:] for name in re.findall("`([a-z_]+)`", cell)}

    assert {"cpu_usage", "process_resident_bytes"} <= measured <= named
