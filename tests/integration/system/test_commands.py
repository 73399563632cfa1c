"""One sign-in serves every notebook and terminal of a person, one sign-out ends it; `micromegas query` itself."""

import csv
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from micromegas_jupyter import connect
from micromegas_jupyter.errors import LoginRequired
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.integration

SQL = "SELECT count(*) AS n FROM log_entries"


def test_whoami_names_the_person_and_what_the_server_knows(stack, person, sign_in, micromegas_here):
    sign_in(person)

    result = micromegas_here("whoami", environ=person)

    assert result.returncode == 0, result.stderr
    mine, servers = result.stdout.splitlines()
    assert re.fullmatch(
        r"Alice Martin <alice@example\.com> · 127\.0\.0\.1:\d+ · token valid \d+ min, renews by itself", mine
    )
    assert re.fullmatch(r"server 127\.0\.0\.1:\d+ knows you as alice@example\.com \(admin\) · \d+ ms", servers)


def test_logout_in_a_terminal_ends_it_for_a_client_that_is_open(stack, person, sign_in, micromegas):
    sign_in(person)
    client = connect(environ=person)
    assert client.query_arrow(SQL)["n"][0].as_py() > 0

    result = micromegas("logout", environ=person)

    assert result.returncode == 0, result.stderr
    assert "refresh token revoked" in result.stdout
    with pytest.raises(LoginRequired):
        client.query_arrow(SQL)
    assert micromegas("query", SQL, environ=person).returncode == 3
    client.close()


def test_a_query_without_a_sign_in_says_what_to_do_and_leaves_with_3(stack, person, micromegas_here):
    result = micromegas_here("query", SQL, environ=person)

    assert result.returncode == 3
    assert result.stdout == ""
    assert "micromegas login" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_service_account_needs_no_person(service, micromegas_here):
    result = micromegas_here("query", SQL, "--format", "csv", environ=service)
    mine, servers = micromegas_here("whoami", environ=service).stdout.splitlines()

    name = service["MICROMEGAS_OIDC_CLIENT_ID"]
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("n\n")
    assert re.fullmatch(rf"{name} \(service account\) · 127\.0\.0\.1:\d+ · token valid \d+ min, renews by itself", mine)
    assert f"knows you as {name}" in servers


def test_a_service_account_by_option(stack, person, micromegas_here):
    service = stack.service_environment()
    environ = {**person, "MICROMEGAS_OIDC_AUDIENCE": service["MICROMEGAS_OIDC_AUDIENCE"]}

    result = micromegas_here(
        "query", SQL, "--client-id", service["MICROMEGAS_OIDC_CLIENT_ID"],
        "--client-secret", service["MICROMEGAS_OIDC_CLIENT_SECRET"], "--issuer", service["MICROMEGAS_OIDC_ISSUER"],
        environ=environ,
    )  # fmt: skip

    assert result.returncode == 0, result.stderr


CLI = [sys.executable, "-m", "micromegas_jupyter.cli"]
ROWS = "SELECT value AS n, 'x\"y,' || repeat('z', 80) AS text FROM generate_series(1, 2)"


def test_rows_are_printed_as_table_csv_and_json(micromegas_here, service):
    printed = {
        name: micromegas_here("query", ROWS, "--format", name, environ=service).stdout
        for name in ("table", "csv", "json")
    }
    whole = micromegas_here("query", ROWS, "--max-colwidth", "0", environ=service).stdout

    expected = [{"n": n, "text": 'x"y,' + "z" * 80} for n in (1, 2)]
    assert json.loads(printed["json"]) == expected
    assert list(csv.DictReader(printed["csv"].splitlines())) == [{**row, "n": str(row["n"])} for row in expected]
    assert "z..." in printed["table"]
    assert "z" * 80 not in printed["table"]
    assert "z" * 80 in whole


def test_a_statement_is_read_from_a_file_and_from_standard_input(micromegas_here, service, tmp_path):
    (tmp_path / "statement.sql").write_text("SELECT 'from the file' AS said")
    said = "SELECT 'from the input' AS said"
    answers = [
        micromegas_here("query", "--file", place, "--format", "csv", environ=service, text=said).stdout.splitlines()[1]
        for place in (str(tmp_path / "statement.sql"), "-")
    ]

    assert answers == ["from the file", "from the input"]


def test_values_a_limit_and_a_file_are_options(micromegas_here, service, tmp_path):
    sql = "SELECT value + :more AS n, :name AS name FROM generate_series(1, 5)"
    target = tmp_path / "rows.jsonl"

    result = micromegas_here(
        "query", "-", "-p", "more=10", "-p", "name:text=7", "--limit", "2", "--output", str(target),
        environ=service, text=sql,
    )  # fmt: skip
    refused = micromegas_here("query", "SELECT :d", "-p", "d:date=tomorrow", environ=service)

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert list(map(json.loads, target.read_text().splitlines())) == [{"n": n, "name": "7"} for n in (11, 12)]
    assert refused.returncode == 2
    assert "-p d is not a valid date" in refused.stderr


def test_a_value_without_a_type_has_that_of_its_column(micromegas_here, service):
    rows = "('404', 404, 1.5, true, TIMESTAMPTZ '2026-01-31T08:00:00Z'), ('x', 1, NULL, false, now())"
    source = f"(VALUES {rows}) AS t(s, i, f, b, at)"
    condition = "s = :s AND i = :i AND f > :f AND b = :b AND at < :at AND f IS DISTINCT FROM :none"
    values = ("-p", "s=404", "-p", "i=404", "-p", "f=1", "-p", "b=true", "-p", "at=1h", "-p", "none=null", "-p", "n=1")

    found = micromegas_here(
        "query", f"SELECT s, :n AS n FROM {source} WHERE {condition} LIMIT :n", *values, environ=service
    )
    wrong = micromegas_here("query", f"SELECT s FROM {source} WHERE i = :i", "-p", "i=404x", environ=service)
    by_type = micromegas_here(
        "query", "SELECT arrow_typeof(:i) AS t", "-p", "i:int=404", "--format", "csv", environ=service
    )
    function = micromegas_here("query", "SELECT round(1.25, :n)", "-p", "n=1", environ=service)

    assert found.stdout.split()[-2:] == ["404", "1"], found.stderr
    assert (wrong.returncode, "does not fit its column, which has the type int64" in wrong.stderr) == (2, True)
    assert by_type.stdout.split() == ["t", "Int64"]
    assert (function.returncode, "-p NAME:TYPE=VALUE" in function.stderr) == (1, True)


def test_a_plan_tells_what_would_be_read(micromegas_here, service):
    found = micromegas_here(
        "query", "--explain", "SELECT name FROM measures WHERE value = :n", "-p", "n=4", environ=service
    )
    wrong = micromegas_here("query", "--explain", "SELECT 1,\n  tagret FROM log_entries", environ=service)
    refused = micromegas_here("query", "--explain", "SELECT 1", "--limit", "1", environ=service)
    hostile = micromegas_here("query", "--explain", 'SELECT name AS "a\x1b[2J" FROM measures', environ=service)

    assert found.stdout.startswith("logical plan\n  "), found.stderr
    assert re.search(r"\n\nfiles to read\n  measures: \d+ of \d+ files?, [\d.]+ k?B, [\d,]+ rows?\n\Z", found.stdout)
    assert wrong.stderr.splitlines()[1:] == ["      tagret FROM log_entries", "      ^ line 2, column 3"]
    assert (refused.returncode, refused.stdout) == (2, "")
    assert ("\x1b" in hostile.stdout, r"AS a\x1b[2J" in hostile.stdout) == (False, True), hostile.stderr


def test_an_error_points_at_its_place_and_nothing_configured_is_said(micromegas_here, service):
    wrong = micromegas_here("query", "SELECT 1,\n  tagret FROM log_entries", environ=service)
    plain = {name: value for name, value in service.items() if not name.startswith("MICROMEGAS_")}
    unset = micromegas_here("query", "SELECT 1", environ={**plain, "MICROMEGAS_CONFIG_DIR": "/nowhere"})

    assert wrong.stderr.splitlines()[1:] == ["      tagret FROM log_entries", "      ^ line 2, column 3"]
    assert "note: no server is configured, so this asks grpc://localhost:50051" in unset.stderr


def test_a_time_range_cuts_what_is_read(micromegas_here, service):
    def count(*options):
        sql = "SELECT count(*) AS n FROM log_entries"
        return int(micromegas_here("query", sql, "--format", "csv", *options, environ=service).stdout.split()[1])

    past = ("--begin", "2020-01-01T00:00:00Z", "--end", "2020-01-02T00:00:00Z")

    empty = micromegas_here("query", "SELECT msg FROM log_entries", *past, environ=service)

    assert empty.stderr == "no rows from 2020-01-01T00:00:00Z to 2020-01-02T00:00:00Z\n"
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


def test_a_reader_that_leaves_ends_the_command_quietly(service):
    sql = "SELECT value AS n FROM generate_series(1, 500000000000)"
    processes = [
        subprocess.Popen(
            [*CLI, "query", sql, "--format", name], env=service, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for name in ("table", "csv", "arrow")
    ]
    for process in processes:
        process.stdout.read(1)
        process.stdout.close()

    assert [(process.communicate(timeout=120)[1], process.returncode) for process in processes] == [(b"", 0)] * 3


def test_the_version_and_the_older_name_of_logout_are_there(person, micromegas):
    version = micromegas("--version", environ=person)
    older = subprocess.run(
        [Path(sys.executable).with_name("micromegas_logout")], env=person, capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip

    assert (version.returncode, version.stdout.startswith("micromegas")) == (0, True)
    assert (older.returncode, older.stdout.startswith("No user was signed in")) == (0, True)


def test_bash_completes_commands_and_options(person, micromegas_here, tmp_path):
    script = micromegas_here("completion", "bash", environ=person)
    (tmp_path / "completion.sh").write_text(script.stdout)
    ask = (
        "source completion.sh; complete() { :; }; COMP_WORDS=(micromegas query --form); COMP_CWORD=2; "
        "_shtab_micromegas micromegas --form query; echo ${COMPREPLY[@]}"
    )
    found = subprocess.run(["bash", "-c", ask], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)

    assert found.stdout.split() == ["--format"], found.stderr


def test_who_still_uses_a_key_is_shown_to_administrators(person, service, sign_in, micromegas_here, tmp_path):
    file = tmp_path / "keys.json"
    micromegas_here("keys", "create", "forgotten", "--file", str(file), environ=person)
    sign_in(person)

    def usage():
        shown = micromegas_here("keys", "usage", "--since", "1h", "--json", "--file", str(file), environ=person)
        return {row["name"]: row for row in json.loads(shown.stdout)}

    wait_until(lambda: "demo-probe" in usage(), "the server has stored its audit")
    rows = usage()
    refused = micromegas_here("keys", "usage", environ=service)

    assert rows["demo-probe"]["calls"] > 0
    assert rows["demo-probe"]["address"] == "127.0.0.1"
    assert (rows["forgotten"]["calls"], rows["forgotten"]["last_used"]) == (0, None)
    assert refused.returncode != 0
    assert "Only administrators" in refused.stderr
