"""`micromegas query` as a process: where a statement comes from, what is read, how rows are printed."""

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

CLI = [sys.executable, "-m", "micromegas_jupyter.cli"]
ROWS = "SELECT value AS n, 'x\"y,' || repeat('z', 80) AS text FROM generate_series(1, 2)"


def test_rows_are_printed_as_table_csv_and_json(micromegas, service):
    printed = {
        name: micromegas("query", ROWS, "--format", name, environ=service).stdout for name in ("table", "csv", "json")
    }
    whole = micromegas("query", ROWS, "--max-colwidth", "0", environ=service).stdout

    expected = [{"n": n, "text": 'x"y,' + "z" * 80} for n in (1, 2)]
    assert json.loads(printed["json"]) == expected
    assert list(csv.DictReader(printed["csv"].splitlines())) == [{**row, "n": str(row["n"])} for row in expected]
    assert "z..." in printed["table"]
    assert "z" * 80 not in printed["table"]
    assert "z" * 80 in whole


def test_a_statement_is_read_from_a_file_and_from_standard_input(micromegas, service, tmp_path):
    (tmp_path / "statement.sql").write_text("SELECT 'from the file' AS said")
    said = "SELECT 'from the input' AS said"
    answers = [
        micromegas("query", "--file", place, "--format", "csv", environ=service, text=said).stdout.splitlines()[1]
        for place in (str(tmp_path / "statement.sql"), "-")
    ]

    assert answers == ["from the file", "from the input"]


def test_a_time_range_cuts_what_is_read(micromegas, service):
    def count(*options):
        sql = "SELECT count(*) AS n FROM log_entries"
        return int(micromegas("query", sql, "--format", "csv", *options, environ=service).stdout.split()[1])

    past = ("--begin", "2020-01-01T00:00:00Z", "--end", "2020-01-02T00:00:00Z")

    assert count(*past) == 0
    assert count("--begin", "1h") > 0
    assert count("--all") > 0


def test_an_interrupt_cancels_the_query(service):
    sql = "SELECT value, sqrt(value) FROM generate_series(1, 500000000000)"
    with subprocess.Popen(
        [*CLI, "query", sql, "--format", "csv"], env=service, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)

    assert process.returncode == 130
    assert "Traceback" not in errors


def test_the_version_and_the_older_name_of_logout_are_there(person, micromegas):
    version = micromegas("--version", environ=person)
    older = subprocess.run(
        [Path(sys.executable).with_name("micromegas_logout")], env=person, capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip

    assert (version.returncode, version.stdout.startswith("micromegas")) == (0, True)
    assert (older.returncode, older.stdout.startswith("Nobody was signed in")) == (0, True)
