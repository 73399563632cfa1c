"""`micromegas mcp`: an agent on this machine queries with the user's stored sign-in."""

import asyncio
import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pyarrow as pa

from micromegas_jupyter import __version__
from micromegas_jupyter.config.client import ClientSettings
from micromegas_jupyter.core.text import host_text
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.mcp.protocol import URL_ELICITATION_REQUIRED, ProtocolError, Request
from micromegas_jupyter.mcp.stdio import StdioServer
from micromegas_jupyter.mcp.tools import MAX_RESULT_BYTES, Fetched, McpServer, Query, Result, text_result
from micromegas_jupyter.wiring.client_side import open_client, stored_provider, without_wrapper
from micromegas_jupyter.wiring.sign_in import login

if TYPE_CHECKING:
    from micromegas_jupyter.client.flight_client import FlightSQLClient

_URL_SECONDS: Final = 20.0
_SIGN_IN_SECONDS: Final = 300.0
_INPUT: Final = "sign_in"
_LOG: Final = logging.getLogger("micromegas_jupyter.mcp")
_T = TypeVar("_T")


def serve_agent(settings: ClientSettings) -> None:
    """Serve the agent that started this process until its input ends."""
    # Accidental output must not become part of the protocol.
    target = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    backend = ClientBackend(settings)
    try:
        asyncio.run(_serve(settings, backend, target))
    finally:
        backend.close()


async def _serve(settings: ClientSettings, backend: "ClientBackend", target: Any) -> None:
    sign_in = _SignIn(settings, backend)

    def build(server: StdioServer) -> McpServer:
        async def request_sign_in(request: Request) -> Result | None:
            return await sign_in.request_sign_in(request, server)

        return McpServer(backend=backend, version=__version__, on_login_required=request_sign_in)

    await StdioServer(sys.stdin.buffer, target, build).serve()


class ClientBackend:
    """Runs tools over Flight, as the user and read-only; one client serves all requests until the user signs in."""

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = replace(settings, read_only=True)
        self._lock = threading.Lock()
        self._client: FlightSQLClient | None = None

    def close(self) -> None:
        """Close the client; the next request opens another one."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _open(self) -> "FlightSQLClient":
        with self._lock:
            if self._client is None:
                provider = stored_provider(self._settings)
                # A wrapper module's client might not be read-only.
                environ = without_wrapper()
                self._client = open_client(self._settings, provider, environ=environ, entrypoint="mcp")
            return self._client

    async def _run(self, work: "Callable[[FlightSQLClient], _T]") -> _T:
        return await asyncio.to_thread(lambda: work(self._open()))

    async def tables(self) -> list[tuple[str, pa.Schema]]:
        """Return the tables that the user may read."""
        return await self._run(lambda client: list(client.list_tables().items()))

    async def running(self) -> list[dict[str, Any]]:
        """Return the user's running queries."""
        found = await self._run(lambda client: [asdict(one) for one in client.running_queries()])
        queries: list[dict[str, Any]] = json.loads(json.dumps(found, default=str))
        return queries

    async def cancel(self, query_id: str) -> str:
        """Cancel one of the user's queries."""
        return await self._run(lambda client: client.cancel_query(query_id))

    async def query(
        self, query: Query, begin: datetime | None, end: datetime | None, on_rows: Callable[[int], None]
    ) -> Fetched:
        """Run a query and return its rows, up to `MAX_RESULT_BYTES`; stop it if the task is canceled."""
        opened: list[Any] = []

        def read(client: "FlightSQLClient") -> Fetched:
            options: dict[str, Any] = {"limit": query.max_rows + 1, "timeout_seconds": query.timeout_seconds}
            with client.open_query(query.sql, begin, end, query.params or None, **options) as reader:
                opened.append(reader)
                batches: list[pa.RecordBatch] = []
                size = 0
                truncated_by = None
                for batch in reader:
                    batches.append(batch)
                    on_rows(batch.num_rows)
                    size += batch.nbytes
                    if size > MAX_RESULT_BYTES:
                        truncated_by = "bytes"
                        break
                table = pa.Table.from_batches(batches, reader.schema)
                return Fetched(table=table, query_id=reader.query_id or "", truncated_by=truncated_by)

        try:
            return await self._run(read)
        except asyncio.CancelledError:
            for reader in opened:
                reader.cancel()
            raise


class _SignIn:
    """A redirect sign-in whose URL the agent's program shows; it may outlast the request that started it."""

    def __init__(self, settings: ClientSettings, backend: ClientBackend) -> None:
        self._settings = settings
        self._backend = backend
        self._thread: threading.Thread | None = None
        self._has_url = threading.Event()
        self._url: str | None = None

    def open(self, url: str) -> bool:
        """Store the URL instead of opening a browser."""
        self._url = url
        self._has_url.set()
        return True

    async def request_sign_in(self, request: Request, server: StdioServer) -> Result | None:
        """Let the client show the URL, as its revision supports; None if sign-in is impossible or has just succeeded.

        A client of 2026-07-28 repeats the request with the user's response, and then waits for the sign-in.
        """
        responses = request.params.get("inputResponses")
        if isinstance(responses, dict) and _INPUT in responses and self._thread is not None:
            thread = self._thread
            await asyncio.to_thread(thread.join, _SIGN_IN_SECONDS)
            return None
        url = await asyncio.to_thread(self._begin)
        if url is None:
            return None
        host = host_text(self._settings.issuer or "")
        asked = {"mode": "url", "message": f"Sign in with {host} to query your data.", "url": url}
        elicitation = server.capabilities_of(request).get("elicitation")
        if not isinstance(elicitation, dict) or "url" not in elicitation:
            text = f"Nobody is signed in. Ask the user to open this URL, then call the tool again: {url}"
            return text_result(text, is_error=True)
        if request.is_modern:
            inputs = {_INPUT: {"method": "elicitation/create", "params": asked}}
            return {"resultType": "input_required", "inputRequests": inputs}
        data = {"elicitations": [{**asked, "elicitationId": _INPUT}]}
        raise ProtocolError(URL_ELICITATION_REQUIRED, "Sign in first.", data)

    def _begin(self) -> str | None:
        """Start a sign-in, unless one is already in progress, and return the URL."""
        if self._thread is None or not self._thread.is_alive():
            self._url = None
            self._has_url.clear()
            self._thread = threading.Thread(target=self._run, name="sign-in", daemon=True)
            self._thread.start()
        self._has_url.wait(_URL_SECONDS)
        return self._url

    def _run(self) -> None:
        try:
            login(self._settings, browser=self)
            self._backend.close()
        except MicromegasError as error:
            _LOG.warning("%s: %s", error.code, error)
        finally:
            self._has_url.set()


def describe_configurations(command: str, arguments: list[str]) -> str:
    """Return configurations for common agents that start `command`."""
    server = {"command": command, "args": arguments}
    shell = " ".join(json.dumps(one) if " " in one else one for one in (command, *arguments))
    return "\n".join(
        [
            "# Claude Code",
            f"claude mcp add micromegas -- {shell}",
            "",
            "# Claude Desktop, Cursor, Gemini CLI, Windsurf: in the JSON file of MCP servers",
            json.dumps({"mcpServers": {"micromegas": server}}, indent=2),
            "",
            "# VS Code: .vscode/mcp.json",
            json.dumps({"servers": {"micromegas": {"type": "stdio", **server}}}, indent=2),
            "",
            "# Codex: ~/.codex/config.toml",
            "[mcp_servers.micromegas]",
            f"command = {json.dumps(command)}",
            f"args = {json.dumps(arguments)}",
        ]
    )
