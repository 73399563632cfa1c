"""MCP over standard input and output: one message per line."""

import asyncio
import json
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO, Final

from micromegas_jupyter.mcp import protocol
from micromegas_jupyter.mcp.protocol import Cancelled, Message, ProtocolError, Request

_MAX_LINE_BYTES: Final = 1024 * 1024
_MAX_WAITING: Final = 64
_LOG: Final = logging.getLogger("micromegas_jupyter.mcp")


class StdioServer:
    """Responds to one client until its input ends. `build_handler` returns a request's handler.

    `capabilities` are those that the client announced in `initialize`; newer clients repeat them in each request.
    """

    def __init__(
        self, source: BinaryIO, target: BinaryIO, build_handler: Callable[["StdioServer"], protocol.Handler]
    ) -> None:
        self._source = source
        self._target = target
        self._handler = build_handler(self)
        self._running: dict[str | int, asyncio.Task[None]] = {}
        self._lock = asyncio.Lock()
        self._capabilities: Message = {}

    def capabilities_of(self, request: Request) -> Message:
        """Return the capabilities of a request's client."""
        return request.capabilities if request.is_modern else self._capabilities

    async def serve(self) -> None:
        """Respond until the input ends, then cancel running requests."""
        lines: asyncio.Queue[bytes] = asyncio.Queue(_MAX_WAITING)
        loop = asyncio.get_running_loop()

        def read() -> None:
            with suppress(RuntimeError, OSError, ValueError):  # the loop or the input is closed
                while True:
                    line = self._source.readline(_MAX_LINE_BYTES + 1)
                    asyncio.run_coroutine_threadsafe(lines.put(line), loop).result()
                    if not line:
                        return

        # A daemon thread, because a thread that waits for input cannot be interrupted.
        threading.Thread(target=read, name="mcp-input", daemon=True).start()
        while line := await lines.get():
            if len(line) > _MAX_LINE_BYTES:
                error = ProtocolError(protocol.INVALID_REQUEST, "The message is larger than 1 MiB.")
                await self._send(error.body(None))
                break
            if line.strip():
                await self._take(line)
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _take(self, line: bytes) -> None:
        identity: str | int | None = None
        try:
            message = protocol.parse(line)
            with suppress(ProtocolError):
                identity = protocol.message_id(message)
            request = protocol.read(message, None)
        except ProtocolError as error:
            await self._send(error.body(identity))
            return
        if isinstance(request, Cancelled):
            if (task := self._running.pop(request.request_id, None)) is not None:
                task.cancel()
        elif request is not None and request.id in self._running:
            await self._send(
                ProtocolError(protocol.INVALID_REQUEST, "A request with this ID is already running.").body(None)
            )
        elif request is not None:
            if request.method == "initialize":
                self._capabilities = request.capabilities
            self._running[request.id] = asyncio.create_task(self._respond(request))

    async def _respond(self, request: Request) -> None:
        try:
            response = await protocol.respond(self._handler, request, self._send)
        except Exception:  # noqa: BLE001 - a defect ends one request
            _LOG.exception("A request failed.")
            response = ProtocolError(protocol.INTERNAL_ERROR, "The request failed.").body(request.id)
        self._running.pop(request.id, None)  # before the client can reuse the ID
        await self._send(response)

    async def _send(self, message: Message) -> None:
        line = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

        def write() -> Any:
            self._target.write(line)
            self._target.flush()

        async with self._lock:
            await asyncio.to_thread(write)
