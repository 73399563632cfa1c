"""The dashboard asks only for metrics and labels that a server reports, and nothing on it overlaps."""

import json
import re

import pytest
from prometheus_client import CollectorRegistry

from micromegas_jupyter.server.settings import TlsFiles
from micromegas_jupyter.server.tls import HttpTls
from tests.architecture.exercised_metrics import access_metrics, server_metrics
from tests.architecture.guide_text import ROOT
from tests.fakes.certificates import Authority

BOARD = json.loads((ROOT / "docs" / "operating" / "dashboard.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
METRIC = re.compile(r"\b((?:micromegas|process)_[a-z_]+)\b(?:\{([^}]*)\})?")
#: What Prometheus adds itself.
ADDED_LABELS = {"instance", "job"}


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    pair = Authority(tmp_path_factory.mktemp("tls")).issue("server")
    tls = CollectorRegistry()
    tls.register(HttpTls(TlsFiles(certificate_file=pair.certificate_file, key_file=pair.key_file)))
    return {
        sample.name: set(sample.labels)
        for registry in (server_metrics().registry, access_metrics().registry, tls)
        for family in registry.collect()
        for sample in family.samples
    }


def _asked():
    for expression in EXPRESSIONS:
        for found in METRIC.finditer(expression):
            yield found[1], set(re.findall(r"(\w+)\s*=?[=~!]", found[2] or "")), expression


def test_every_metric_that_it_asks_for_is_reported(reported):
    asked = {name for name, _labels, _expression in _asked()}

    assert asked - set(reported) == set()
    assert len(asked) > 20


def test_every_label_that_it_chooses_or_groups_by_is_reported(reported):
    unknown = []
    for name, chosen, expression in _asked():
        grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
        unknown += [(name, label) for label in (chosen | grouped) - ADDED_LABELS - reported[name]]

    assert unknown == []
