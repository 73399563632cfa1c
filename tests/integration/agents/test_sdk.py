"""The official SDKs' clients, of Python and TypeScript, as programs use them: HTTP, stdio, and sign-in."""

import asyncio
import sys
from itertools import product
from urllib.parse import urlsplit

import mcp
import pytest
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import create_mcp_http_client, streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata

from micromegas_jupyter.auth.static import StaticTokenAuthProvider
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.demo.provider.scripted_person import sign_in
from micromegas_jupyter.errors import MicromegasError
from tests.fakes.loopback_http import Reply
from tests.fakes.raw_client import query_of
from tests.fakes.tls_provider import TlsProvider
from tests.integration.agents.lake_server import lake_server
from tests.integration.agents.npm_packages import install, run_clients
from tests.integration.other_provider.person import sign_in_other

pytestmark = [pytest.mark.integration, pytest.mark.slow]

DEADLINE_SECONDS = 10.0
SLOW = "SELECT count(*) AS n FROM generate_series(1, 1000000000) AS a, generate_series(1, 1000000000) AS b"
STATEMENTS = [
    "SELECT id, owner FROM notes ORDER BY id",
    "SELECT nn FROM notes",
    "SELEC 1",
    "SELECT count(*) AS n FROM log_entries",
    "SELECT CAST('x' AS INT) AS n",
    "DROP TABLE notes",
]
ROWS = {"alice": [[1, "alice"], [2, "bob"], [3, "bob"]], "bob": [[2, "bob"], [3, "bob"]]}
COMMAND = ["-m", "micromegas_jupyter.cli", "mcp"]
REDIRECT_URI = "http://127.0.0.1:48080/callback"
ME = "SELECT current_user() AS me, is_admin() AS admin"


@pytest.fixture(scope="module")
def lake(other_provider):
    with lake_server(issuers=[{"issuer": other_provider.issuer, "audience": "lake"}]) as running:
        yield running


def over_flight(lake, person):
    """Return what each statement gives over Flight: rows, or an error code."""
    outcomes = []
    with FlightSQLClient(lake.local.uri, auth_provider=StaticTokenAuthProvider(lake.tokens[person])) as client:
        for sql in STATEMENTS:
            try:
                outcomes.append([list(row.values()) for row in client.query_arrow(sql).to_pylist()])
            except MicromegasError as error:
                outcomes.append(error.code)
    assert outcomes[0] == ROWS[person]
    return outcomes


def outcome(result):
    found = result.structured_content
    return found["error"]["code"] if "error" in found else found["rows"]


async def use(client):
    """Call the tools as a program would; return what came of it."""
    tools = await client.list_tools()
    outcomes = [outcome(await client.call_tool("query", {"sql": sql, "begin": "all"})) for sql in STATEMENTS]
    document = await client.read_resource("micromegas://docs/sql")
    seen = []

    async def note(progress, _total, _message):
        seen.append(progress)

    late = await client.call_tool("query", {"sql": SLOW, "begin": "all", "timeout_seconds": 3}, progress_callback=note)
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (await client.call_tool("running_queries", {})).structured_content["queries"]:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)  # over stdio the server learns of the timeout a moment later
    return {
        "tools": len(tools.tools),
        "outcomes": outcomes,
        "document": document.contents[0].text.startswith("# "),
        "late": outcome(late),
        "progress": bool(seen),
    }


async def over_http(lake, person, mode):
    headers = {"Authorization": f"Bearer {lake.tokens[person]}"}
    http = create_mcp_http_client(headers=headers)
    async with http, mcp.Client(streamable_http_client(lake.url, http_client=http), mode=mode) as client:
        return await use(client)


async def over_stdio(lake, person, mode):
    command = StdioServerParameters(command=sys.executable, args=COMMAND, env=lake.environment(person))
    async with mcp.Client(stdio_client(command), mode=mode) as client:
        return await use(client)


# Each transport, user, and era once or twice; `--long` runs the other combinations.
IN_CI = ((over_http, "alice", "auto"), (over_http, "bob", "legacy"), (over_stdio, "bob", "auto"))


@pytest.mark.parametrize(
    ("transport", "person", "mode"),
    [
        pytest.param(*each, marks=() if each in IN_CI else pytest.mark.long)
        for each in product((over_http, over_stdio), ("alice", "bob"), ("auto", "legacy"))
    ],
)
def test_the_sdk_gets_what_its_user_may_read(lake, transport, person, mode):
    found = asyncio.run(asyncio.wait_for(transport(lake, person, mode), 120))

    assert found == {
        "tools": 6, "outcomes": over_flight(lake, person), "document": True, "late": "SQL005", "progress": True,
    }  # fmt: skip


def test_the_typescript_sdks_get_the_rows_and_error_codes_of_flight(lake, pytestconfig):
    tasks, expected = [], []
    for person in ROWS:
        command = {"command": sys.executable, "args": COMMAND, "env": lake.environment(person)}
        for sdk in (1, 2):
            tasks += [{"sdk": sdk, "url": lake.url, "token": lake.tokens[person]}, {"sdk": sdk, "command": command}]
        expected += [over_flight(lake, person)] * 4

    found = run_clients(install(pytestconfig), [{**task, "statements": STATEMENTS} for task in tasks])

    assert found == expected


class Document(TlsProvider):
    """The metadata document of an application, whose URL is its client ID."""

    def handle(self, _seen):
        return Reply(body={"client_id": self.url, "client_name": "An agent", "redirect_uris": [REDIRECT_URI]})


class Memory:
    """What an agent's program stores, in memory."""

    def __init__(self, client=None):
        self.tokens, self.client = None, client

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


async def sign_in_with_python(url, walk, *, client=None, client_metadata_url=None):
    """Query as the person who signs in, given the URL of the resource."""
    answers = []

    async def open_page(page):
        answers.append(query_of(await asyncio.to_thread(walk, page)))

    async def wait_for_answer():
        answer = answers.pop()
        return AuthorizationCodeResult(code=answer["code"], state=answer["state"], iss=answer["iss"])

    metadata = OAuthClientMetadata(
        client_name="An agent", redirect_uris=[REDIRECT_URI], token_endpoint_auth_method="none"
    )
    auth = OAuthClientProvider(
        server_url=url, client_metadata=metadata, storage=Memory(client), redirect_handler=open_page,
        callback_handler=wait_for_answer, client_metadata_url=client_metadata_url,
    )  # fmt: skip
    http = create_mcp_http_client(auth=auth)
    async with http, mcp.Client(streamable_http_client(url, http_client=http)) as program:
        return [outcome(await program.call_tool("query", {"sql": ME, "begin": "all"}))]


def test_with_the_url_alone_the_sdks_sign_in_to_the_demos_provider(lake, pytestconfig, tmp_path, monkeypatch):
    def walk(page):
        assert query_of(page)["resource"] == lake.url
        return sign_in(page, visit_callback=False)

    with Document(tmp_path) as document:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(document.ca_file))
        found = [asyncio.run(sign_in_with_python(lake.url, walk, client_metadata_url=document.url))]
        signing_in = {"clientMetadataUrl": document.url, "redirectUri": REDIRECT_URI}
        tasks = [{"sdk": sdk, "url": lake.url, "signIn": signing_in, "statements": [ME]} for sdk in (1, 2)]
        found += run_clients(install(pytestconfig), tasks, walk=walk)

    assert found == [[[["demo-alice", True]]]] * 3


def test_with_a_registered_client_id_the_sdks_sign_in_to_a_certified_provider(
    lake, other_provider, pytestconfig, monkeypatch
):
    # Clients choose the first issuer of a server.
    monkeypatch.setattr(lake.stack._mcp, "issuers", (other_provider.issuer,))

    def walk(page):
        assert urlsplit(page).netloc == urlsplit(other_provider.issuer).netloc
        assert query_of(page)["resource"] == lake.url
        return sign_in_other(page, visit_callback=False)

    client = OAuthClientInformationFull(
        client_id=other_provider.client_id, redirect_uris=[REDIRECT_URI], token_endpoint_auth_method="none",
        issuer=other_provider.issuer,
    )  # fmt: skip
    found = [asyncio.run(sign_in_with_python(lake.url, walk, client=client))]
    signing_in = {"clientId": other_provider.client_id, "redirectUri": REDIRECT_URI}
    tasks = [{"sdk": sdk, "url": lake.url, "signIn": signing_in, "statements": [ME]} for sdk in (1, 2)]
    found += run_clients(install(pytestconfig), tasks, walk=walk)

    assert found == [[[["alice", False]]]] * 3
