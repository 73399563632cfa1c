"""`flightsql-dbapi` and its SQLAlchemy dialect, in a process of their own, against this server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.clients.dbapi_install import install_once
from tests.integration.clients.guide_examples import DBAPI_EXAMPLES

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]  # the first run installs

CHILD = Path(__file__).with_name("dbapi_child.py")
TIMEOUT_SECONDS = 200


@pytest.fixture(scope="module")
def answers(server, pytestconfig, tmp_path_factory):
    """What each step of the child gave."""
    cache = getattr(pytestconfig, "cache", None)
    folder = install_once(cache.mkdir("flightsql_dbapi") if cache else tmp_path_factory.mktemp("flightsql_dbapi"))
    tokens = (server.tokens["bob"], server.tokens["reader"])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", CHILD, server.host, str(server.port), *tokens],
        env={**os.environ, "PYTHONPATH": str(folder)},
        input=json.dumps({example.place: example.text for example in DBAPI_EXAMPLES}),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("execute", [{"a": 1}]), ("password", 1), ("tables", ["many", "measures"]), ("prepare", [{"a": 42}]),
        ("sql info", [{"info_name": 0, "value": "micromegas_jupyter"}, {"info_name": 3, "value": False}]),
        ("rows", [[1, True, "naïve 日本語 \U0001f600", "1.25", "b'\\x00\\xff'", "2026-11-24 00:00:00", 0.1],
                  [2, False, "", "-9999999999.99", "b''", "1969-12-31 00:00:00", -1e300]]),
        ("parameters", [[1, 1.5, "it's", "b'x'", True]]), ("condition", [[1], [3]]), ("columns", ["n", "text"]),
        ("engine text", [[0], [1]]), ("engine prepared", [[5, "row 5"]]), ("engine tables", ["log_entries", "many"]),
        ("engine columns", [["n", "BIGINT"], ["text", "TEXT"]]),
    ],
)  # fmt: skip
def test_a_step_gives_what_it_should(answers, step, expected):
    assert answers[step] == expected


@pytest.mark.parametrize("example", DBAPI_EXAMPLES, ids=lambda block: block.place)
def test_an_example_of_the_guide_runs(answers, example):
    assert answers[example.place] == "ran"
