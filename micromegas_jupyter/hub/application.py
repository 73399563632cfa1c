"""Which handler answers at which address of the service, and the server that listens there.

What an address does is its handler's job.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from tornado import web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.hub.browser_handlers import CallbackHandler, DoneHandler, StartHandler
from micromegas_jupyter.hub.health_handler import HealthHandler, NothingHandler
from micromegas_jupyter.hub.json_handler import MAX_BODY_BYTES
from micromegas_jupyter.hub.page_handler import HubLoginHandler, make_hub_oauth
from micromegas_jupyter.hub.sign_in_handlers import AnswerHandler, BeginHandler, RedirectHandler
from micromegas_jupyter.hub.token_handler import TokenHandler

if TYPE_CHECKING:
    from micromegas_jupyter.hub.parts import ServiceParts

MAX_HEADER_BYTES: Final = 64 * 1024
IDLE_SECONDS: Final = 60.0
BODY_SECONDS: Final = 10.0


def build_application(parts: ServiceParts) -> web.Application:
    """Return the service's addresses."""
    prefix = parts.settings.prefix
    hub_oauth = make_hub_oauth()
    shared: dict[str, object] = {"parts": parts}
    pages = {**shared, "hub_oauth": hub_oauth}
    return web.Application(
        [
            (rf"{prefix}token", TokenHandler, shared),
            (rf"{prefix}health", HealthHandler, shared),
            (rf"{prefix}redirect", RedirectHandler, shared),
            (rf"{prefix}sign-ins", BeginHandler, shared),
            (rf"{prefix}sign-ins/([A-Za-z0-9_-]{{43}})/answer", AnswerHandler, shared),
            (rf"{prefix}start/([A-Za-z0-9_-]{{43}})", StartHandler, pages),
            (rf"{prefix}callback", CallbackHandler, pages),
            (rf"{prefix}done", DoneHandler, pages),
            (rf"{prefix}oauth_callback", HubLoginHandler, {"hub_oauth": hub_oauth}),
            (r".*", NothingHandler, shared),
        ],
        cookie_secret=secrets.token_bytes(32),
        log_function=_log_nothing,
    )


def listen(parts: ServiceParts) -> HTTPServer:
    """Listen where the settings say.

    Raises:
        ConfigurationError: The port is taken.
    """
    settings = parts.settings
    server = HTTPServer(
        build_application(parts),
        max_header_size=MAX_HEADER_BYTES,
        max_body_size=MAX_BODY_BYTES,
        idle_connection_timeout=IDLE_SECONDS,
        body_timeout=BODY_SECONDS,
    )
    try:
        server.add_sockets(bind_sockets(settings.port, settings.host))
    except OSError:
        raise ConfigurationError(
            f"Port {settings.port} of {settings.host} cannot be listened at.",
            key="JUPYTERHUB_SERVICE_URL",
            remedy="Give configure a service_url with another port.",
        ) from None
    return server


def _log_nothing(_handler: web.RequestHandler) -> None:
    """Log no address: some hold a code and a state. What happened is in the audit log."""
