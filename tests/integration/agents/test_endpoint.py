"""Who may send what to `/mcp`: origins, tokens, bodies, revisions; and what is served where."""

import base64

import pytest

from micromegas_jupyter.access.validator import CallLimits
from micromegas_jupyter.config.access import RateLimits
from micromegas_jupyter.server.http import mcp_page
from micromegas_jupyter.server.http.endpoint import HttpEndpoint
from tests.fakes.validator import FakeValidator
from tests.integration.agents.harness import LEGACY, MODERN, Agent, read_raw, serving_agents

pytestmark = pytest.mark.integration

APP = "https://app.example"
VERSIONS = (MODERN, LEGACY, "2025-06-18", "2025-03-26")


@pytest.fixture(scope="module")
def served():
    with serving_agents(origins=[APP]) as running:
        yield running


@pytest.fixture
def agent(served):
    return served.agent()


def outcome(agent, body=None, **headers):
    message, own = agent.message("tools/list")
    return agent.send(message if body is None else body, **{**own, **headers}).status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (APP, 200),
        ("http://localhost:3000", 200),
        ("http://127.0.0.1:1", 200),
        ("null", 403),
        ("https://evil.example", 403),
        ("http://localhost.evil.example", 403),
        ("http://localhost@evil.example", 403),
        ("http://127.0.0.1.evil.example", 403),
        ("https://app.example.evil.example", 403),
        ("https://app.example:8443", 403),
        ("http://[", 403),
    ],
)
def test_only_pages_of_this_machine_and_of_allowed_origins_reach_a_local_server(served, agent, origin, status):
    assert outcome(agent, Origin=origin) == status
    assert outcome(served.agent(None), Origin=origin) == (401 if status == 200 else 403)  # before the token


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "[", ""])
def test_a_name_of_others_that_resolves_to_this_machine_is_rejected(served, agent, host):
    assert outcome(agent, Host=f"{host}:{served.port}") == 403
    assert outcome(agent, Host=f"{host}:{served.port}", Origin=f"http://{host}:{served.port}") == 403


def test_beyond_this_machine_only_allowed_origins_are_accepted():
    with serving_agents(is_local=False, origins=[APP]) as served:
        agent = served.agent()
        statuses = [
            outcome(agent, **headers)
            for headers in ({"Host": "lake.example"}, {"Origin": APP}, {"Origin": "http://localhost:3000"})
        ]

    assert statuses == [200, 200, 403]


def test_browsers_read_responses_for_allowed_origins_only(agent):
    allowed = agent.send(b"", method="OPTIONS", Origin=APP)
    local = agent.send(b"", method="OPTIONS", Origin="http://localhost:3000")
    message, headers = agent.message("tools/list")
    shown = agent.send(message, **headers, Origin=APP)
    hidden = agent.send(message, **headers, Origin="http://localhost:3000")

    assert (allowed.status, allowed.headers["access-control-allow-origin"]) == (204, APP)
    assert "authorization" in allowed.headers["access-control-allow-headers"]
    assert (shown.headers["access-control-allow-origin"], shown.headers["vary"]) == (APP, "Origin")
    assert (local.status, "access-control-allow-origin" in hidden.headers) == (403, False)


def test_a_call_without_a_good_token_learns_where_to_get_one(served):
    url = f"http://127.0.0.1:{served.port}"
    missing, wrong, in_url = (
        served.agent(token).send(served.agent().message("tools/list")[0], path=path)
        for token, path in ((None, "/mcp"), ("mallory", "/mcp"), (None, "/mcp?access_token=alice"))
    )
    metadata = [
        served.agent(None).send(b"", path=f"/.well-known/oauth-protected-resource{path}", method="GET")
        for path in ("/mcp", "")
    ]

    where = f'resource_metadata="{url}/.well-known/oauth-protected-resource/mcp", scope="openid profile email"'
    assert [found.status for found in (missing, wrong, in_url)] == [401, 401, 401]
    assert missing.headers["www-authenticate"] == f'Bearer realm="micromegas", {where}'
    assert wrong.headers["www-authenticate"] == f'Bearer realm="micromegas", error="invalid_token", {where}'
    assert [(found.status, found.headers["access-control-allow-origin"]) for found in metadata] == [(200, "*")] * 2
    assert metadata[0].json == metadata[1].json
    assert metadata[0].json["resource"] == f"{url}/mcp"
    assert metadata[0].json["authorization_servers"] == ["https://id.example"]


def test_a_key_that_may_not_read_is_told_so(served):
    found = served.agent("collector").request("tools/list")

    assert (found.status, found.json["code"]) == (403, "AUTH020")
    assert 'error="insufficient_scope"' in found.headers["www-authenticate"]


def test_a_caller_has_one_rate_for_flight_and_agents():
    limits = RateLimits(calls_per_second=0.01, burst_calls=3)
    with serving_agents(rate_limits=limits) as served:
        served.server.limits.count_call("https://id.example", "alice")  # as a Flight call does
        statuses = [served.agent().request("tools/list").status for _ in range(3)]
        other = served.agent("bob").request("tools/list").status

    assert isinstance(served.server.limits, CallLimits)
    assert (statuses, other) == ([200, 200, 429], 200)


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "HEAD"])
def test_there_are_no_sessions_to_open_or_to_end(agent, method):
    found = agent.send(b"", method=method)

    assert (found.status, found.headers["allow"]) == (405, "POST, OPTIONS")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, -32700),
        (b"{", 400, -32700),
        (b"\xff\xfe{}", 400, -32700),
        (b"[" * 100_000, 400, -32700),
        (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', 400, -32700),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', 400, -32600),
        (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', 400, -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', 400, -32600),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', 400, -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', 400, -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', 400, -32602),
    ],
)
def test_a_body_that_is_not_one_message_is_rejected(agent, body, status, code):
    found = agent.send(body)

    assert (found.status, found.json["error"]["code"]) == (status, code)


@pytest.mark.parametrize("size", [1024 * 1024 + 1, 40 * 1024 * 1024])
def test_a_body_that_is_too_large_is_rejected_with_a_response(served, agent, size):
    head = f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer alice\r\nContent-Length: {size}\r\n\r\n"

    assert read_raw(served.port, head.encode()).startswith(b"HTTP/1.1 413 ")
    head = head.replace("alice", "mallory")
    assert read_raw(served.port, head.encode()).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_type_that_pages_send_without_asking_is_rejected(agent, media_type):
    assert outcome(agent, Content_Type=media_type) == 415


def test_headers_that_proxies_read_have_to_match_the_body(agent):
    call = {"name": "query", "arguments": {"sql": "SELECT 1 AS n", "begin": "all"}}
    message, right = agent.message("tools/call", call)
    encoded = f"=?base64?{base64.b64encode(b'query').decode()}?="
    wrong = [
        {"Mcp_Name": "list_tables"},
        {"Mcp_Method": "tools/list"},
        {"MCP_Protocol_Version": LEGACY},
        {"Mcp_Name": "=?base64?cXVlcnk?="},
    ]

    assert [agent.send(message, **{**right, "Mcp_Name": name}).status for name in ("query", encoded)] == [200, 200]
    for headers in wrong:
        found = agent.send(message, **{**right, **headers})
        assert (found.status, found.json["error"]["code"]) == (400, -32020), headers
    for missing in right:
        found = agent.send(message, **{name: value for name, value in right.items() if name != missing})
        assert (found.status, found.json["error"]["code"]) == (400, -32020), missing


@pytest.mark.parametrize("version", VERSIONS)
def test_every_revision_lists_the_same_tools(served, version):
    agent = served.agent(version=version)
    opened = agent.request("initialize", {"protocolVersion": version}) if version != MODERN else None
    tools = agent.request("tools/list").result["tools"]

    assert opened is None or opened.result["protocolVersion"] == version
    names = ["list_tables", "describe_table", "query", "explain_error", "running_queries", "cancel_query"]
    assert [tool["name"] for tool in tools] == names
    assert all(tool["inputSchema"]["type"] == "object" for tool in tools)
    assert [tool["name"] for tool in tools if not tool["annotations"]["readOnlyHint"]] == ["cancel_query"]


def test_unknown_revisions_methods_and_tools_are_errors_of_their_era(served, agent):
    unknown = served.agent(version="1900-01-01").request("tools/list")
    old = served.agent(version=LEGACY)

    assert (unknown.status, unknown.json["error"]["code"]) == (400, -32022)
    assert unknown.json["error"]["data"]["supported"] == list(VERSIONS)
    assert old.request("initialize", {"protocolVersion": "2099-01-01"}).result["protocolVersion"] == LEGACY
    for method, code, status in (("prompts/list", -32601, 404), ("initialize", -32601, 404)):
        found = agent.request(method)
        assert (found.status, found.json["error"]["code"]) == (status, code)
    assert (old.request("prompts/list").status, old.request("prompts/list").json["error"]["code"]) == (200, -32601)
    assert agent.call("drop_table").json["error"]["code"] == -32602


def test_documents_and_tables_are_resources(agent):
    listed = agent.request("resources/list").result["resources"]
    texts = {one["uri"]: agent.request("resources/read", {"uri": one["uri"]}).result["contents"][0] for one in listed}
    template = agent.request("resources/templates/list").result["resourceTemplates"][0]
    missing = [
        agent.request("resources/read", {"uri": uri}).json["error"]["code"]
        for uri in ("micromegas://docs/../../pyproject.toml", "micromegas://tables/nothing", "file:///etc/passwd")
    ]

    assert sorted(texts) == [f"micromegas://docs/{name}" for name in ("data-model", "errors", "sql")]
    assert all(text["text"].startswith("# ") and text["mimeType"] == "text/markdown" for text in texts.values())
    assert template["uriTemplate"] == "micromegas://tables/{table}"
    assert missing == [-32602] * 3


def test_a_server_without_the_endpoint_has_nothing_there():
    endpoint = HttpEndpoint("127.0.0.1", 0, validator=FakeValidator(), registries=[], readiness=lambda: None)
    port = endpoint.start()
    try:
        message, headers = Agent(port).message("tools/list")
        statuses = [Agent(port, token).send(message, **headers).status for token in ("alice", None)]
        statuses.append(Agent(port).sql("SELECT 1").status)
        metadata = Agent(port).send(b"", path="/.well-known/oauth-protected-resource", method="GET").status
    finally:
        endpoint.stop()

    assert (statuses, metadata) == ([404, 404, 404], 404)


def test_a_defect_is_a_response_without_its_words(served, agent, monkeypatch, caplog):
    def fail(*_arguments, **_options):
        raise RuntimeError("a secret")

    monkeypatch.setattr(mcp_page, "HttpBackend", fail)
    found = agent.request("tools/list")

    assert (found.status, found.json["code"]) == (500, "INT001")
    assert b"secret" not in found.body
