"""What all handlers of the service share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from micromegas_jupyter.core.system import Clock
    from micromegas_jupyter.hub.caller_limits import CallerLimits, HubAudit
    from micromegas_jupyter.hub.hub_api import HubApi
    from micromegas_jupyter.hub.provider import HubProvider
    from micromegas_jupyter.hub.settings import ServiceSettings
    from micromegas_jupyter.hub.sign_ins import SignIns


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceParts:
    """The service's parts.

    Attributes:
        settings: What it was told.
        hub: Asks the Hub.
        audit: Writes what happened.
        provider: Asks the identity provider.
        sign_ins: Those that browsers have not come back from.
        limits: How often the Hub is asked about callers.
        clock: Tells the time.
    """

    settings: ServiceSettings
    hub: HubApi
    audit: HubAudit
    provider: HubProvider
    sign_ins: SignIns
    limits: CallerLimits
    clock: Clock
