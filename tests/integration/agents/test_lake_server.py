"""Agents of a whole server: what they cannot change, the tokens they show, and the tools over stdio."""

import itertools
import json
import subprocess
import sys
from contextlib import contextmanager

import pytest

from micromegas_jupyter.cli.main import run
from micromegas_jupyter.config.server import ServerSettings
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.demo.provider.state import PEOPLE, Grant, SignedIn
from micromegas_jupyter.mcp.rows import _HIDDEN
from micromegas_jupyter.wiring.server import is_mcp_served
from tests.fakes.waiting import wait_until
from tests.integration.agents.harness import LEGACY, MODERN, TIMEOUT_SECONDS, Agent, Background
from tests.integration.agents.lake_server import HOSTILE, lake_server
from tests.integration.lakehouse.test_materialized_views import CREATE

pytestmark = pytest.mark.integration

SLOW = "SELECT count(*) AS n FROM generate_series(1, 1000000000) AS a, generate_series(1, 1000000000) AS b"
NOTES = "SELECT id, owner FROM notes ORDER BY id"
TIMES = "'2000-01-01T00:00:00Z', '2100-01-01T00:00:00Z'"
RANGE = f"'notes', 'global', {TIMES}"
CHANGES = (
    f"SELECT * FROM retire_partitions({RANGE})",
    f'SELECT * FROM/**/"retire_partitions" /* */ ({RANGE})',
    f"WITH a AS (SELECT * FROM RETIRE_PARTITIONS({RANGE})) SELECT count(*) FROM a",
    "SELECT deny_queries('true', 'no more')",
    "SELECT n FROM (SELECT \"deny_queries\"('true', 'no more') AS n)",
    "SELECT remove_query_denial('1')",
    "EXPLAIN ANALYZE SELECT deny_queries('true', 'no more')",
    "SELECT deny_queries($$true$$, $a$no more$a$)",
    f"SELECT a.msg FROM materialize_partitions('notes', {TIMES}, 60) AS a",
    f"SELECT msg FROM (SELECT * FROM regenerate_partitions('notes', {TIMES}, 60)) AS a LIMIT 1",
    CREATE,
    "DROP MATERIALIZED VIEW v",
    "DROP TABLE notes",
    "DELETE FROM notes",
)


@pytest.fixture(scope="module")
def lake():
    with lake_server() as running:
        yield running


class StdioAgent(Agent):
    """The same client over standard input and output."""

    def __init__(self, process, version):
        super().__init__(0, version=version)
        self.process = process
        self.identities = itertools.count(100)  # none is used twice: the one before may still count as running

    def request(self, method, params=None, **options):
        body, _ = self.message(method, params, **{"identity": next(self.identities), **options})
        self.write(body)
        return self.read()

    def write(self, body):
        self.process.stdin.write(json.dumps(body).encode() + b"\n")
        self.process.stdin.flush()

    def read(self):
        line = Background(self.process.stdout.readline).wait()
        return StdioAnswer(json.loads(line))


class StdioAnswer:
    def __init__(self, message):
        self.json = message

    @property
    def result(self):
        assert "result" in self.json, self.json
        return self.json["result"]

    text = property(lambda self: self.result["content"][0]["text"])
    structured = property(lambda self: self.result["structuredContent"])


@contextmanager
def stdio(environ, version=MODERN):
    command = [sys.executable, "-m", "micromegas_jupyter.cli", "mcp"]
    with subprocess.Popen(
        command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        yield StdioAgent(process, version)
        process.stdin.close()
        assert process.wait(TIMEOUT_SECONDS) == 0
        assert process.stdout.read() == b""


@pytest.fixture(scope="module")
def both(lake):
    """The agents of Alice and Bob over HTTP and over stdio."""
    with stdio(lake.environment("alice")) as alice, stdio(lake.environment("bob"), LEGACY) as bob:
        yield {
            ("http", "alice"): lake.agent("alice"),
            ("http", "bob"): lake.agent("bob", version=LEGACY),
            ("stdio", "alice"): alice,
            ("stdio", "bob"): bob,
        }


@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_an_administrators_agent_changes_nothing(lake, both, transport):
    alice = both[transport, "alice"]
    found = {sql: alice.query(sql).structured["error"]["code"] for sql in CHANGES}

    assert set(found.values()) <= {"AUTH021", "SQL001", "SQL002"}
    assert {sql for sql, code in found.items() if code != "AUTH021"} == {"DROP TABLE notes", "DELETE FROM notes"}
    assert alice.query(NOTES).structured["rows"] == [[1, "alice"], [2, "bob"], [3, "bob"]]


def test_an_administrators_agent_ends_nobody_elses_query(lake, both):
    bob = lake.agent("bob", version=LEGACY, session="one")
    query = bob.begin(SLOW, identity=5)
    (listed,) = wait_until(bob.running, "the query is listed")
    ended = [
        both[transport, "alice"].call("cancel_query", query_id=listed["query_id"]).structured["error"]["code"]
        for transport in ("http", "stdio")
    ]

    assert ended == ["AUTH021", "AUTH021"]
    assert [one["query_id"] for one in bob.running()] == [listed["query_id"]]
    bob.cancel(5)
    assert b"result" not in query.wait().body


@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_each_user_sees_their_own_rows_over_both_transports(both, transport):
    alice, bob = both[transport, "alice"], both[transport, "bob"]
    me = "SELECT is_admin() AS a"

    assert [one.query(me).structured["rows"] for one in (alice, bob)] == [[[True]], [[False]]]
    assert [len(one.query(NOTES).structured["rows"]) for one in (alice, bob)] == [3, 2]
    assert [table["name"] for table in bob.call("list_tables").structured["tables"]] == ["notes"]
    assert alice.call("list_tables").structured["total"] > 1
    assert bob.query("SELECT nn FROM notes").structured["error"]["code"] == "SQL001"
    assert bob.call("explain_error", code="AUTH021").text.startswith("AUTH021")
    assert bob.running() == []
    assert bob.call("cancel_query", query_id="7").structured["status"] == "not_cancellable"


@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_a_row_that_gives_instructions_stays_a_row(both, transport):
    found = both[transport, "alice"].query("SELECT text FROM notes WHERE id = 3")
    rows = found.text[found.text.index("<rows-") :]

    assert found.structured["rows"] == [[HOSTILE]]
    assert len(rows.split("\n")) == 4
    assert _HIDDEN.search(rows.replace("\n", "")) is None


def test_the_tools_are_the_same_over_both_transports(both):
    http, process = (both[transport, "alice"].request("tools/list").result["tools"] for transport in ("http", "stdio"))

    assert http == process


def test_without_a_sign_in_the_agent_gets_its_url(lake, tmp_path):
    environ = {**lake.environment("alice"), "MICROMEGAS_CONFIG_DIR": str(tmp_path / "empty")}
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"url": {}}},
    }
    with stdio(environ, LEGACY) as old:
        asked = old.call("list_tables")
        old.request("initialize", {"protocolVersion": LEGACY, "capabilities": {"elicitation": {"url": {}}}})
        error = old.call("list_tables").json["error"]
        call = {"name": "list_tables", "arguments": {}, "_meta": meta}
        old.write({"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": call})
        required = old.read().result

    url = required["inputRequests"]["sign_in"]["params"]["url"]
    assert url.startswith("http://127.0.0.1")
    assert asked.result["isError"]
    assert url in asked.text
    assert (error["code"], error["data"]["elicitations"][0]["url"]) == (-32042, url)
    assert required["resultType"] == "input_required"


def test_tokens_are_accepted_for_the_servers_own_url_only(lake):
    provider = lake.local.provider
    person = SignedIn(person=PEOPLE["bob"], authenticated_at=SYSTEM_CLOCK.now())
    answers = {}
    for resource in (lake.url, lake.url.removesuffix("/mcp"), "https://other.example/mcp"):
        grant = Grant(client=provider.clients[provider.client_id], signed_in=person, scope="openid", resource=resource)
        token = str(provider.issue_tokens(grant, scope="openid")["access_token"])
        answers[resource] = Agent(lake.agent("bob").port, token).request("tools/list")

    metadata = f'resource_metadata="{lake.url.replace("/mcp", "/.well-known/oauth-protected-resource/mcp")}"'
    assert [found.status for found in answers.values()] == [200, 401, 401]
    assert all(metadata in found.headers["www-authenticate"] for found in list(answers.values())[1:])


def test_messages_that_are_not_requests_do_not_end_the_process(lake):
    with stdio(lake.environment("bob")) as agent:
        for line, code in ((b"{", -32700), (b"[]", -32600), (b'{"jsonrpc":"2.0","id":[],"method":"a"}', -32600)):
            agent.process.stdin.write(line + b"\n\n")
            agent.process.stdin.flush()
            assert agent.read().json["error"]["code"] == code
        agent.write({"jsonrpc": "2.0", "method": "notifications/initialized"})
        agent.write({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
        assert agent.query("SELECT 1 AS n").structured["rows"] == [[1]]


def test_the_configuration_names_the_command_and_its_options(capsys):
    assert run(["mcp", "--print-config", "--profile", "work"]) == 0

    shown = capsys.readouterr().out
    assert "claude mcp add micromegas -- " in shown
    assert '"mcpServers"' in shown
    assert 'args = ["mcp", "--profile", "work"]' in shown


@pytest.mark.parametrize(
    ("settings", "is_served"),
    [
        ({}, True),
        ({"disable_auth": True}, True),
        ({"no_mcp": True}, False),
        ({"no_http": True}, False),
        ({"http_host": "0.0.0.0"}, False),
        ({"http_host": "0.0.0.0", "public_url": "https://lake.example"}, True),
        ({"http_host": "0.0.0.0", "public_url": "https://lake.example", "disable_auth": True}, False),
        ({"http_host": "0.0.0.0", "public_url": "https://lake.example", "no_mcp": True}, False),
    ],
)
def test_agents_are_served_beyond_this_machine_with_a_public_url_and_authentication_only(settings, is_served):
    assert is_mcp_served(ServerSettings(**settings)) is is_served
