"""What the handlers of the service share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from micromegas_jupyter.core.system import SYSTEM_CLOCK, SYSTEM_RANDOMNESS, Clock
from micromegas_jupyter.hub.hub_api import HubApi
from micromegas_jupyter.hub.limits import CallerLimits, HubAudit
from micromegas_jupyter.hub.provider import HubProvider
from micromegas_jupyter.hub.sign_ins import SignIns

if TYPE_CHECKING:
    from micromegas_jupyter.hub.settings import ServiceSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What all handlers share."""

    settings: ServiceSettings
    hub: HubApi
    audit: HubAudit
    provider: HubProvider
    sign_ins: SignIns
    limits: CallerLimits
    clock: Clock


def build_service(settings: ServiceSettings, *, clock: Clock = SYSTEM_CLOCK) -> Service:
    """Return what the handlers share."""
    audit = HubAudit(clock=clock)
    tls = None if settings.internal_tls is None else settings.internal_tls.context()
    return Service(
        settings=settings,
        hub=HubApi(settings.api_url, settings.api_token, tls=tls),
        audit=audit,
        provider=HubProvider(settings, clock=clock),
        sign_ins=SignIns(clock=clock, randomness=SYSTEM_RANDOMNESS),
        limits=CallerLimits(audit=audit, clock=clock),
        clock=clock,
    )
