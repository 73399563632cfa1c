"""ADBC's validation suite against this server; docs/clients.md lists what fails."""

import importlib
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.architecture.guide_text import read_page
from tests.integration.clients.adbc import adbc_connection, fetch_rows
from tests.integration.ingest.lake_server import lake_server

pytestmark = pytest.mark.integration

ARCHIVE = Path(__file__).parents[5] / "shared" / "data" / "adbc-validation" / "validation.tar.xz"
# The suite needs Python 3.13 and other versions than the tests.
PYTHON = "3.13"
PACKAGES = (
    "adbc-driver-flightsql>=1.13,<2", "adbc-driver-manager>=1.13,<2", "bidict<1", "duckdb>=1.5.5,<2", "jinja2<4",
    "plpygis<0.7", "pyarrow>=25.0.1,<26", "pydantic>=2.13.4,<3", "pytest>=9.1.1,<10", "sqlglot>=30.17",
    "whenever>=0.10.5,<0.11",
)  # fmt: skip
PARTS = ("connection", "ingest", "query", "statement")
SETTINGS = "[pytest]\npython_files = *.py\nmarkers = feature\n"
CASES = (
    "boolean",
    "date",
    "decimal",
    "decimal_scale_negative",
    "fixed_size_binary",
    "float32",
    "int16",
    "large_string",
)


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """The folder of the suite."""
    folder = tmp_path_factory.mktemp("validation")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.mark.parametrize("case", CASES)
def test_rows_of_the_suite_come_back_as_they_were_sent(server, suite, monkeypatch, case):
    monkeypatch.syspath_prepend(str(suite))
    parts = importlib.import_module("adbc_drivers_validation.txtcase").load(
        suite / f"adbc_drivers_validation/queries/ingest/{case}.txtcase"
    )
    rows = parts.get_part("input", parts.get_part("input_schema"))

    with adbc_connection(server, "alice") as connection, connection.cursor() as cursor:
        assert cursor.adbc_ingest(f"sent_{case}", rows, mode="create") == len(rows)
        found = fetch_rows(connection, f"SELECT * FROM sent_{case} ORDER BY idx")

    assert found == [tuple(row.values()) for row in rows.sort_by("idx").to_pylist()]


@pytest.mark.slow
@pytest.mark.long
def test_only_the_listed_tests_of_the_suite_fail(suite, tmp_path):
    (suite / "settings.ini").write_text(SETTINGS)
    program = shutil.which("uv")
    assert program is not None, "uv is not installed; run: pip install uv"
    options = [option for package in PACKAGES for option in ("--with", package)]
    command = [program, "-q", "run", "--no-project", "--python", PYTHON, *options, "python", "-m", "pytest", "-q"]
    files = [str(suite / "adbc_drivers_validation" / "tests" / f"{part}.py") for part in PARTS]
    with lake_server(tmp_path / "lake") as server:
        done = subprocess.run(
            [*command, "-c", "settings.ini", "-p", "quirks", "-p", "no:cacheprovider", "--tb=line", *files],
            cwd=suite, capture_output=True, text=True, check=False, timeout=900,
            env={**os.environ, "MICROMEGAS_URI": server.uri, "PYTHONPATH": f"{suite}:{Path(__file__).parent}"},
        )  # fmt: skip

    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None, done.stdout[-2000:] + done.stderr[-2000:]
    failed = re.findall(r"^(?:FAILED|ERROR) \S+::(test_\w+)\[micromegas:0:?([\w/]*)\]", done.stdout, re.MULTILINE)
    section = read_page("clients.md").partition("### ADBC's validation suite")[2].partition("\n## ")[0]
    listed = re.findall(r"`(test_[\w/ ]+)`", section)
    assert sorted(" ".join(one).strip() for one in failed) == sorted(listed)
    assert len(listed) <= 10
    assert int(passed[1]) >= 269
