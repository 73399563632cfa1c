"""The official Python SDK's client, of the current era and of the one before, over HTTP and over stdio."""

import asyncio
import sys
from itertools import product

import mcp
import pytest
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import create_mcp_http_client, streamable_http_client

from tests.integration.agents.lake_server import lake_server

pytestmark = [pytest.mark.integration, pytest.mark.slow]

EXPECTED = {"alice": [[1, "alice"], [2, "bob"], [3, "bob"]], "bob": [[2, "bob"], [3, "bob"]]}
DEADLINE_SECONDS = 10.0
SLOW = "SELECT count(*) AS n FROM generate_series(1, 1000000000) AS a, generate_series(1, 1000000000) AS b"


@pytest.fixture(scope="module")
def lake():
    with lake_server() as running:
        yield running


async def use(client, person):
    """Call the tools as a program would; return what came of it."""
    tools = await client.list_tools()
    rows = await client.call_tool("query", {"sql": "SELECT id, owner FROM notes ORDER BY id", "begin": "all"})
    error = await client.call_tool("query", {"sql": "SELECT nn FROM notes", "begin": "all"})
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
        "rows": rows.structured_content["rows"] == EXPECTED[person],
        "error": error.structured_content["error"]["code"],
        "document": document.contents[0].text.startswith("# "),
        "late": late.structured_content["error"]["code"],
        "progress": bool(seen),
    }


async def over_http(lake, person, mode):
    headers = {"Authorization": f"Bearer {lake.tokens[person]}"}
    http = create_mcp_http_client(headers=headers)
    async with http, mcp.Client(streamable_http_client(lake.url, http_client=http), mode=mode) as client:
        return await use(client, person)


async def over_stdio(lake, person, mode):
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "micromegas_jupyter.cli", "mcp"], env=lake.environment(person)
    )
    async with mcp.Client(stdio_client(command), mode=mode) as client:
        return await use(client, person)


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
        "tools": 6, "rows": True, "error": "SQL001", "document": True, "late": "SQL005", "progress": True,
    }  # fmt: skip
