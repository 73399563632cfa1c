"""HTTP on loopback: requests that came, answers, and a server that has somebody else answer."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

from micromegas_jupyter.core.system import SYSTEM_CLOCK

FORM_TYPE = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer; `text` counts before `body`, which is sent as JSON."""

    status: int = 200
    body: object = None
    text: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self):
        return (json.dumps(self.body) if self.text is None else self.text).encode()

    @property
    def all_headers(self):
        return {"Content-Type": "application/json", **self.headers}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One request that came; the headers' names are in lower case, each name of query and form has its first value."""

    method: str
    path: str
    query: Mapping[str, str]
    form: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""


def flat_query(query):
    return {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}


class LoopbackServer(ThreadingHTTPServer):
    """Serves on a free port from `start` to `stop`."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answering, handler=None):
        self.answering = answering
        super().__init__(("127.0.0.1", 0), handler or LoopbackHandler)
        self.base = f"http://127.0.0.1:{self.server_address[1]}"

    def start(self, *, poll_seconds=0.02):
        Thread(target=self.serve_forever, args=(poll_seconds,), daemon=True).start()

    def stop(self):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """Keep broken connections out of the test's output."""


class LoopbackHandler(BaseHTTPRequestHandler):
    """Has one request answered."""

    server: LoopbackServer

    def do_GET(self):
        self._answer(b"")

    def do_POST(self):
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", "0"))))

    def seen(self, body):
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        form = flat_query(body.decode()) if headers.get("content-type", "").startswith(FORM_TYPE) else {}
        query = flat_query(parts.query)
        return Seen(method=self.command, path=parts.path, query=query, form=form, headers=headers, body=body)

    def _answer(self, body):
        reply = self.server.answering.handle(self.seen(body))
        with suppress(OSError):
            self.send_response(reply.status)
            for name, value in {**reply.all_headers, "Content-Length": str(len(reply.content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.content)

    def date_time_string(self, timestamp=None):
        return format_datetime(self.server.answering.now(), usegmt=True)

    def log_message(self, *_parts):
        """Write nothing."""


class LoopbackHttp:
    """A context manager that serves at `base`."""

    def __init__(self, *, clock=SYSTEM_CLOCK):
        self.clock = clock
        self._server = LoopbackServer(self)
        self.base = self._server.base

    def __enter__(self):
        self._server.start()
        return self

    def __exit__(self, *_error):
        self._server.stop()

    def now(self):
        return self.clock.now()

    def handle(self, seen):
        raise NotImplementedError
