"""The page of the server's metrics names all and only what the server reports."""

import re

from tests.architecture.exercised_metrics import server_metrics
from tests.architecture.guide_text import ROOT, read_page, table_rows

PAGE = "metrics.md"
SUFFIXES = ("_bucket", "_count", "_sum", "_created")


def _reported():
    found = {}
    for family in server_metrics().registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {
            frozenset(sample.labels) - {"le"} for sample in family.samples if not sample.name.endswith("_created")
        }
        found[name] = labels
    return found


def test_all_and_only_the_reported_metrics_are_named():
    named = set(re.findall(r"`((?:micromegas_server|process)_[a-z_]+)", read_page(PAGE)))

    assert {name for name in named if not name.endswith(SUFFIXES)} == set(_reported())


def test_every_metric_is_named_with_its_labels():
    rows = [row[0].strip("`") for row in table_rows(read_page(PAGE)) if row[0].startswith("`micromegas_server_")]
    stated = {row.partition("{")[0]: frozenset(re.findall(r"\w+", row.partition("{")[2])) for row in rows}

    assert {name: labels for name, labels in _reported().items() if name in stated and labels != {stated[name]}} == {}


def test_every_limit_that_an_error_names_has_a_row():
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "micromegas_jupyter").rglob("*.py"))
    raised = set(re.findall(r'\blimit="([a-z_]+)"', source)) | {"other"}
    counted = {
        sample.labels["limit"]
        for family in server_metrics().registry.collect()
        for sample in family.samples
        if family.name == "micromegas_server_limits_reached"
    }
    section = read_page(PAGE).split("| `limit` |")[1].split("\n## ")[0]
    rows = [row[0].strip("`") for row in table_rows("| `limit` |" + section) if row[0].startswith("`")][1:]

    assert sorted(rows) == sorted(raised)
    assert raised == counted
