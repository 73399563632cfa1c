"""The service as a program: reads its settings, checks its rights at the Hub, and answers until it is stopped."""

from __future__ import annotations

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

from micromegas_jupyter.core.system import SYSTEM_CLOCK, SYSTEM_RANDOMNESS, Clock
from micromegas_jupyter.errors import ConfigurationError, Unavailable
from micromegas_jupyter.hub.caller_limits import AUDIT_LOGGER, CallerLimits, HubAudit
from micromegas_jupyter.hub.dependencies import ServiceParts
from micromegas_jupyter.hub.hub_api import HubApi
from micromegas_jupyter.hub.provider import HubProvider
from micromegas_jupyter.hub.refusals import Refused
from micromegas_jupyter.hub.rights import check_own_rights
from micromegas_jupyter.hub.settings import ServiceSettings, read_service_settings
from micromegas_jupyter.hub.sign_ins import SignIns

MAX_HEADER_BYTES: Final = 64 * 1024
MAX_BODY_BYTES: Final = 64 * 1024
IDLE_SECONDS: Final = 60.0
BODY_SECONDS: Final = 10.0
_LOG: Final = logging.getLogger("micromegas_jupyter.hub")
_START_TRIES: Final = 30
_START_PAUSE_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 3.0


def build_application(parts: ServiceParts) -> web.Application:
    """Return the service's addresses."""
    # Loaded here, so that the program looks for the Hub that started it before it loads JupyterHub.
    from micromegas_jupyter.hub import browser_handlers as pages
    from micromegas_jupyter.hub import kernel_handlers as kernels

    prefix = parts.settings.prefix
    hub_oauth = pages.make_hub_oauth()
    shared: dict[str, object] = {"parts": parts}
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
            (r".*", kernels.NothingHandler, shared),
        ],
        cookie_secret=secrets.token_bytes(32),
        log_function=_log_nothing,
    )


def listen(parts: ServiceParts) -> HTTPServer:
    """Listen where the settings say."""
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


def build_parts(settings: ServiceSettings, *, clock: Clock = SYSTEM_CLOCK) -> ServiceParts:
    """Return what the handlers share."""
    audit = HubAudit(clock=clock)
    tls = None if settings.internal_tls is None else settings.internal_tls.context()
    return ServiceParts(
        settings=settings,
        hub=HubApi(settings.api_url, settings.api_token, tls=tls),
        audit=audit,
        provider=HubProvider(settings, clock=clock),
        sign_ins=SignIns(clock=clock, randomness=SYSTEM_RANDOMNESS),
        limits=CallerLimits(audit=audit, clock=clock),
        clock=clock,
    )


async def serve(settings: ServiceSettings) -> None:
    """Answer until the process is asked to stop."""
    # Before anything else: a Hub may be gone again while its service still starts.
    hub = os.getppid()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    parts = build_parts(settings)
    await _check_rights(parts)
    server = listen(parts)
    _LOG.info("The sign-in service answers at %s.", settings.prefix)
    await _wait_for_end(stop, hub)
    server.stop()
    parts.provider.close()


async def _wait_for_end(stop: asyncio.Event, hub: int) -> None:
    """Wait until the process is asked to stop, or the Hub that started it is gone and could not ask."""
    while not stop.is_set() and os.getppid() == hub:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                await stop.wait()


async def _check_rights(parts: ServiceParts) -> None:
    """Check the service's own rights, while the Hub that started it may still be starting itself."""
    for _try in range(_START_TRIES):
        try:
            check_own_rights(await parts.hub.own())
        except Refused:
            await asyncio.sleep(_START_PAUSE_SECONDS)
        else:
            return
    raise Unavailable("JupyterHub does not answer its sign-in service.")


def main() -> int:
    """Run the service and return its exit code."""
    _write_logs_to_stderr()
    try:
        asyncio.run(serve(read_service_settings(os.environ)))
    except (ConfigurationError, Unavailable) as error:
        sys.stderr.write(f"micromegas_jupyter.hub: {error}\n")
        return error.exit_code
    return 0


def _write_logs_to_stderr() -> None:
    words = logging.StreamHandler()
    words.setFormatter(logging.Formatter("micromegas_jupyter.hub %(levelname)s: %(message)s"))
    _LOG.addHandler(words)
    _LOG.setLevel(logging.INFO)
    lines = logging.StreamHandler()
    lines.setFormatter(logging.Formatter("%(message)s"))
    audit = logging.getLogger(AUDIT_LOGGER)
    audit.addHandler(lines)
    audit.propagate = False
