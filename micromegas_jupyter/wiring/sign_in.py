"""Signs a user in according to the settings: chooses and starts the flow, falls back, and stores the result."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from micromegas_jupyter.auth.flows import base
from micromegas_jupyter.auth.flows.base import (
    ARGUMENT,
    REMEMBERED,
    TABLE,
    FlowChoice,
    LoginRequest,
    RuntimeEnvironment,
    RuntimeInfo,
    gather_runtime_info,
    is_below_hub,
)
from micromegas_jupyter.auth.flows.hub import HubTokenProvider
from micromegas_jupyter.auth.flows.jupyter import RedirectLogins
from micromegas_jupyter.auth.provider import LINGER_SECONDS, CompletedLogin, OidcAuthProvider, PendingLogin
from micromegas_jupyter.auth.provider import begin_login as start_login
from micromegas_jupyter.auth.provider_connection import ProviderConnection, configured_connection, provider_http
from micromegas_jupyter.config.client import DEFAULT_SCOPE, ClientSettings, Flow
from micromegas_jupyter.core.system import SYSTEM_BROWSER, SYSTEM_CLOCK, Browser, Secret, process_variables
from micromegas_jupyter.errors import (
    ConfigurationError,
    LoginRequired,
    UsageError,
)
from micromegas_jupyter.wiring.client_side import (
    hub_provider,
    hub_service,
    provider_of,
    remembered_flow,
    sign_in_configured,
    token_store,
)

_FALLBACK_LINES = {
    Flow.REDIRECT: "Continuing with a page of the Hub that you open in your browser.",
    Flow.DEVICE: "Continuing with a code that you type on any device.",
    Flow.PASTE: "Continuing with an address that you open yourself.",
    Flow.BROWSER: "Continuing with your browser.",
}


def choose_flow(  # noqa: PLR0913 - what varies is passed in
    settings: ClientSettings,
    *,
    facts: RuntimeInfo | None = None,
    wanted: Flow | None = None,
    is_automatic: bool = False,
    can_device: bool | None = None,
    environ: Mapping[str, str] | None = None,
) -> FlowChoice:
    """Choose how a user signs in: by argument, variable, profile, an earlier sign-in, or the runtime environment.

    `wanted` is the flow from an argument; `is_automatic` means that the argument was `auto`. Missing values are
    detected: the runtime environment (`facts`), and, if relevant, whether the provider has a device endpoint
    (`can_device`).
    """
    environ = process_variables(environ)
    facts = gather_runtime_info(environ=environ) if facts is None else facts
    environment = base.detect_environment(environ, facts)
    offered = base.available_flows(environ, facts)
    origin = ARGUMENT if wanted is not None else None
    if wanted is None and not is_automatic:
        wanted, origin = _lasting_choice(settings, environ)

    def choose(can_device: bool | None) -> FlowChoice:  # noqa: FBT001 - the one thing that changes
        return base.choose_flow(environment, wanted=wanted, origin=origin, can_device=can_device, available=offered)

    choice = choose(can_device)
    if choice.flow is Flow.HUB and settings.issuer is None:
        # Only the Hub has the provider's settings.
        return replace(choice, fallbacks=tuple(flow for flow in choice.fallbacks if flow is Flow.REDIRECT))
    if choice.flow is Flow.DEVICE and can_device is None and sign_in_configured(settings):
        return choose(_offers_device(settings))
    return choice


def require_flow(settings: ClientSettings, choice: FlowChoice) -> Flow:
    """Return the chosen flow, or raise an error that explains why there isn't one."""
    # A Hub with the service has the provider's settings.
    if not (choice.flow in {Flow.HUB, Flow.REDIRECT} and choice.environment.may_have_hub_service):
        provider_of(settings)
    if choice.flow is not None:
        return choice.flow
    if choice.origin == ARGUMENT:
        raise UsageError(choice.reason, remedy=choice.remedy)
    if choice.origin != TABLE:
        raise ConfigurationError(choice.reason, key=choice.origin, remedy=choice.remedy)
    remedy = choice.remedy
    if choice.environment is RuntimeEnvironment.NO_TERMINAL:
        remedy = f"{remedy} If a user is present, specify a flow with --flow."
    raise LoginRequired(f"Users can't sign in to {settings.issuer} from here. {choice.reason}", remedy=remedy)


def begin_login(
    settings: ClientSettings,
    *,
    flow: Flow = Flow.BROWSER,
    environ: Mapping[str, str] | None = None,
    store: bool = True,
    redirects: RedirectLogins | None = None,
) -> PendingLogin:
    """Start a sign-in that continues in the background; returns immediately with instructions for the user.

    `store` makes the sign-in available to the user's other programs. The redirect flow requires `redirects`, where a
    Jupyter server's requests arrive, unless this is a Hub.
    """
    if flow is Flow.HUB:
        provider = hub_provider(settings, environ)
        provider.get_token()
        return CompletedLogin(provider, at=SYSTEM_CLOCK.now())
    hub = None
    if flow is Flow.REDIRECT and is_below_hub(process_variables(environ)):
        hub = hub_service(settings, environ)
        if settings.issuer is None and settings.client_id is None:
            # Only the Hub has the provider's settings, so other programs could not find a stored sign-in.
            offered, store = hub.redirect(), False
            settings = replace(settings, issuer=offered.issuer, client_id=offered.client_id)
    issuer, client_id = provider_of(settings)
    request = LoginRequest(
        connection=configured_connection(settings, issuer, client_id),
        store=token_store(settings, environ) if store else None,
        bearer=settings.bearer,
        scope=settings.scope or DEFAULT_SCOPE,
        audience=settings.audience,
        resource=settings.resource,
        redirect_uri=settings.redirect_uri,
        authorize_params=dict(settings.authorize_params),
    )
    return start_login(request, flow, redirects=redirects, hub=hub)


def login(  # noqa: PLR0913 - what varies is passed in
    settings: ClientSettings,
    *,
    flow: Flow = Flow.BROWSER,
    fallbacks: Sequence[Flow] = (),
    browser: Browser = SYSTEM_BROWSER,
    announce: Callable[[str], None] = lambda _sentence: None,
    show: Callable[[PendingLogin], None] | None = None,
    store: bool = True,
    environ: Mapping[str, str] | None = None,
    prompt: Callable[[str], str] | None = None,
) -> OidcAuthProvider | HubTokenProvider:
    """Sign a user in and wait for it; raises like `begin_login` and `PendingLogin.result`.

    The `fallbacks` are tried in order if a flow cannot be started or no browser opens. `announce` is called with
    instructions for the user, or `show` with the started sign-in instead. `prompt` requests the pasted URL; without it,
    the paste flow can't be used.
    """
    flows = [found for found in (flow, *fallbacks) if found is not Flow.PASTE or prompt is not None]
    if not flows:
        raise UsageError("No user is present to paste an address.", remedy="Choose another way to sign in.")
    pending: PendingLogin | None = None

    def end() -> None:
        if pending is not None:
            pending.cancel()
            pending.wait_closed(LINGER_SECONDS + 1)  # or the program would exit before the user sees the last page

    def begin(next_flow: Flow, _reason: str) -> PendingLogin:
        nonlocal pending
        end()
        pending = begin_login(settings, flow=next_flow, environ=environ, store=store)
        return pending

    def show_started(started: PendingLogin, reason: str) -> bool:
        if reason:
            announce(f"{reason} {_FALLBACK_LINES.get(started.flow, '')}".rstrip())
        if started.flow is Flow.HUB:
            return True
        if show is None:
            announce(sentence_of(started))
        else:
            show(started)
        return started.flow is not Flow.BROWSER or browser.open(started.start_url or "")

    try:
        started = base.start_first(flows, begin=begin, show=show_started)
        if started.flow is Flow.PASTE and prompt is not None:
            ask = partial(prompt, base.PASTE_PROMPT)
            base.take_pasted(started, prompt=lambda: Secret(ask()), show_error=lambda error: announce(str(error)))
        return started.result()
    finally:
        end()


def sentence_of(pending: PendingLogin) -> str:
    """Return the instructions for a user of this sign-in."""
    match pending.flow:
        case Flow.DEVICE:
            return f"Go to {pending.verification_uri} and type {pending.user_code}. Only type it if you started this."
        case Flow.PASTE:
            return (
                f"Open {pending.start_url} in a browser and sign in. It ends at a page that may not load: "
                "copy its whole address."
            )
        case Flow.BROWSER | Flow.REDIRECT | Flow.HUB:
            return f"Sign in in your browser; if none opens, open {pending.start_url}"


def _lasting_choice(settings: ClientSettings, environ: Mapping[str, str]) -> tuple[Flow | None, str | None]:
    origin = settings.origin_of("flow")
    if settings.flow is not None or origin is not None:  # if the setting is auto, there is no flow
        return settings.flow, origin or "flow"
    remembered = remembered_flow(settings, environ)
    return remembered, None if remembered is None else REMEMBERED


def _offers_device(settings: ClientSettings) -> bool:
    issuer, client_id = provider_of(settings)
    connection = ProviderConnection(issuer, client_id, None, http=provider_http(settings))
    return connection.metadata().device_authorization_endpoint is not None
