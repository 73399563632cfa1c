"""`python -m micromegas_jupyter.hub`: the service, which the Hub starts with the environment that `configure` set.

It reads its settings, checks its permissions on the Hub, and handles requests until it is stopped.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import sys
from typing import Final

from tornado import web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from micromegas_jupyter.errors import ConfigurationError, Unavailable
from micromegas_jupyter.hub.callers import AUDIT_LOGGER, Refused, check_service_rights
from micromegas_jupyter.hub.kernel_handlers import Service, build_service
from micromegas_jupyter.hub.settings import ServiceSettings, read_service_settings

MAX_HEADER_BYTES: Final = 64 * 1024
MAX_BODY_BYTES: Final = 64 * 1024
IDLE_SECONDS: Final = 60.0
BODY_SECONDS: Final = 10.0
_LOG: Final = logging.getLogger("micromegas_jupyter.hub")
_START_TRIES: Final = 30
_START_PAUSE_SECONDS: Final = 1.0
_PARENT_CHECK_SECONDS: Final = 3.0


def build_application(service: Service) -> web.Application:
    """Return the application with the service's endpoints."""
    # Imported here, so that the program checks for the Hub that started it before it loads JupyterHub.
    from jupyterhub.services.auth import HubOAuth

    from micromegas_jupyter.hub import browser_handlers as pages
    from micromegas_jupyter.hub import kernel_handlers as kernels

    prefix = service.settings.prefix
    hub_oauth = HubOAuth(cache_max_age=pages.IDENTITY_SECONDS)  # reads the environment that the Hub set
    shared: dict[str, object] = {"service": service}
    with_oauth = {**shared, "hub_oauth": hub_oauth}
    return web.Application(
        [
            (rf"{prefix}token", kernels.TokenHandler, shared),
            (rf"{prefix}health", kernels.HealthHandler, shared),
            (rf"{prefix}redirect", kernels.RedirectHandler, shared),
            (rf"{prefix}sign-ins", kernels.BeginHandler, shared),
            (rf"{prefix}sign-ins/([A-Za-z0-9_-]{{43}})/answer", kernels.AnswerHandler, shared),
            (rf"{prefix}start/([A-Za-z0-9_-]{{43}})", pages.StartHandler, with_oauth),
            (rf"{prefix}callback", pages.CallbackHandler, with_oauth),
            (rf"{prefix}done", pages.DoneHandler, with_oauth),
            (rf"{prefix}oauth_callback", pages.HubLoginHandler, {"hub_oauth": hub_oauth}),
            (r".*", kernels.NotFoundHandler, shared),
        ],
        cookie_secret=secrets.token_bytes(32),
        # URLs are not logged, because some contain a code and a state. The audit log has the details.
        log_function=lambda _handler: None,
    )


def listen(service: Service) -> HTTPServer:
    """Listen on the configured address."""
    settings = service.settings
    server = HTTPServer(
        build_application(service),
        max_header_size=MAX_HEADER_BYTES,
        max_body_size=MAX_BODY_BYTES,
        idle_connection_timeout=IDLE_SECONDS,
        body_timeout=BODY_SECONDS,
    )
    try:
        server.add_sockets(bind_sockets(settings.port, settings.host))
    except OSError:
        raise ConfigurationError(
            f"Cannot bind to port {settings.port} on {settings.host}.",
            key="JUPYTERHUB_SERVICE_URL",
            remedy="Pass a service_url with a different port to configure.",
        ) from None
    return server


async def serve(settings: ServiceSettings) -> None:
    """Serve until the process receives a signal, or the Hub that started it exits."""
    # Read first, because the Hub may exit while the service is still starting.
    hub_pid = os.getppid()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    service = build_service(settings)
    await _check_rights(service)
    server = listen(service)
    _LOG.info("The sign-in service is listening at %s.", settings.prefix)
    while not stop.is_set() and os.getppid() == hub_pid:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PARENT_CHECK_SECONDS):
                await stop.wait()
    server.stop()
    service.provider.close()


async def _check_rights(service: Service) -> None:
    """Check the service's own permissions; the Hub that started it may itself still be starting."""
    for _try in range(_START_TRIES):
        try:
            check_service_rights(await service.hub.fetch_owner(service.settings.api_token))
        except Refused:
            await asyncio.sleep(_START_PAUSE_SECONDS)
        else:
            return
    raise Unavailable("JupyterHub is not responding to its sign-in service.")


def main() -> int:
    """Run the service and return its exit code."""
    messages = logging.StreamHandler()
    messages.setFormatter(logging.Formatter("micromegas_jupyter.hub %(levelname)s: %(message)s"))
    _LOG.addHandler(messages)
    _LOG.setLevel(logging.INFO)
    lines = logging.StreamHandler()
    lines.setFormatter(logging.Formatter("%(message)s"))
    audit = logging.getLogger(AUDIT_LOGGER)
    audit.addHandler(lines)
    audit.propagate = False
    try:
        asyncio.run(serve(read_service_settings(os.environ)))
    except (ConfigurationError, Unavailable) as error:
        sys.stderr.write(f"micromegas_jupyter.hub: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
