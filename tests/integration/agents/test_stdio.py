"""The order of requests and responses over stdio."""

import asyncio
import json
import threading
from types import SimpleNamespace

import pytest

from micromegas_jupyter.mcp.stdio import StdioServer

pytestmark = pytest.mark.integration

PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n'
NOTE = b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n'


class QuickClient:
    """Reads the response to a request while the server still flushes it, and sends the next one with the same ID."""

    def __init__(self):
        self.lines = [PING, PING, NOTE, b""]
        self.has_response, self.has_next, self.has_both = (threading.Event() for _ in range(3))
        self.responses = []

    def readline(self, _limit):
        if len(self.lines) == 3:
            assert self.has_response.wait(60)
        if len(self.lines) == 1:  # the server has begun with the second request
            self.has_next.set()
            self.has_both.wait(60)
        return self.lines.pop(0)

    def write(self, data):
        self.responses.append(json.loads(data))
        self.has_response.set()
        if len(self.responses) == 2:
            self.has_both.set()

    def flush(self):
        assert self.has_next.wait(60)


def test_the_id_of_a_request_is_free_as_soon_as_its_response_is_sent():
    client = QuickClient()
    handler = SimpleNamespace(name="a", version="1", capabilities={}, instructions="")
    server = StdioServer(client, client, lambda _server: handler)
    asyncio.run(asyncio.wait_for(server.serve(), 60))

    assert [response.get("result") for response in client.responses] == [{}, {}]
