"""A server with its HTTP endpoint for agents, and requests as their clients send them."""

import http.client
import io
import json
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from micromegas_jupyter.server.http.endpoint import HttpEndpoint
from micromegas_jupyter.server.http.json_page import Site
from micromegas_jupyter.server.http.mcp_page import McpSite
from tests.fakes.servers import build_pool, open_server
from tests.fakes.validator import FakeValidator

TIMEOUT_SECONDS = 60.0
MODERN = "2026-07-28"
LEGACY = "2025-11-25"
_META = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def table(self):
        """The rows of an Arrow IPC stream."""
        return pa.ipc.open_stream(io.BytesIO(self.body)).read_all()

    @property
    def messages(self):
        """The messages of a stream of events."""
        return [json.loads(line[6:]) for line in self.body.split(b"\n") if line.startswith(b"data: ")]

    @property
    def result(self):
        return (self.messages[-1] if self.headers["content-type"] == "text/event-stream" else self.json)["result"]

    @property
    def text(self):
        return self.result["content"][0]["text"]

    @property
    def structured(self):
        return self.result["structuredContent"]


@dataclass
class Agent:
    """A client over HTTP; `session` is what older ones send back."""

    port: int
    token: str | None = "alice"
    version: str = MODERN
    session: str | None = None

    def send(self, body, *, path="/mcp", method="POST", **headers):
        connection = self.open(body, path=path, method=method, **headers)
        try:
            answered = connection.getresponse()
            names = {name.lower(): value for name, value in answered.getheaders()}
            return Answer(answered.status, names, answered.read())
        finally:
            connection.close()

    def open(self, body, *, path="/mcp", method="POST", **headers):
        """Send a request and return its connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_SECONDS)
        sent = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if self.token is not None:
            sent["Authorization"] = f"Bearer {self.token}"
        if self.session is not None:
            sent["Mcp-Session-Id"] = self.session
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body if isinstance(body, bytes) else json.dumps(body).encode(), sent)
        return connection

    def message(self, method, params=None, *, identity=1, progress=None):
        """Return a request's message and the headers that belong to it."""
        params = dict(params or {})
        headers = {"MCP_Protocol_Version": self.version}
        meta = {} if progress is None else {"progressToken": progress}
        if self.version == MODERN:
            meta |= _META
            headers["Mcp_Method"] = method
            name = params.get("name") or params.get("uri")
            headers |= {} if name is None else {"Mcp_Name": name}
        return {"jsonrpc": "2.0", "id": identity, "method": method, "params": {**params, "_meta": meta}}, headers

    def request(self, method, params=None, **options):
        body, headers = self.message(method, params, **options)
        return self.send(body, **headers)

    def sql(self, sql, *, headers=None, **members):
        """Send a statement to `/sql`."""
        return self.send({"sql": sql, **members}, path="/sql", **(headers or {}))

    def call(self, tool, **arguments):
        return self.request("tools/call", {"name": tool, "arguments": arguments})

    def query(self, sql, *, begin="all", **arguments):
        return self.call("query", sql=sql, begin=begin, **arguments)

    def begin(self, sql, *, identity=1, **arguments):
        """Begin a query; return a thread whose `answer` is the response once it has ended."""
        body, headers = self.message(
            "tools/call", {"name": "query", "arguments": {"sql": sql, "begin": "all", **arguments}}, identity=identity
        )
        return Background(lambda: self.send(body, **headers))

    def cancel(self, identity):
        body = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": identity}}
        return self.send(body, MCP_Protocol_Version=self.version)

    def running(self):
        return self.call("running_queries").structured["queries"]


class Background(threading.Thread):
    def __init__(self, work):
        super().__init__(daemon=True)
        self.work, self.answer = work, None
        self.start()

    def run(self):
        self.answer = self.work()

    def wait(self):
        self.join(TIMEOUT_SECONDS)
        assert not self.is_alive()
        return self.answer


@dataclass
class AgentServer:
    server: Any
    site: McpSite
    port: int

    def agent(self, token="alice", **options):
        return Agent(self.port, token, **options)


@contextmanager
def serving_agents(*, tables=None, validator=None, pool=None, is_local=True, origins=(), **settings):
    validator = validator or FakeValidator()
    with open_server(build_pool(tables, **(pool or {})), validator=validator, **settings) as server:
        shared = {"calls": server.http_calls, "is_local": is_local, "allowed_origins": frozenset(origins)}
        site = McpSite(version="1", issuers=("https://id.example",), **shared)
        endpoint = HttpEndpoint(
            "127.0.0.1", 0, validator=validator, registries=[], readiness=lambda: None, mcp=site, sql=Site(**shared),
            limits=server.limits, check_caller=server.check_caller,
        )  # fmt: skip
        port = endpoint.start()
        site.public_url = f"http://127.0.0.1:{port}"
        try:
            yield AgentServer(server, site, port)
        finally:
            endpoint.stop()


def read_raw(port, data):
    """Send bytes and return all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) as raw:
        raw.sendall(data)
        received = b""
        while chunk := raw.recv(65536):
            received += chunk
        return received
