"""Roles, row filters, keys and their reload, on a whole server over the lake of the running demo."""

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest
from pyarrow import flight

from micromegas_jupyter import FlightSQLClient, wiring
from micromegas_jupyter.access.config import WATCH_INTERVAL_SECONDS
from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.demo.provider.scripted_person import ScriptedPerson
from micromegas_jupyter.errors import InvalidStatement, MicromegasError, PermissionDenied, QueryError, Rejected
from micromegas_jupyter.flightsql.commands import statement_ticket

pytestmark = pytest.mark.integration

DEADLINE_SECONDS = 60
PLAIN_KEY = "a-plain-key-for-this-test-only"
AUDITED = "SELECT count(*) AS n FROM log_entries WHERE target LIKE 'micromegas_jupyter.audit%'"


class Server:
    """`micromegas serve` over the demo's lake with one configuration file; its calls are retried by nobody."""

    def __init__(self, folder, stack, environ):
        self.config, self.key_file = folder / "access.json", folder / "keys.json"
        self.environ = {**environ, "MICROMEGAS_API_KEY_FILE": str(self.key_file)}
        self._oidc = json.loads(stack.server_environment()["MICROMEGAS_OIDC_CONFIG"])
        self._issuer = stack.provider.issuer
        self.write()
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "micromegas_jupyter.cli", "serve", "--port", "0", "--ready-json",
                 "--no-telemetry", "--lake", str(stack.folder / "lake"),
                 "--access-config", str(self.config)],
                env=self.environ, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        assert self._process.stdout is not None
        self.ready = json.loads(self._process.stdout.readline())

    def write(self, **changes):
        """Put another configuration in place, in one step."""
        issuers = [
            {**entry, "group_roles": {"analysts": "analyst"}, "admin_groups": ["lake-admins"]}
            for entry in self._oidc["issuers"]
        ]
        content = {
            "oidc": {"issuers": issuers},
            "api_keys": [{"name": "old", "key": PLAIN_KEY, "roles": ["analyst"]}],
            "roles": {
                "analyst": {"tables": {"log_entries": "target NOT LIKE 'micromegas_jupyter.%'", "processes": None}},
                "everything": {"tables": ["*"]},
            },
            **changes,
        }
        beside = self.config.with_suffix(".new")
        beside.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
        beside.rename(self.config)

    def denied(self, subject):
        return f"{self._issuer}|{subject}"

    def hang_up(self):
        self._process.send_signal(signal.SIGHUP)

    def log(self):
        return self._log.read_text()

    def stop(self):
        self._process.terminate()
        assert self._process.wait(DEADLINE_SECONDS) == 0
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture(scope="module")
def server(stack, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    (folder / "keys.json").write_text("[]")
    (folder / "keys.json").chmod(0o600)
    running = Server(folder, stack, {**os.environ, "HOME": str(folder)})
    yield running
    running.stop()


@pytest.fixture
def client_of(server, person):
    """Return a client of that server, signed in as somebody at the demo's provider."""
    opened = []

    def connect(name):
        environ = {**person, "MICROMEGAS_ANALYTICS_URI": server.ready["uri"]}
        settings = wiring.load_client_settings(environ=environ)
        with ScriptedPerson(person=name) as browser:
            wiring.login(settings, browser=browser, environ=environ)
        opened.append(wiring.connect(environ=environ))
        return opened[-1]

    yield connect
    for client in opened:
        client.close()


def _with_key(server, key):
    return FlightSQLClient(server.ready["uri"], auth_provider=StaticTokenAuthProvider(key))


def _outcome(server, key):
    try:
        with _with_key(server, key) as client:
            client.query_arrow("SELECT 1")
    except MicromegasError as error:
        return type(error).__name__
    return "answered"


def _until(condition):
    """Ask again until it holds; returns after how many seconds it did."""
    started = SYSTEM_CLOCK.monotonic()
    pause = threading.Event()
    while not condition():
        assert SYSTEM_CLOCK.monotonic() - started < DEADLINE_SECONDS
        pause.wait(0.05)
    return SYSTEM_CLOCK.monotonic() - started


def test_a_member_of_the_admin_group_sees_everything(client_of):
    alice = client_of("alice")

    assert alice.whoami().is_admin
    assert alice.query_arrow(AUDITED)["n"][0].as_py() > 0


def test_a_role_shows_its_tables_and_rows_only(client_of):
    bob = client_of("bob")

    assert bob.query_arrow("SELECT count(*) AS n FROM processes")["n"][0].as_py() > 0
    assert bob.query_arrow(AUDITED)["n"][0].as_py() == 0
    assert bob.query_arrow("SHOW TABLES").column("table_name").to_pylist().count("measures") == 0


def test_a_table_that_a_role_does_not_show_does_not_exist(client_of):
    bob = client_of("bob")

    with pytest.raises(InvalidStatement) as hidden:
        bob.query_arrow("SELECT * FROM measures")
    with pytest.raises(InvalidStatement) as absent:
        bob.query_arrow("SELECT * FROM nowhere")

    assert hidden.value.what == absent.value.what.replace("nowhere", "measures")


def test_no_join_error_or_plan_tells_of_hidden_rows(client_of):
    bob = client_of("bob")
    hidden = "target LIKE 'micromegas_jupyter.%'"

    for sql in (
        f"SELECT count(*) AS n FROM processes LEFT JOIN log_entries ON true WHERE {hidden}",
        f"WITH all_of_them AS (SELECT * FROM log_entries) SELECT count(*) AS n FROM all_of_them WHERE {hidden}",
        f"SELECT count(1 / CASE WHEN {hidden} THEN 0 ELSE 1 END) * 0 AS n FROM log_entries",
        f"SELECT count(*) AS n FROM log_entries WHERE {hidden} OR true AND {hidden}",
    ):
        assert bob.query_arrow(sql)["n"][0].as_py() == 0
    for sql in ("EXPLAIN SELECT * FROM log_entries", "SHOW ALL", "SELECT * FROM information_schema.df_settings"):
        with pytest.raises(QueryError):
            bob.query_arrow(sql)


def test_a_caller_is_told_their_own_rights_and_groups(client_of):
    bob = client_of("bob")

    told = {(row["kind"], row["name"]): row["value"] for row in bob.query_arrow("SHOW RIGHTS").to_pylist()}
    tables = bob.query_arrow("SELECT name FROM my_rights() WHERE kind = 'table'")["name"].to_pylist()
    who = (
        "SELECT current_email() AS email, is_admin() AS is_admin, array_has(current_groups(), 'analysts') AS is_analyst"
    )
    (mine,) = bob.query_arrow(who).to_pylist()

    assert (told["table", "log_entries"], told["table", "processes"]) == ("some rows", "all rows")
    assert "measures" not in tables
    assert mine == {"email": "bob@example.com", "is_admin": False, "is_analyst": True}


def test_everybody_else_s_queries_are_hidden_without_roles(stack, person):
    settings = wiring.load_client_settings(environ=person)
    with ScriptedPerson(person="bob") as browser:
        wiring.login(settings, browser=browser, environ=person)

    with wiring.connect(environ=person) as bob:
        assert bob.query_arrow(AUDITED)["n"][0].as_py() == 0
        assert bob.query_arrow("SELECT count(*) AS n FROM log_entries")["n"][0].as_py() > 0


def test_a_new_key_works_within_seconds_and_a_revoked_one_no_longer(server, micromegas):
    made = micromegas("keys", "create", "robot", "--role", "everything", environ=server.environ)
    key = made.stdout.strip()
    assert made.returncode == 0, made.stderr
    seconds_until_known = _until(lambda: _outcome(server, key) == "answered")

    assert micromegas("keys", "revoke", "robot", environ=server.environ).returncode == 0
    seconds_until_refused = _until(lambda: _outcome(server, key) == "Rejected")

    # Within three seconds on a machine that does little else.
    assert WATCH_INTERVAL_SECONDS <= 1.0
    assert max(seconds_until_known, seconds_until_refused) < 30
    assert key not in server.log()


def test_a_key_for_ingestion_may_not_read(server, micromegas):
    key = micromegas("keys", "create", "collector", "--scope", "ingest", environ=server.environ).stdout.strip()

    # Each of the two processes reads the new key within a second or so.
    _until(lambda: all(_outcome(server, key) == PermissionDenied.__name__ for _ in range(8)))


def test_a_denied_person_is_shut_out_at_once_and_a_malformed_version_changes_nothing(server, client_of):
    bob = client_of("bob")
    subject = bob.whoami().subject
    server.write(denied=[server.denied(subject)])
    server.hang_up()

    def is_shut_out():
        try:
            bob.query_arrow("SELECT 1")
        except Rejected:
            return True
        return False

    _until(is_shut_out)
    server.config.write_text('{"denied": [')
    server.hang_up()
    _until(lambda: "the old one stays in force" in server.log())

    assert is_shut_out()
    server.write()
    _until(lambda: not is_shut_out())


@pytest.mark.parametrize("condition", ["no_such_column = 1", "(SELECT true)", "target ="])
def test_a_role_with_an_unusable_condition_changes_nothing(server, condition):
    before = server.log().count("stays in force")
    server.write(roles={"analyst": {"tables": {"log_entries": condition}}})
    server.hang_up()

    _until(lambda: server.log().count("stays in force") > before)

    assert _outcome(server, PLAIN_KEY) == "answered"
    server.write()


def test_a_plain_key_works_with_a_notice_to_its_bearer(server):
    headers = flight.FlightCallOptions(headers=[(b"authorization", f"Bearer {PLAIN_KEY}".encode())], timeout=60)
    notices = []

    class Middleware(flight.ClientMiddleware):
        def received_headers(self, found):
            notices.extend(found.get("x-micromegas-notice", []))

    class Factory(flight.ClientMiddlewareFactory):
        def start_call(self, _info):
            return Middleware()

    with flight.connect(server.ready["uri"], middleware=[Factory()]) as client:
        client.do_get(flight.Ticket(statement_ticket("SELECT 1")), headers).read_all()

    assert len(notices) == 1
    assert "administrator" in notices[0]


def test_changed_rate_limits_count_without_a_restart(server):
    server.write(rate_limits={"calls_per_second": 0.01, "burst_calls": 2})
    server.hang_up()

    _until(lambda: _outcome(server, PLAIN_KEY) == "ResourcesExhausted")

    server.write()
    server.hang_up()
    _until(lambda: all(_outcome(server, PLAIN_KEY) == "answered" for _ in range(8)))


def test_metrics_need_a_credential_and_health_does_not(server):
    http = server.ready["http"]

    for page in ("health", "ready"):
        with urllib.request.urlopen(f"{http}/{page}", timeout=60) as told:
            assert told.status == 200
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{http}/metrics", timeout=60)
    asked = urllib.request.Request(f"{http}/metrics", headers={"Authorization": f"Bearer {PLAIN_KEY}"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        text = answer.read().decode()

    assert refused.value.code == 401
    refused.value.close()
    assert 'micromegas_access_decisions_total{outcome="accepted"' in text
    assert "micromegas_access_key_set_age_seconds" in text
