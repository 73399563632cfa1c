"""The pages of metrics name all and only what is reported, and the dashboard asks only for what there is."""

import json
import re

import pytest
from prometheus_client import CollectorRegistry

from micromegas_jupyter.access.audit import AccessMetrics
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import ResourcesExhausted
from micromegas_jupyter.executors.launcher import SpawnLauncher
from micromegas_jupyter.executors.pool import Pool, StatementReport
from micromegas_jupyter.executors.settings import PoolSettings, WorkerOptions
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.server.monitoring import ServerMetrics
from micromegas_jupyter.server.settings import TlsFiles
from micromegas_jupyter.server.tls import HttpTls
from tests.architecture.guide_text import DOCS, ROOT, read_page, table_rows
from tests.fakes.certificates import Authority

PAGE = read_page("metrics.md")
ACCESS_GUIDE = "".join(read_page(name) for name in ("access.md", "access-providers.md", "access-reasons.md"))
SUFFIXES = ("_bucket", "_count", "_sum", "_created")
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
    metrics.rate_limited.labels("identity").inc()
    metrics.key_ages = {"https://id.example.com": lambda: 1.0}
    return metrics.registry


def families(registry):
    return {f"{found.name}_total" if found.type == "counter" else found.name: found for found in registry.collect()}


def test_all_and_only_the_reported_metrics_are_named():
    named = set(re.findall(r"`((?:micromegas_server|process)_[a-z_]+)", PAGE))

    assert {name for name in named if not name.endswith(SUFFIXES)} == set(families(server_metrics()))
    assert set(re.findall(r"micromegas_access_[a-z_]+", ACCESS_GUIDE)) == set(families(access_metrics()))


def test_every_metric_is_named_with_its_labels():
    rows = [row[0].strip("`") for row in table_rows(PAGE) if row[0].startswith("`micromegas_server_")]
    stated = {row.partition("{")[0]: frozenset(re.findall(r"\w+", row.partition("{")[2])) for row in rows}
    reported = {
        name: {frozenset(sample.labels) - {"le"} for sample in family.samples if not sample.name.endswith("_created")}
        for name, family in families(server_metrics()).items()
    }

    assert {name: labels for name, labels in reported.items() if name in stated and labels != {stated[name]}} == {}


def test_every_limit_that_an_error_names_has_a_row():
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "micromegas_jupyter").rglob("*.py"))
    raised = set(re.findall(r'\blimit="([a-z_]+)"', source)) | {"other"}
    samples = families(server_metrics())["micromegas_server_limits_reached_total"].samples
    section = PAGE.split("| `limit` |")[1].split("\n## ")[0]

    assert sorted(row[0].strip("`") for row in table_rows(section) if row[0].startswith("`")) == sorted(raised)
    assert raised == {sample.labels["limit"] for sample in samples}


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """The labels of each sample that a server reports."""
    pair = Authority(tmp_path_factory.mktemp("tls")).issue("server")
    tls = CollectorRegistry()
    tls.register(HttpTls(TlsFiles(certificate_file=pair.certificate_file, key_file=pair.key_file)))
    return {
        sample.name: set(sample.labels)
        for registry in (server_metrics(), access_metrics(), tls)
        for family in registry.collect()
        for sample in family.samples
    }


def _asked():
    """Yield each metric that the dashboard asks for, the labels that it chooses by, and the expression."""
    board = json.loads((DOCS / "operating" / "dashboard.json").read_text(encoding="utf-8"))
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    for expression in (target["expr"] for panel in panels for target in panel["targets"]):
        for found in METRIC.finditer(expression):
            yield found[1], set(re.findall(r"(\w+)\s*=?[=~!]", found[2] or "")), expression


def test_every_metric_that_the_dashboard_asks_for_is_reported(reported):
    asked = {name for name, _labels, _expression in _asked()}

    assert asked - set(reported) == set()
    assert len(asked) > 20


def test_every_label_that_the_dashboard_chooses_or_groups_by_is_reported(reported):
    for name, chosen, expression in _asked():
        grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
        assert (chosen | grouped) - ADDED_LABELS <= reported[name], name
