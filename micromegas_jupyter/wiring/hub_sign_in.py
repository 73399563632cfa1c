"""Whether and how the settings let JupyterHub sign a person in.

Asking the Hub's service is `auth.hub_service`'s job; what wins over it is `client_side`'s.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from micromegas_jupyter.auth.hub_place import find_hub
from micromegas_jupyter.auth.hub_refusals import HUB
from micromegas_jupyter.auth.hub_variables import is_below_hub
from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.core.system import SYSTEM_CLOCK, process_variables
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.wiring.flow_memory import remembered_flow

if TYPE_CHECKING:
    from micromegas_jupyter.auth.hub_service import HubService
    from micromegas_jupyter.auth.hub_token import HubTokenProvider, StoredSignIn
    from micromegas_jupyter.auth.provider import CompletedLogin


def uses_hub(settings: ClientSettings, environ: Mapping[str, str] | None = None) -> bool:
    """Whether these settings' calls are made with the Hub's token of the person whose server this is.

    They are not where a person chose another way to sign in, or settings name a service account. And without a word
    about where to connect or whom to trust, no token is sent to whoever listens at the usual address.
    """
    environ = process_variables(environ)
    if not is_below_hub(environ) or _names_service_account(settings):
        return False
    if settings.issuer is None and settings.origin_of("uri") is None:
        return False
    chosen = settings.flow or remembered_flow(settings, environ)
    return chosen in {None, Flow.HUB}


def hub_service(settings: ClientSettings, environ: Mapping[str, str] | None = None) -> "HubService":
    """Return the Hub's sign-in service, with the settings' deadline and authorities.

    Raises:
        ConfigurationError: This program's server was not started by a Hub with that service, or its address cannot be
            used.
    """
    from micromegas_jupyter.auth.hub_service import HubService
    from micromegas_jupyter.core.http.hub_http import HubHttp
    from micromegas_jupyter.wiring.provider_calls import ca_bundle_file

    try:
        place = find_hub(process_variables(environ))
    except ConfigurationError as error:
        error.giver = HUB
        raise
    if place is None:
        raise ConfigurationError(
            "No JupyterHub with a sign-in service started this program's server.",
            key="KERNEL_MICROMEGAS_HUB",
            remedy="Choose another way to sign in.",
        )
    http = HubHttp(timeout_seconds=settings.provider_timeout_seconds, extra_ca_bundle=ca_bundle_file(settings))
    return HubService(place, http=http)


def hub_provider(
    settings: ClientSettings,
    environ: Mapping[str, str] | None = None,
    *,
    stored: "Callable[[], StoredSignIn | None]" = lambda: None,
) -> "HubTokenProvider":
    """Return the provider of the Hub's tokens; nobody is asked yet.

    Args:
        settings: What is configured.
        environ: Stands in for the process environment.
        stored: Gives the person's own sign-in, which stands in when the Hub refuses.

    Raises:
        ConfigurationError: As `hub_service`.
    """
    from micromegas_jupyter.auth.hub_token import HubTokenProvider

    return HubTokenProvider(hub_service(settings, environ), issuer=settings.issuer, stored=stored)


def begin_hub_login(
    settings: ClientSettings, environ: Mapping[str, str] | None = None
) -> "CompletedLogin[HubTokenProvider]":
    """Have the Hub sign the person in, which needs no click.

    Raises:
        LoginRequired: It does not.
        ProviderUnavailable: The service, the Hub or the provider does not answer.
        ProviderMisbehaved: The service's answer cannot be used.
        ConfigurationError: As `hub_service`.
    """
    from micromegas_jupyter.auth.provider import CompletedLogin

    provider = hub_provider(settings, environ)
    provider.get_token()
    return CompletedLogin(provider, flow=Flow.HUB, at=SYSTEM_CLOCK.now())


def with_provider_of(service: "HubService", settings: ClientSettings) -> ClientSettings:
    """Return the settings with the provider and the application of the Hub's own redirect; raises as it refuses."""
    offered = service.redirect()
    return replace(settings, issuer=offered.issuer, client_id=offered.client_id)


def _names_service_account(settings: ClientSettings) -> bool:
    if settings.private_key is not None:
        return True
    has_secret = settings.client_secret is not None or settings.client_secret_file is not None
    return has_secret and not settings.secret_is_native
