"""Listens on loopback until one sign-in has come back, whatever else calls meanwhile.

What a callback means is `oidc`'s, what happens next is `pending_login`'s.
"""

import hmac
import logging
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from micromegas_jupyter.auth.loopback_address import DONE_PATH, START_PREFIX, LoopbackAddress
from micromegas_jupyter.core.system import Randomness
from micromegas_jupyter.errors import LoginFailed
from micromegas_jupyter.redirect import SECURITY_HEADERS, Page, notice_page
from micromegas_jupyter.redirect.pages import CONTENT_TYPE

MAX_SILENT_CONNECTIONS = 100
MAX_WAITING_PAGES = 8
READ_TIMEOUT_SECONDS = 10.0
PAGE_WAIT_SECONDS = 45.0

_POLL_SECONDS = 0.1
_NOT_OURS = notice_page(status=400, what="This address does not belong to a running sign-in.")
_NOT_FOUND = notice_page(status=404, what="There is no such page.")
_WRONG_METHOD = notice_page(status=405, what="This address is for opening in a browser only.")
_NOT_A_PAGE_LOAD = notice_page(status=403, what="This address is for opening in a browser tab only.")
_STILL_WORKING = notice_page(status=200, what="The sign-in is still being completed. Reload this page in a moment.")

_log = logging.getLogger(__name__)


class LoopbackReceiver:
    """Receives one callback. Bound when made, serving from `serve` on, closed by `close`.

    Its lock covers what was received; handlers run on threads of their own.

    Args:
        address: Where to listen.
        randomness: Makes the start page's address unguessable.

    Raises:
        LoginFailed: The fixed port is taken.
    """

    def __init__(self, address: LoopbackAddress, *, randomness: Randomness) -> None:
        try:
            self._server = _Server(address, self)
        except OSError as error:
            raise LoginFailed(
                f"The sign-in cannot listen on {address.authority(address.port)}.",
                remedy="Close the program that uses the port, or sign in without a fixed redirect URI.",
            ) from error
        port = int(self._server.server_address[1])
        self._authority = address.authority(port)
        self._callback_path = address.path
        self._start_path = START_PREFIX + randomness.token_urlsafe(32)
        self.redirect_uri = f"http://{self._authority}{address.path}"
        self.start_url = f"http://{self._authority}{self._start_path}"
        self._authorization_url = ""
        self._is_own: Callable[[str], bool] = lambda _query: False
        self._lock = threading.Lock()
        self._query: str | None = None
        self._received = threading.Event()
        self._page: Page | None = None
        self._finished = threading.Event()
        self._page_seen = threading.Event()
        self._waiting_pages = threading.BoundedSemaphore(MAX_WAITING_PAGES)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="micromegas-login-listener", daemon=True
        )

    def serve(self, *, authorization_url: str, is_own: Callable[[str], bool]) -> None:
        """Begin to answer: the start page leads to `authorization_url`, the first query that `is_own` is received."""
        self._authorization_url = authorization_url
        self._is_own = is_own
        self._thread.start()

    def wait(self, timeout_seconds: float) -> str | None:
        """Wait for the callback's query; None when it did not come in time or the wait was ended by `stop_waiting`."""
        self._received.wait(timeout_seconds)
        with self._lock:
            return self._query

    def stop_waiting(self) -> None:
        """End `wait` without a callback."""
        self._received.set()

    def finish(self, page: Page) -> None:
        """Set the page that the person sees at the end."""
        self._page = page
        self._finished.set()

    def close(self, *, linger_seconds: float = 0.0) -> None:
        """Stop listening, after the last page was fetched or `linger_seconds` have passed; safe to call twice."""
        if linger_seconds > 0:
            self._page_seen.wait(linger_seconds)
        self._finished.set()
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()
        self._server.cut_silent_connections()

    def answer(self, handler: "_Handler") -> None:
        """Answer one GET request."""
        path, _, query = handler.path.partition("?")
        if handler.headers.get_all("Host") != [self._authority]:
            # A page that points its own name at this machine reads nothing here: DNS rebinding.
            handler.send_page(_NOT_OURS)
        elif path == DONE_PATH:
            self._answer_done(handler)
        elif path != self._callback_path and not hmac.compare_digest(path.encode(), self._start_path.encode()):
            handler.send_page(_NOT_FOUND)
        elif handler.headers.get("Sec-Fetch-Dest", "document") != "document":
            handler.send_page(_NOT_A_PAGE_LOAD)
        elif path == self._callback_path:
            self._answer_callback(handler, query)
        elif self._received.is_set():
            handler.send_page(_NOT_OURS)
        else:
            handler.send_redirect(302, self._authorization_url)

    def _answer_callback(self, handler: "_Handler", query: str) -> None:
        is_own = self._is_own(query)
        with self._lock:
            is_first = is_own and not self._received.is_set()
            if is_first:
                self._query = query
                self._received.set()
        if is_first:
            handler.send_redirect(303, DONE_PATH)  # so that the code leaves the address bar and the history
        else:
            handler.send_page(_NOT_OURS)

    def _answer_done(self, handler: "_Handler") -> None:
        if not self._received.is_set():
            handler.send_page(_NOT_FOUND)
            return
        if not self._waiting_pages.acquire(blocking=False):
            handler.send_page(_STILL_WORKING)
            return
        try:
            self._finished.wait(PAGE_WAIT_SECONDS)
        finally:
            self._waiting_pages.release()
        if self._page is None:
            handler.send_page(_STILL_WORKING)
            return
        handler.send_page(self._page)
        self._page_seen.set()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = MAX_SILENT_CONNECTIONS

    def __init__(self, address: LoopbackAddress, receiver: LoopbackReceiver) -> None:
        self.receiver = receiver
        self._silent: OrderedDict[int, socket.socket] = OrderedDict()
        self._silent_lock = threading.Lock()
        if ":" in address.bind_host:
            self.address_family = socket.AF_INET6
        super().__init__((address.bind_host, address.port), _Handler)

    def server_bind(self) -> None:
        # The base class looks its own address up in the name service, which may take seconds and is not needed.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._silent_lock:
            self._silent[id(request)] = request
            oldest = self._silent.popitem(last=False)[1] if len(self._silent) > MAX_SILENT_CONNECTIONS else None
        if oldest is not None:
            _shut(oldest)
        super().process_request(request, client_address)

    def has_spoken(self, request: object) -> None:
        """Note that a whole request has come, so that its connection is not cut for being silent."""
        with self._silent_lock:
            self._silent.pop(id(request), None)

    def shutdown_request(self, request: Any) -> None:
        self.has_spoken(request)
        super().shutdown_request(request)

    def cut_silent_connections(self) -> None:
        """Cut the connections that have not sent a whole request."""
        with self._silent_lock:
            silent = list(self._silent.values())
        for connection in silent:
            _shut(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class's arguments
        # The base class prints a traceback, which would put a request's address into the terminal or the notebook.
        _log.debug("A request to the sign-in listener was not answered.")


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = READ_TIMEOUT_SECONDS

    def do_GET(self) -> None:
        self.server.has_spoken(self.connection)
        self.server.receiver.answer(self)

    def _refuse_method(self) -> None:
        self.server.has_spoken(self.connection)
        self.send_page(_WRONG_METHOD)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse_method  # noqa: N815 - the base class looks methods up by these names

    def send_page(self, page: Page) -> None:
        """Answer with a page."""
        self._send_head(page.status, {"Content-Type": CONTENT_TYPE, "Content-Length": str(len(page.body))})
        if self.command != "HEAD":
            self.wfile.write(page.body)

    def send_redirect(self, status: int, location: str) -> None:
        """Answer with a redirect."""
        self._send_head(status, {"Location": location, "Content-Length": "0"})

    def send_error(self, code: int, *_texts: Any, **_more: Any) -> None:
        """Answer a request that is not HTTP; the base class would repeat parts of it."""
        self.close_connection = True
        if not hasattr(self, "command"):
            self.command = "GET"
        self.send_page(notice_page(status=int(code), what="The request could not be understood."))

    def log_message(self, *_parts: Any, **_more: Any) -> None:
        """Write nothing: the request line holds code and state."""

    def _send_head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in {**headers, **SECURITY_HEADERS, "Connection": "close"}.items():
            self.send_header(name, value)
        if status == _WRONG_METHOD.status:
            self.send_header("Allow", "GET")
        self.end_headers()


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # it may be closed already
        connection.shutdown(socket.SHUT_RDWR)
