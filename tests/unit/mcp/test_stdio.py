"""Agents' messages over standard input and output."""

import asyncio
import json
import queue
from types import SimpleNamespace

from micromegas_jupyter.mcp.stdio import StdioServer

PING = b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n'
PINGS = 20


def test_a_client_may_use_an_id_again_as_soon_as_it_has_the_response():
    received, lines = [], queue.Queue()
    lines.put(PING)

    class Client:
        def write(self, line):
            received.append(json.loads(line))
            lines.put(PING if len(received) < PINGS else b"")

        def flush(self):
            pass

    source = SimpleNamespace(readline=lambda _limit: lines.get(timeout=60))
    handler = SimpleNamespace(name="test", version="1", capabilities={}, instructions="")
    asyncio.run(StdioServer(source, Client(), lambda _server: handler).serve())

    assert received == [{"jsonrpc": "2.0", "id": 1, "result": {}}] * PINGS
