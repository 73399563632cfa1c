"""Roles, row filters, keys and their reload, on a whole server over the lake of the running demo."""

import json
import os
import signal
import urllib.error
import urllib.request

import pyarrow as pa
import pytest

from micromegas_jupyter import FlightSQLClient
from micromegas_jupyter.access.config import WATCH_INTERVAL_SECONDS
from micromegas_jupyter.auth import StaticTokenAuthProvider
from micromegas_jupyter.errors import InvalidStatement, MicromegasError, PermissionDenied, QueryError, Rejected
from micromegas_jupyter.wiring import client_side
from tests.integration.executors.server_process import ServerProcess, wait_until

pytestmark = pytest.mark.integration

PLAIN_KEY = "a-plain-key-for-this-test-only"
AUDITED = (
    "SELECT count(*) AS n FROM log_entries WHERE target IN ('flightsql_query_audit', 'micromegas_jupyter.audit.access')"
)


class Server(ServerProcess):
    """`micromegas serve` over the demo's lake with one configuration file; its calls are retried by nobody."""

    def __init__(self, folder, stack):
        self.config, self.key_file = folder / "access.json", folder / "keys.json"
        self.key_file.write_text("[]")
        self.key_file.chmod(0o600)
        variables = {"HOME": str(folder), "MICROMEGAS_API_KEY_FILE": str(self.key_file)}
        self.environ = {**os.environ, **variables}
        self._oidc = json.loads(stack.server_environment()["MICROMEGAS_OIDC_CONFIG"])
        self.write()
        options = ("--no-telemetry", "--access-config", str(self.config))
        super().__init__(folder, lake=stack.folder / "lake", keys={}, options=options, variables=variables)

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
                "analyst": {
                    "tables": {
                        "log_entries": "target NOT LIKE 'micromegas_jupyter.%' AND target <> 'flightsql_query_audit'",
                        "processes": None,
                    }
                },
                "everything": {"tables": ["*"]},
            },
            **changes,
        }
        beside = self.config.with_suffix(".new")
        beside.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
        beside.rename(self.config)

    def reload(self, **changes):
        self.write(**changes)
        self.front.send_signal(signal.SIGHUP)

    def log(self):
        return self.log_file.read_text()


@pytest.fixture(scope="module")
def server(stack, tmp_path_factory):
    with Server(tmp_path_factory.mktemp("server"), stack) as running:
        yield running


@pytest.fixture
def client_of(server, person, sign_in):
    """Return a client of that server, signed in as somebody at the demo's provider."""
    opened = []

    def connect(name):
        environ = {**person, "MICROMEGAS_ANALYTICS_URI": server.ready["uri"]}
        sign_in(environ, name)
        opened.append(client_side.connect(environ=environ))
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


def test_a_member_of_the_admin_group_sees_everything(client_of):
    alice = client_of("alice")

    assert alice.whoami().is_admin
    wait_until(lambda: alice.query_arrow(AUDITED)["n"][0].as_py() > 0, "the demo's server has recorded its audit")


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


def test_everybody_else_s_queries_are_hidden_without_roles(stack, person, sign_in):
    sign_in(person, "bob")

    with client_side.connect(environ=person) as bob:
        assert bob.query_arrow(AUDITED)["n"][0].as_py() == 0
        assert bob.query_arrow("SELECT count(*) AS n FROM log_entries")["n"][0].as_py() > 0


def test_a_new_key_works_within_seconds_and_a_revoked_one_no_longer(server, micromegas_here):
    made = micromegas_here("keys", "create", "robot", "--role", "everything", environ=server.environ)
    key = made.stdout.strip()
    assert made.returncode == 0, made.stderr
    wait_until(lambda: _outcome(server, key) == "answered", "the key is known", seconds=30)

    assert micromegas_here("keys", "revoke", "robot", environ=server.environ).returncode == 0
    wait_until(lambda: _outcome(server, key) == "Rejected", "the key is revoked", seconds=30)

    # Within three seconds on a machine that does little else.
    assert WATCH_INTERVAL_SECONDS <= 1.0
    assert key not in server.log()


def test_a_key_for_ingestion_may_not_read(server, micromegas_here):
    key = micromegas_here("keys", "create", "collector", "--scope", "ingest", environ=server.environ).stdout.strip()

    # Each of the two processes reads the new key within a second or so.
    wait_until(lambda: all(_outcome(server, key) == PermissionDenied.__name__ for _ in range(8)), "the change counts")


def test_a_key_for_metrics_reads_the_metrics_and_runs_no_query(server, micromegas_here):
    key = micromegas_here("keys", "create", "prometheus", "--scope", "metrics", environ=server.environ).stdout.strip()
    wait_until(lambda: _outcome(server, key) == PermissionDenied.__name__, "the change counts")

    scrape = urllib.request.Request(f"{server.ready['http']}/metrics", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(scrape, timeout=60) as response:
        metrics = response.read()
    with _with_key(server, key) as client, pytest.raises(PermissionDenied):
        client.query_arrow("SELECT 1")
    with _with_key(server, key) as client, pytest.raises(PermissionDenied):
        client.bulk_ingest("scraped", pa.table({"n": [1]}), mode="create")

    assert b"micromegas_server_calls_total" in metrics


def test_a_denied_person_is_shut_out_at_once_and_a_malformed_version_changes_nothing(stack, server, client_of):
    bob = client_of("bob")
    server.reload(denied=[f"{stack.provider.issuer}|{bob.whoami().subject}"])

    def is_shut_out():
        try:
            bob.query_arrow("SELECT 1")
        except Rejected:
            return True
        return False

    wait_until(is_shut_out, "the change counts")
    server.config.write_text('{"denied": [')
    server.front.send_signal(signal.SIGHUP)
    wait_until(lambda: "the old one stays in force" in server.log(), "the change counts")

    assert is_shut_out()
    server.write()
    wait_until(lambda: not is_shut_out(), "the change counts")


@pytest.mark.parametrize("condition", ["no_such_column = 1", "(SELECT true)", "target ="])
def test_a_role_with_an_unusable_condition_changes_nothing(server, condition):
    before = server.log().count("stays in force")
    server.reload(roles={"analyst": {"tables": {"log_entries": condition}}})

    wait_until(lambda: server.log().count("stays in force") > before, "the change counts")

    assert _outcome(server, PLAIN_KEY) == "answered"
    server.write()


def test_a_plain_key_works_with_a_notice_to_its_bearer(server):
    notices = []

    with _with_key(server, PLAIN_KEY) as client:
        client.on_notice(notices.append)
        client.query_arrow("SELECT 1")

    assert len(notices) == 1
    assert "administrator" in notices[0]


def test_changed_rate_limits_count_without_a_restart(server):
    server.reload(rate_limits={"calls_per_second": 0.01, "burst_calls": 2})

    wait_until(lambda: _outcome(server, PLAIN_KEY) == "ResourcesExhausted", "the change counts")

    server.reload()
    wait_until(lambda: all(_outcome(server, PLAIN_KEY) == "answered" for _ in range(8)), "the change counts")


def test_rejections_over_http_and_grpc_use_up_one_limit_of_the_address(server):
    request = urllib.request.Request(f"{server.ready['http']}/metrics", headers={"Authorization": "Bearer unknown"})

    def http_status():
        with pytest.raises(urllib.error.HTTPError) as rejected:
            urllib.request.urlopen(request, timeout=60)
        rejected.value.close()
        return rejected.value.code

    server.reload(rate_limits={"refusals_per_second": 0.001, "burst_refusals": 3})
    try:
        wait_until(lambda: http_status() == 429, "the limit is used up over HTTP")
        over_grpc = _outcome(server, "unknown")
    finally:
        server.reload()

    assert over_grpc == "ResourcesExhausted"
    wait_until(lambda: http_status() == 401, "the former limit is in force")


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
