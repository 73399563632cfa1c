"""`micromegas serve` as a process: each variable and each limit is read, counts, and is refused by its name."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import flight

from micromegas_jupyter import FlightSQLClient
from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.cli.main import run
from micromegas_jupyter.config.server import SETTINGS
from micromegas_jupyter.errors import DeadlineExceeded, Rejected, ResourcesExhausted, StatementRefused, UsageError
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.integration

DEADLINE_SECONDS = 120
COMMAND = [sys.executable, "-m", "micromegas_jupyter.cli"]
# A CommandStatementQuery in Any, written by hand as docs/clients.md does it.
_TYPE = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"
SELECT_1 = b"\x0a" + bytes([len(_TYPE)]) + _TYPE + b"\x12\x0a\x0a\x08SELECT 1"
PLAIN_KEY = "a-plain-key-for-this-test-only"


def _environ(**variables):
    others = {
        name: value for name, value in os.environ.items() if not name.startswith(("MICROMEGAS_", "GRPC_VERBOSITY"))
    }
    return {**others, **variables}


@pytest.fixture
def refused(monkeypatch, capsys):
    """Run `micromegas serve`, which does not start, and return what it says."""

    def start(*options, **variables):
        monkeypatch.setattr(os, "environ", _environ(**variables))
        assert run(["serve", "--port", "0", "--disable-auth", "--lake", "/nowhere/at/all", *options]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        return printed.err

    return start


@contextmanager
def _running(log, command, *options, **variables):
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [*COMMAND, command, "--port", "0", "--ready-json", *options],
            env=_environ(**variables), cwd=log.parent, stdout=subprocess.PIPE, stderr=stderr, text=True,
        ) as server,
    ):  # fmt: skip
        line = server.stdout.readline()
        try:
            assert line, log.read_text()
            yield json.loads(line)
        finally:
            if command == "serve":
                server.send_signal(signal.SIGHUP)  # reads the access configuration again, where there is one
            server.send_signal(signal.SIGTERM)
            assert server.wait(DEADLINE_SECONDS) == 0, log.read_text()


def _lines(path):
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.parametrize(
    "setting", [found for found in SETTINGS if found.limits and found.name != "port"], ids=lambda setting: setting.name
)
def test_a_limit_that_cannot_be_read_is_refused_by_the_name_that_was_used(setting, refused, tmp_path):
    file = tmp_path / "serve.toml"
    file.write_text(f"{setting.option[2:]} = 'z'")
    variables = {} if setting.variable is None else {setting.variable: "x"}

    by_file = refused("--config", str(file))
    by_variable = refused("--config", str(file), **variables)
    by_option = refused("--config", str(file), setting.option, "y", **variables)

    in_file = f"{file}: {setting.option[2:]}"
    for name, said in ((in_file, by_file), (setting.variable or in_file, by_variable), (setting.option, by_option)):
        assert said.startswith(f"✗ {name} is not a number from "), said
        assert "CONF001" in said


@pytest.mark.parametrize("content", [None, b"\xff", b"x" * 300_000, b"["])
def test_a_file_of_settings_that_cannot_be_read_is_refused_by_name(content, refused, tmp_path):
    file = tmp_path / "serve.toml"
    if content is not None:
        file.write_bytes(content)

    said = refused("--config", str(file))

    assert said.startswith(f"✗ {file} ")
    assert "CONF001" in said


@pytest.mark.parametrize("name", ["AUDIENCE_GRANTS", "UNSTAMPED_AUDIENCE", "PUBLIC_VIEW_SETS"])
def test_a_server_that_would_show_what_upstreams_audiences_hide_does_not_start(name, refused):
    assert f"MICROMEGAS_{name}" in refused(**{f"MICROMEGAS_{name}": "x"})


def test_limits_count_by_variable_option_and_file(tmp_path):
    file = tmp_path / "serve.toml"
    file.write_text("query-timeout = 2\nmemory-mib = 2000\nmax-rows = 9\nno-telemetry = true\n")
    by_option = ("--config", str(file), "--max-rows", "5", "--statement-memory-mib", "1600")
    by_variable = {
        "MICROMEGAS_SERVER_MAX_ROWS": "7",
        "MICROMEGAS_SERVER_MAX_STATEMENT_BYTES": "200",
        "MICROMEGAS_SERVER_MAX_INGEST_MIB": "1",
    }
    with (
        _running(tmp_path / "log", "serve", "--disable-auth", *by_option, **by_variable) as ready,
        FlightSQLClient(ready["uri"]) as client,
    ):
        five = client.query("SELECT value FROM generate_series(1, 5)")
        with pytest.raises(ResourcesExhausted, match="5 rows"):
            client.query("SELECT value FROM generate_series(1, 6)")
        with pytest.raises((StatementRefused, ResourcesExhausted, UsageError), match="200"):
            client.query(f"SELECT '{'x' * 300}'")
        with pytest.raises(DeadlineExceeded):
            client.query("SELECT sum(sqrt(value)) FROM generate_series(1, 500000000000)")
        with pytest.raises(ResourcesExhausted):
            client.bulk_ingest("large", pa.table({"n": range(1_000_000)}), mode="create")

    assert len(five) == 5


def test_limits_of_places_temporary_files_tables_and_tickets_count(tmp_path):
    key = {"name": "robot", "key": PLAIN_KEY, "scopes": ["read", "ingest"]}
    variables = {
        "MICROMEGAS_API_KEYS": json.dumps([key]),
        "MICROMEGAS_LEGACY_API_KEYS": "on",
        "MICROMEGAS_SERVER_MAX_TABLES_PER_CALLER": "1",
        "MICROMEGAS_SERVER_TICKET_LIFE_SECONDS": "1",
    }
    places = ("--max-queries", "1", "--queue-timeout", "2", "--spill-mib", "1")
    bearer = flight.FlightCallOptions(
        headers=[(b"authorization", f"Bearer {PLAIN_KEY}".encode())], timeout=DEADLINE_SECONDS
    )
    with (
        _running(tmp_path / "log", "serve", "--no-telemetry", *places, **variables) as ready,
        FlightSQLClient(ready["uri"], auth_provider=StaticTokenAuthProvider(PLAIN_KEY)) as client,
        flight.connect(ready["uri"]) as raw,
    ):
        endless = "SELECT value FROM generate_series(1, 500000000000)"
        with client.open_query(endless), pytest.raises(ResourcesExhausted):
            client.query("SELECT 1")
        with pytest.raises(ResourcesExhausted, match="disk"):
            client.query("SELECT value * 7919 % 100003 AS n FROM generate_series(1, 100000000000) ORDER BY n")
        table = pa.table({"n": [1]})
        client.bulk_ingest("first", table, mode="create")
        with pytest.raises(ResourcesExhausted):
            client.bulk_ingest("second", table, mode="create")
        ticket = raw.get_flight_info(flight.FlightDescriptor.for_command(SELECT_1), bearer).endpoints[0].ticket
        wait_until(lambda: _is_refused(raw, ticket, bearer), "the ticket's end")


def test_more_calls_at_once_than_the_limit_are_refused(tmp_path):
    options = ("--disable-auth", "--no-telemetry", "--no-http")
    with (
        _running(tmp_path / "log", "serve", *options, MICROMEGAS_SERVER_MAX_CALLS="1") as ready,
        FlightSQLClient(ready["uri"]) as client,
    ):
        with client.open_query("SELECT value FROM generate_series(1, 500000000000)") as reader:
            next(iter(reader))
            with pytest.raises(ResourcesExhausted):
                client.query("SELECT 1")
        wait_until(lambda: _is_answered(client), "the place is free again")


def _is_answered(client):
    try:
        return len(client.query("SELECT 1 AS one")) == 1
    except ResourcesExhausted:
        return False


def _is_refused(raw, ticket, options):
    try:
        raw.do_get(ticket, options).read_all()
    except pa.ArrowInvalid as error:
        return "USE001" in str(error)
    return False


def test_variables_stand_in_for_the_options_of_a_server(tmp_path):
    variables = {
        "MICROMEGAS_LAKE": str(tmp_path / "here"),
        "MICROMEGAS_LOG_FORMAT": "json",
        "MICROMEGAS_LOG_LEVEL": "warning",
        "MICROMEGAS_AUDIT_LOG": str(tmp_path / "audit"),
        "MICROMEGAS_QUERY_DENIALS_FILE": str(tmp_path / "denials.json"),
    }
    with (
        _running(tmp_path / "log", "serve", "--disable-auth", **variables) as ready,
        FlightSQLClient(ready["uri"]) as client,
    ):
        client.query("SELECT msg FROM deny_queries('client = ''nobody''', 'a test')")
        wait_until(lambda: any("deny_queries" in line["sql"] for line in _lines(tmp_path / "audit")), "the audit line")

    assert (tmp_path / "here" / "log_entries").is_dir()
    assert {line["level"] for line in _lines(tmp_path / "log")} <= {"WARNING", "ERROR"}
    assert json.loads((tmp_path / "denials.json").read_text())["rules"][0]["reason"] == "a test"


def test_a_trusted_proxy_and_what_a_client_says_of_itself_are_in_the_audit(tmp_path):
    options = ("--disable-auth", "--no-telemetry", "--no-http", "--trusted-proxy", "127.0.0.1")
    audit = tmp_path / "audit"
    with _running(tmp_path / "log", "serve", *options, "--audit-log", str(audit)) as ready:
        headers = flight.FlightCallOptions(headers=[(b"x-forwarded-for", b"192.0.2.7")], timeout=DEADLINE_SECONDS)
        with flight.connect(ready["uri"]) as proxied:
            proxied.do_get(flight.Ticket(b"\x0a\x08SELECT 1"), headers).read_all()
        said = {"MICROMEGAS_CLIENT_AGENT": "robot", "MICROMEGAS_CLIENT_ENTRYPOINT": "nightly"}
        environ = _environ(MICROMEGAS_ANALYTICS_URI=ready["uri"], MICROMEGAS_CONFIG_DIR=str(tmp_path), **said)
        program = "import micromegas_jupyter; micromegas_jupyter.connect().query('SELECT 2')"
        subprocess.run([sys.executable, "-c", program], env=environ, check=True, timeout=DEADLINE_SECONDS)
        wait_until(lambda: len(_lines(audit)) == 2, "both lines of the audit")

    first, second = _lines(audit)
    assert (ready["http"], first["client_ip"]) == (None, "192.0.2.7")
    assert (second["agent"], second["entrypoint"]) == ("robot", "nightly")


@pytest.mark.parametrize(("options", "is_accepted"), [((), False), (("--enable-legacy-api-keys",), True)])
def test_keys_in_plain_text_are_refused_when_the_variable_says_so_and_the_option_does_not(
    tmp_path, options, *, is_accepted
):
    variables = {
        "MICROMEGAS_API_KEYS": json.dumps([{"name": "old", "key": PLAIN_KEY}]),
        "MICROMEGAS_LEGACY_API_KEYS": "refuse",
    }
    with (
        _running(tmp_path / "log", "serve", "--no-telemetry", *options, **variables) as ready,
        FlightSQLClient(ready["uri"], auth_provider=StaticTokenAuthProvider(PLAIN_KEY)) as client,
    ):
        if is_accepted:
            assert len(client.query("SELECT 1 AS one")) == 1
        else:
            with pytest.raises(Rejected):
                client.query("SELECT 1 AS one")


def test_the_older_name_of_serve_is_installed(tmp_path):
    program = Path(sys.executable).with_name("flight-sql-srv")

    result = subprocess.run(
        [program, "--disable_auth", "--host", "0.0.0.0", "--lake", str(tmp_path)],
        env=_environ(), capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False,
    )  # fmt: skip

    assert result.returncode == 2
    assert "--insecure" in result.stderr


def test_the_demo_runs_without_jupyterlab_until_it_is_stopped(tmp_path):
    with _running(tmp_path / "log", "demo", "--no-lab", "--host", "127.0.0.1") as ready:
        environ = _environ(MICROMEGAS_CONFIG_DIR=str(tmp_path), MICROMEGAS_ANALYTICS_URI=ready["uri"])
        result = subprocess.run(
            [*COMMAND, "query", "SELECT 1"], env=environ, capture_output=True, text=True, check=False,
            timeout=DEADLINE_SECONDS,
        )  # fmt: skip

    assert set(ready) == {"uri", "issuer", "client_id", "http"}
    assert ready["issuer"].startswith("http://127.0.0.1:")
    assert (result.returncode, "AUTH010" in result.stderr) == (3, True), result.stderr
