"""What a scripted provider hears and says, and the socket through which it does so.

What it answers is the provider's own matter: it has the time and a method that takes a request and gives a reply.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer."""

    status: int = 200
    body: object = None
    text: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        return (json.dumps(self.body) if self.text is None else self.text).encode()

    @property
    def all_headers(self) -> dict[str, str]:
        return {"Content-Type": "application/json", **self.headers}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One request that came."""

    method: str
    path: str
    query: Mapping[str, str]
    form: Mapping[str, str]
    headers: Mapping[str, str]


class Answering(Protocol):
    """Whoever answers the requests of a server."""

    def now(self) -> datetime:
        """Return its time."""

    def handle(self, seen: Seen) -> Reply:
        """Answer one request."""


class ScriptedServer(ThreadingHTTPServer):
    """Serves on a free port of loopback."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, provider: Answering) -> None:
        self.provider = provider
        super().__init__(("127.0.0.1", 0), ScriptedHandler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep broken connections out of the test's output."""


class ScriptedHandler(BaseHTTPRequestHandler):
    """Has the provider answer one request."""

    server: ScriptedServer

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        self._answer(flat_query(self.rfile.read(length).decode()))

    def _answer(self, form: dict[str, str]) -> None:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.server.provider.handle(
            Seen(method=self.command, path=parts.path, query=flat_query(parts.query), form=form, headers=headers)
        )
        self.send_response(reply.status)
        for name, value in {**reply.all_headers, "Content-Length": str(len(reply.content))}.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(reply.content)

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Return the provider's own time for the Date header, whatever the machine's is."""
        return format_datetime(self.server.provider.now(), usegmt=True)

    def log_message(self, *_parts: object) -> None:
        """Write nothing."""


def flat_query(query: str) -> dict[str, str]:
    """Return the first value of each name of a query or form."""
    return {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}
