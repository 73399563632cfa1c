"""The loopback flow: a browser on this machine is redirected to a port of this process (RFC 8252 section 7.3)."""

import hmac
import logging
import socket
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from micromegas_jupyter.auth.flows.base import (
    CONTENT_TYPE,
    NOT_A_PAGE_LOAD,
    NOT_FOUND_PAGE,
    NOT_UNDERSTOOD,
    SECURITY_HEADERS,
    STILL_WORKING_PAGE,
    WRONG_METHOD_PAGE,
    CallbackFlow,
    LoginOutcome,
    LoginRequest,
    Page,
    notice_page,
)
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.core.text import LOOPBACK_HOSTS
from micromegas_jupyter.errors import LoginFailed, UsageError

TIMEOUT_SECONDS = 300.0
DEFAULT_PATH = "/callback"
DONE_PATH = "/done"
START_PREFIX = "/start/"
MAX_WAITING_PAGES = 8
READ_TIMEOUT_SECONDS = 10.0
PAGE_WAIT_SECONDS = 45.0

_POLL_SECONDS = 0.1
_NOT_OURS = notice_page(status=400, what="This address does not belong to a running sign-in.")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopbackAddress:
    """The redirect URI that is registered with the provider; port 0 means any free port."""

    host: str = "127.0.0.1"
    port: int = 0
    path: str = DEFAULT_PATH

    @property
    def bind_host(self) -> str:
        """The address to listen on; it never requires a DNS lookup (RFC 8252 section 8.3)."""
        return "127.0.0.1" if self.host == "localhost" else self.host

    def authority(self, port: int) -> str:
        """Return the host and port as they appear in a URL or the Host header."""
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"


def parse_loopback_address(redirect_uri: str | None) -> LoopbackAddress:
    """Parse a redirect URI; None means any free port on 127.0.0.1. Source: RFC 8252 sections 7.3 and 8.3."""
    if redirect_uri is None:
        return LoopbackAddress()
    try:
        parts = urlsplit(redirect_uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or host not in LOOPBACK_HOSTS or parts.scheme != "http":
        raise UsageError("The redirect URI must use http with 127.0.0.1, ::1, or localhost.")
    if parts.query or parts.fragment or "@" in parts.netloc or not redirect_uri.isascii():
        raise UsageError("The redirect URI must not contain a query, a fragment, or a user name.")
    path = parts.path or "/"
    if path == DONE_PATH or path.startswith(START_PREFIX):
        raise UsageError(f"The redirect URI's path cannot be {DONE_PATH} or begin with {START_PREFIX}.")
    return LoopbackAddress(host=host, port=port or 0, path=path)


class LoopbackFlow(CallbackFlow):
    """A code grant whose redirect goes to a port of this process; separate threads handle the requests."""

    def __init__(self, request: LoginRequest) -> None:
        address = parse_loopback_address(request.redirect_uri)
        metadata = request.connection.metadata()  # before a port is opened
        try:
            self._server = _Server(address, self)
        except OSError as error:
            raise LoginFailed(
                f"The sign-in can't listen on {address.authority(address.port)}.",
                remedy="Close the program that is using the port, or sign in without a fixed redirect URI.",
            ) from error
        try:
            self._authority = address.authority(int(self._server.server_address[1]))
            self._callback_path = address.path
            self._start_path = START_PREFIX + request.connection.randomness.token_urlsafe(32)
            self.redirect_uri = f"http://{self._authority}{address.path}"
            grant = request.build_grant(metadata, self.redirect_uri)
            start_url = f"http://{self._authority}{self._start_path}"
            prompt = request.build_prompt(Flow.BROWSER, request.wait_seconds(TIMEOUT_SECONDS), start_url=start_url)
        except BaseException:
            self._server.server_close()
            raise
        super().__init__(prompt, grant)
        self._authorization_url = grant.request.url
        self._came_back = False
        self._page: Page | None = None
        self._finished = threading.Event()
        self._page_seen = threading.Event()
        self._waiting_pages = threading.BoundedSemaphore(MAX_WAITING_PAGES)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="micromegas-login-listener", daemon=True
        )
        self._thread.start()

    def show(self, outcome: LoginOutcome) -> None:
        """Set the page that the browser shows last."""
        self._page = outcome.page()
        self._finished.set()

    def close(self, *, linger_seconds: float = 0.0) -> None:
        """Stop listening; waits only if a browser is about to fetch the last page."""
        if linger_seconds > 0 and self._came_back:
            self._page_seen.wait(linger_seconds)
        self._finished.set()
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def handle(self, handler: "_Handler") -> None:
        """Handle one GET request."""
        path, _, query = handler.path.partition("?")
        if handler.headers.get_all("Host") != [self._authority]:
            # Protects against DNS rebinding: a page that resolves its own name to this machine gets no data.
            handler.send_page(_NOT_OURS)
        elif path == DONE_PATH:
            self._answer_done(handler)
        elif path != self._callback_path and not hmac.compare_digest(path.encode(), self._start_path.encode()):
            handler.send_page(NOT_FOUND_PAGE)
        elif handler.headers.get("Sec-Fetch-Dest", "document") != "document":
            handler.send_page(NOT_A_PAGE_LOAD)
        elif path == self._callback_path:
            if self.accept(Secret(query)):
                self._came_back = True
                handler.send_redirect(303, DONE_PATH)  # keeps the code out of the address bar and the history
            else:
                handler.send_page(_NOT_OURS)
        elif self._ended.is_set():
            handler.send_page(_NOT_OURS)
        else:
            handler.send_redirect(302, self._authorization_url)

    def _answer_done(self, handler: "_Handler") -> None:
        if not self._ended.is_set():
            handler.send_page(NOT_FOUND_PAGE)
            return
        if self._waiting_pages.acquire(blocking=False):
            try:
                self._finished.wait(PAGE_WAIT_SECONDS)
            finally:
                self._waiting_pages.release()
        if self._page is None:
            handler.send_page(STILL_WORKING_PAGE)
            return
        handler.send_page(self._page)
        self._page_seen.set()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 100

    def __init__(self, address: LoopbackAddress, flow: LoopbackFlow) -> None:
        self.flow = flow
        if ":" in address.bind_host:
            self.address_family = socket.AF_INET6
        super().__init__((address.bind_host, address.port), _Handler)

    def server_bind(self) -> None:
        # The base class would look up its own address in DNS, which may take seconds and is not needed.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class's arguments
        # The base class would print a traceback with the request's address to the terminal or notebook.
        _log.debug("A request to the sign-in listener failed.")


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = READ_TIMEOUT_SECONDS

    def do_GET(self) -> None:
        self.server.flow.handle(self)

    def _refuse_method(self) -> None:
        self.send_page(WRONG_METHOD_PAGE)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse_method  # noqa: N815 - the base class looks methods up by these names

    def send_page(self, page: Page) -> None:
        """Send a page."""
        self._send_head(page.status, {"Content-Type": CONTENT_TYPE, "Content-Length": str(len(page.body))})
        if self.command != "HEAD":
            self.wfile.write(page.body)

    def send_redirect(self, status: int, location: str) -> None:
        """Send a redirect."""
        self._send_head(status, {"Location": location, "Content-Length": "0"})

    def send_error(self, code: int, *_texts: Any, **_more: Any) -> None:
        """Respond to an invalid HTTP request; the base class would echo parts of it."""
        self.close_connection = True
        if not hasattr(self, "command"):
            self.command = "GET"
        self.send_page(notice_page(status=int(code), what=NOT_UNDERSTOOD))

    def log_message(self, *_parts: Any, **_more: Any) -> None:
        """Do nothing, because the request line contains the code and state."""

    def _send_head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in {**headers, **SECURITY_HEADERS, "Connection": "close"}.items():
            self.send_header(name, value)
        if status == WRONG_METHOD_PAGE.status:
            self.send_header("Allow", "GET")
        self.end_headers()
