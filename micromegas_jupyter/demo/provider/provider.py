"""`DemoProvider`: the demo's identity provider as one thing that starts and stops."""

from __future__ import annotations

import logging
import secrets
import socket
import threading
from typing import TYPE_CHECKING, Self

import flask
from werkzeug.exceptions import HTTPException, InternalServerError
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.demo.provider.endpoints import Endpoints
from micromegas_jupyter.demo.provider.pages import Pages
from micromegas_jupyter.demo.provider.registrations import PAGES, build_clients
from micromegas_jupyter.demo.provider.state import ProviderState
from micromegas_jupyter.demo.provider.tokens import TokenIssuer

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue
    from werkzeug.wrappers import Response

log = logging.getLogger("micromegas_jupyter.demo.provider")

_HOST = "127.0.0.1"
_STOP_TIMEOUT_SECONDS = 5.0
_POLL_SECONDS = 0.05
_MAX_BODY_BYTES = 64 * 1024
_HEADERS = {
    # No form-action: browsers apply it to the redirects that follow a form as well, and the answer of the consent
    # form leads to the application, at any port.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class DemoProvider:
    """An OpenID provider on loopback, everything in memory; a context manager.

    Args:
        token_lifetime_seconds: Life of ID and access tokens; short, so that the renewal is seen.
        device_interval_seconds: How often a device may ask.
        jupyter_base_url: The path of the Jupyter server that shows the pages to browsers, with a slash at both ends;
            None when they reach them here. Its host is whatever the browser has in its address bar.
        clock: Tells the time.
    """

    client_id = "micromegas-demo"
    service_client_id = "micromegas-demo-service"
    lake_audience = "micromegas-demo-lake"

    def __init__(
        self,
        *,
        token_lifetime_seconds: int = 600,
        device_interval_seconds: int = 5,
        jupyter_base_url: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.service_secret = Secret(secrets.token_urlsafe())
        self._port = 0
        self._token_lifetime_seconds = token_lifetime_seconds
        self._device_interval_seconds = device_interval_seconds
        self._jupyter_base_url = jupyter_base_url
        self._state = ProviderState(clock=clock, token_lifetime_seconds=token_lifetime_seconds)
        self._server: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def issuer(self) -> str:
        """The issuer URL; known once started."""
        return f"http://{_HOST}:{self._port}"

    @property
    def refreshes(self) -> int:
        """How many refresh tokens were exchanged since the start."""
        return self._state.refreshes

    def start(self) -> None:
        """Listen on any free port, then answer on a daemon thread. Returns once requests are taken."""
        with socket.create_server((_HOST, 0)) as listener:
            self._port = listener.getsockname()[1]
            app = self._build_app()
            self._server = make_server(
                _HOST, self._port, app, threaded=True, request_handler=_QuietHandler, fd=listener.fileno()
            )
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="demo-provider", daemon=True
        )
        self._thread.start()
        log.info("provider started", extra={"issuer": self.issuer})

    def stop(self) -> None:
        """Stop answering and close the port. Everything that was signed in is gone; stopping twice is fine."""
        server, thread = self._server, self._thread
        self._server = self._thread = None
        if server is None or thread is None:
            return
        server.shutdown()
        thread.join(_STOP_TIMEOUT_SECONDS)
        log.info("provider stopped")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def _build_app(self) -> flask.Flask:
        app = _SerialApp()
        # Any other name is refused, so that no name on the internet can be pointed at this machine to read its pages.
        app.config.update(TRUSTED_HOSTS=[_HOST, "localhost"], MAX_CONTENT_LENGTH=_MAX_BODY_BYTES)
        clients = build_clients(
            self.client_id, self.service_client_id, secret=self.service_secret, jupyter_base_url=self._jupyter_base_url
        )
        tokens = TokenIssuer(
            issuer=self.issuer,
            audience=self.lake_audience,
            lifetime_seconds=self._token_lifetime_seconds,
            state=self._state,
        )
        Endpoints(
            clients=clients,
            state=self._state,
            tokens=tokens,
            device_interval_seconds=self._device_interval_seconds,
            has_public_address=self._jupyter_base_url is None,
        ).register(app)
        Pages(
            clients=clients,
            state=self._state,
            tokens=tokens,
            # Cookies of one host reach all its ports, so the name holds the port.
            cookie_name=f"micromegas_demo_{self._port}",
            # Other servers of the same host, as on a Hub, do not get them.
            cookie_path="/" if self._jupyter_base_url is None else f"{self._jupyter_base_url}{PAGES}/",
        ).register(app)
        app.after_request(_finish)
        app.register_error_handler(Exception, _fail)
        return app


class _SerialApp(flask.Flask):
    """Answers one request at a time, so that nothing that it remembers needs a lock of its own."""

    def __init__(self) -> None:
        super().__init__(__name__)
        self._lock = threading.Lock()

    def dispatch_request(self) -> ResponseReturnValue:
        """Answer a request once its body has been read, which takes as long as the client pleases."""
        _ = flask.request.form
        with self._lock:
            return super().dispatch_request()


class _QuietHandler(WSGIRequestHandler):
    """Answers one request per connection and writes nothing: its own log lines hold the query, and so codes."""

    protocol_version = "HTTP/1.0"
    timeout = 30

    def log(self, _type: str, _message: str, *_args: object) -> None:
        """Write nothing; the application logs each request without its query."""


def _finish(response: Response) -> Response:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    log.info(
        "request answered",
        extra={
            "method": flask.request.method,
            "endpoint": flask.request.endpoint or "none",
            "status": response.status_code,
        },
    )
    return response


def _fail(error: Exception) -> HTTPException:
    if isinstance(error, HTTPException):
        return error
    # The exception's own text may hold a code or a token, so only its kind and place are logged.
    log.error("request failed", extra={"endpoint": flask.request.endpoint or "none", "error": type(error).__name__})
    return InternalServerError()
