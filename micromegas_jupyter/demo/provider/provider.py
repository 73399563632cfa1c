"""`DemoProvider`: the demo's identity provider as one thing that starts and stops.

It joins the parts and runs them on a thread; each part has its own module.
"""

from __future__ import annotations

import logging
import socket
import threading
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.demo.provider.app import build_app
from micromegas_jupyter.demo.provider.authorize_pages import AuthorizePages
from micromegas_jupyter.demo.provider.browser import Browsers
from micromegas_jupyter.demo.provider.clients import CLIENT_ID, SERVICE_CLIENT_ID, build_clients
from micromegas_jupyter.demo.provider.device_pages import DevicePages
from micromegas_jupyter.demo.provider.issuance import TokenIssuer, TokenPolicy
from micromegas_jupyter.demo.provider.keys import SigningKeys
from micromegas_jupyter.demo.provider.protocol_routes import ProtocolRoutes, build_metadata
from micromegas_jupyter.demo.provider.server import DemoAuthorizationServer
from micromegas_jupyter.demo.provider.session_pages import SessionPages
from micromegas_jupyter.demo.provider.sessions import BrowserSessions
from micromegas_jupyter.demo.provider.state import ProviderState
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.seams import SYSTEM_CLOCK, SYSTEM_RANDOMNESS, Clock, Randomness

if TYPE_CHECKING:
    import flask

    from micromegas_jupyter.demo.provider.behind_jupyter import BehindJupyter
    from micromegas_jupyter.demo.provider.keys import SigningAlgorithm
    from micromegas_jupyter.demo.provider.state import Counters

log = logging.getLogger("micromegas_jupyter.demo.provider")

DEFAULT_LAKE_AUDIENCE = "micromegas-demo-lake"
_LISTENING_ADDRESSES = frozenset({"127.0.0.1", "localhost"})
_STOP_TIMEOUT_SECONDS = 5.0
_POLL_SECONDS = 0.05
_SECRET_BYTES = 32


class _QuietHandler(WSGIRequestHandler):
    """Answers one request per connection and writes nothing: its own log lines hold the query, and so codes."""

    protocol_version = "HTTP/1.0"
    timeout = 30

    def log(self, _type: str, _message: str, *_args: object) -> None:
        """Write nothing; the application logs each request without its query."""


class DemoProvider:
    """An OpenID provider for this machine only, everything in memory; a context manager.

    Args:
        host: `127.0.0.1` or `localhost`.
        port: 0 for any free port.
        lake_audience: The audience of access tokens when a request names none.
        extra_audiences: Further audiences that a request may name.
        service_secret: The service account's secret; a random one when left out.
        token_lifetime_seconds: Life of ID and access tokens; short, so that the renewal is seen.
        refresh_lifetime_seconds: Life of refresh tokens.
        device_interval_seconds: How often a device may ask.
        extra_redirect_uris: Redirect URIs besides `/callback` on this machine, compared byte for byte.
        public_base_url: Where a browser reaches the pages when that is not the issuer, without a slash at the end.
        behind: The Jupyter server that shows the pages to browsers, when `public_base_url` is not known.
        algorithm: How tokens are signed. Keys for both algorithms are published.
        clock: Tells the time.
        randomness: Draws codes, tokens and cookies.
    """

    client_id = CLIENT_ID
    service_client_id = SERVICE_CLIENT_ID

    def __init__(  # noqa: PLR0913 - settings with defaults, all by name
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        lake_audience: str = DEFAULT_LAKE_AUDIENCE,
        extra_audiences: tuple[str, ...] = (),
        service_secret: Secret | None = None,
        token_lifetime_seconds: int = 600,
        refresh_lifetime_seconds: int = 86_400,
        device_interval_seconds: int = 5,
        extra_redirect_uris: tuple[str, ...] = (),
        public_base_url: str | None = None,
        behind: BehindJupyter | None = None,
        algorithm: SigningAlgorithm = "RS256",
        clock: Clock = SYSTEM_CLOCK,
        randomness: Randomness = SYSTEM_RANDOMNESS,
    ) -> None:
        if host not in _LISTENING_ADDRESSES:
            raise ConfigurationError(
                "The demo's identity provider runs on 127.0.0.1 or localhost only: everybody knows its password.",
                key="host",
            )
        self.service_secret = service_secret or Secret(randomness.token_urlsafe(_SECRET_BYTES))
        self.lake_audience = lake_audience
        self._host = host
        self._port = port
        self._extra_audiences = extra_audiences
        self._token_lifetime_seconds = token_lifetime_seconds
        self._device_interval_seconds = device_interval_seconds
        self._extra_redirect_uris = extra_redirect_uris
        self._public_base_url = public_base_url
        self._behind = behind
        self._algorithm = algorithm
        self._clock = clock
        self._randomness = randomness
        self._state = ProviderState(
            clock=clock,
            token_lifetime_seconds=token_lifetime_seconds,
            refresh_lifetime_seconds=refresh_lifetime_seconds,
        )
        self._server: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def issuer(self) -> str:
        """The issuer URL; known once started."""
        return f"http://{self._host}:{self._port}"

    def counters(self) -> Counters:
        """Return how often codes, refreshes, reuses and revocations happened since the start."""
        return self._state.counters()

    def start(self) -> None:
        """Listen, then answer on a daemon thread. Returns once requests are taken.

        Raises:
            ConfigurationError: The port is taken or cannot be used.
        """
        try:
            listener = socket.create_server((self._host, self._port))
        except OSError:
            raise ConfigurationError(
                f"Port {self._port} on {self._host} cannot be used.",
                key="port",
                remedy="Stop what uses it, or choose another port; 0 takes any free one.",
            ) from None
        with listener:
            self._port = listener.getsockname()[1]
            app = self._build_app()
            # Werkzeug leaves the process when it cannot bind, so it is handed a socket that is bound.
            self._server = make_server(
                self._host, self._port, app, threaded=True, request_handler=_QuietHandler, fd=listener.fileno()
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
        policy = TokenPolicy(
            issuer=self.issuer,
            lake_audience=self.lake_audience,
            extra_audiences=self._extra_audiences,
            lifetime_seconds=self._token_lifetime_seconds,
            algorithm=self._algorithm,
        )
        public_base_url = self._public_base_url or self.issuer
        public = urlsplit(public_base_url)
        keys = SigningKeys()
        tokens = TokenIssuer(
            policy=policy, keys=keys, state=self._state, clock=self._clock, randomness=self._randomness
        )
        behind = self._behind
        clients = build_clients(
            service_secret=self.service_secret, extra_redirect_uris=self._extra_redirect_uris, behind=behind
        )
        server = DemoAuthorizationServer(clients=clients, state=self._state, tokens=tokens, clock=self._clock)
        server.open_device_endpoint(
            verification_uri=f"{public_base_url}/device", interval_seconds=self._device_interval_seconds
        )
        browsers = Browsers(
            BrowserSessions(clock=self._clock, randomness=self._randomness),
            cookie_name=f"micromegas_demo_{self._port}",
            cookie_path=f"{public.path}/" if behind is None else behind.cookie_path,
        )
        return build_app(
            trusted_hosts=[*_LISTENING_ADDRESSES, public.hostname or self._host],
            public_scheme=public.scheme,
            browsers=browsers,
            routes=[
                AuthorizePages(server, browsers),
                DevicePages(server, browsers),
                SessionPages(server, keys, browsers),
                ProtocolRoutes(
                    server,
                    keys,
                    build_metadata(policy, public_base_url=public_base_url, is_behind_jupyter=behind is not None),
                ),
            ],
        )
