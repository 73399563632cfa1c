"""The service as a program: reads its settings, checks its rights at the Hub, and answers until it is stopped.

What it answers is the handlers' job.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.errors import ConfigurationError, Unavailable
from micromegas_jupyter.hub.audit import AUDIT_LOGGER, HubAudit
from micromegas_jupyter.hub.caller_limits import CallerLimits
from micromegas_jupyter.hub.hub_api import HubApi
from micromegas_jupyter.hub.own_rights import check_own_rights
from micromegas_jupyter.hub.parts import ServiceParts
from micromegas_jupyter.hub.provider import HubProvider
from micromegas_jupyter.hub.refusals import Refused
from micromegas_jupyter.hub.settings import read_service_settings
from micromegas_jupyter.hub.sign_ins import SignIns
from micromegas_jupyter.seams import SYSTEM_CLOCK, SYSTEM_RANDOMNESS

if TYPE_CHECKING:
    from micromegas_jupyter.hub.settings import ServiceSettings
    from micromegas_jupyter.seams import Clock

_LOG: Final = logging.getLogger("micromegas_jupyter.hub")
_START_TRIES: Final = 30
_START_PAUSE_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 3.0


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
    """Answer until the process is asked to stop.

    Raises:
        ConfigurationError: The service's token may too little or too much at the Hub, or the port is taken.
        Unavailable: The Hub does not answer.
    """
    from micromegas_jupyter.hub.application import listen

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
