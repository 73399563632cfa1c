"""A plain HTTP server on loopback whose answers a stand-in gives."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

from micromegas_jupyter.core.system import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from micromegas_jupyter.core.system import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class RawCall:
    """One request that came; the headers' names are in lower case, `target` holds the query too."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RawReply:
    """One answer."""

    status: int
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class LoopbackHttp:
    """A context manager that serves at `base`; several requests may come at a time.

    Args:
        clock: Tells its time, in the Date header.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.clock = clock
        self._server = _Server(self)
        self.base = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def respond(self, call: RawCall) -> RawReply:
        """Answer one request."""
        raise NotImplementedError


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, owner: LoopbackHttp) -> None:
        self.owner = owner
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def date_time_string(self, timestamp: float | None = None) -> str:
        assert isinstance(self.server, _Server)
        return format_datetime(self.server.owner.clock.now(), usegmt=True)

    def _answer(self, body: bytes) -> None:
        assert isinstance(self.server, _Server)
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.server.owner.respond(RawCall(method=self.command, target=self.path, headers=headers, body=body))
        with suppress(OSError):
            self.send_response(reply.status)
            for name, value in {**reply.headers, "Content-Length": str(len(reply.content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.content)

    def log_message(self, *_parts: object) -> None:
        """Write nothing."""
