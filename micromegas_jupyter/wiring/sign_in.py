"""Signing a person in, from the choice of the way to the stored result.

The table of ways is `auth.flow_choice`'s, each way itself `auth`'s; how it looks is the caller's.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from micromegas_jupyter.auth import OidcAuthProvider, PendingLogin, flow_choice
from micromegas_jupyter.auth.flow_choice import ARGUMENT, REMEMBERED, TABLE, FlowChoice, may_go_on, offered_flows
from micromegas_jupyter.auth.given_sign_in import GivenSignIn
from micromegas_jupyter.auth.hub_token import HubTokenProvider
from micromegas_jupyter.auth.hub_variables import is_below_hub
from micromegas_jupyter.auth.pending_login import LINGER_SECONDS
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.redirect_desk import RedirectDesk
from micromegas_jupyter.auth.surroundings import MAY_HAVE_HUB_SERVICE, Facts, Surroundings, gather_facts, recognise
from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.system import SYSTEM_BROWSER, SYSTEM_CLOCK, Browser, process_variables
from micromegas_jupyter.errors import (
    ConfigurationError,
    LoginFailed,
    LoginRequired,
    MicromegasError,
    ProviderMisbehaved,
    UsageError,
)
from micromegas_jupyter.oidc.private_key import PrivateKey
from micromegas_jupyter.wiring.configured import provider_of, sign_in_configured
from micromegas_jupyter.wiring.credentials import client_proof
from micromegas_jupyter.wiring.flow_memory import remembered_flow
from micromegas_jupyter.wiring.hub_sign_in import begin_hub_login, hub_service, with_provider_of
from micromegas_jupyter.wiring.provider_calls import provider_http
from micromegas_jupyter.wiring.sign_in_files import sign_in_store

PASTE_TRIES = 4

_FALLBACK_LINES = {
    Flow.REDIRECT: "Going on with a page of the Hub that you open in your browser.",
    Flow.DEVICE: "Going on with a code that you type on any device.",
    Flow.PASTE: "Going on with an address that you open yourself.",
    Flow.BROWSER: "Going on with your browser.",
}


def choose_flow(  # noqa: PLR0913 - what varies is passed in
    settings: ClientSettings,
    *,
    facts: Facts | None = None,
    wanted: Flow | None = None,
    is_automatic: bool = False,
    can_device: bool | None = None,
    available: Collection[Flow] | None = None,
    environ: Mapping[str, str] | None = None,
) -> FlowChoice:
    """Choose how a person signs in: by argument, variable, profile, what an earlier sign-in used, surroundings.

    Args:
        settings: Variable and profile are taken from here.
        facts: Where the program runs; looked up when None.
        wanted: What an argument named.
        is_automatic: Whether an argument asked to leave it to the surroundings.
        can_device: Whether the provider has a device endpoint; the provider is asked when None and it matters.
        available: The flows that can be carried out here; found out when None.
        environ: Stands in for the process environment.

    Raises:
        ProviderUnavailable: The provider was asked and does not answer.
        ProviderMisbehaved: The provider's description is not acceptable.
    """
    environ = process_variables(environ)
    facts = gather_facts(environ=environ) if facts is None else facts
    surroundings = recognise(environ, facts)
    offered = offered_flows(environ, facts) if available is None else available
    origin = ARGUMENT if wanted is not None else None
    if wanted is None and not is_automatic:
        wanted, origin = _override(settings, environ)

    def choose(can_device: bool | None) -> FlowChoice:  # noqa: FBT001 - the one thing that changes
        return flow_choice.choose_flow(
            surroundings, wanted=wanted, origin=origin, can_device=can_device, available=offered
        )

    choice = choose(can_device)
    if choice.flow is Flow.HUB and settings.issuer is None:
        # Only the Hub knows of a provider.
        return replace(choice, fallbacks=tuple(flow for flow in choice.fallbacks if flow is Flow.REDIRECT))
    if choice.flow is Flow.DEVICE and can_device is None and sign_in_configured(settings):
        return choose(_offers_device(settings))
    return choice


def require_flow(settings: ClientSettings, choice: FlowChoice) -> Flow:
    """Return the flow that was chosen.

    Raises:
        LoginRequired: Nobody can sign in here.
        UsageError: An argument named a flow that is not possible.
        ConfigurationError: A setting named one, or no provider is configured.
    """
    # A Hub with the service knows a provider by itself.
    if not (choice.flow in {Flow.HUB, Flow.REDIRECT} and choice.surroundings in MAY_HAVE_HUB_SERVICE):
        provider_of(settings)
    if choice.flow is not None:
        return choice.flow
    if choice.origin == ARGUMENT:
        raise UsageError(choice.reason, remedy=choice.remedy)
    if choice.origin != TABLE:
        raise ConfigurationError(choice.reason, key=choice.origin, remedy=choice.remedy)
    remedy = choice.remedy
    if choice.surroundings is Surroundings.NO_TERMINAL:
        remedy = f"{remedy} If somebody is here after all, name a way with --flow."
    raise LoginRequired(f"Nobody can sign in at {settings.issuer} from here. {choice.reason}", remedy=remedy)


def begin_login(  # noqa: PLR0913 - the seams
    settings: ClientSettings,
    *,
    flow: Flow = Flow.BROWSER,
    environ: Mapping[str, str] | None = None,
    announce: Callable[[str], None] | None = None,
    store: bool = True,
    desk: RedirectDesk | None = None,
) -> PendingLogin | GivenSignIn[HubTokenProvider]:
    """Start a sign-in that goes on by itself; returns at once with what the person needs.

    Args:
        settings: Which provider, and as which application.
        flow: The way to sign in.
        environ: Stands in for the process environment.
        announce: Told, in a sentence, when the sign-in will be kept elsewhere than asked for.
        store: Whether the sign-in is kept for other programs of this person.
        desk: Where a Jupyter server's requests come in, for the redirect flow.

    Raises:
        ConfigurationError: No provider is configured.
        ProviderUnavailable: The provider does not answer.
        ProviderMisbehaved: The provider's answer breaks the protocol, or it does not offer this flow.
        LoginRequired: JupyterHub was to sign the person in, and does not.
    """
    if flow is Flow.HUB:
        return begin_hub_login(settings, environ)
    hub = None
    if flow is Flow.REDIRECT and is_below_hub(process_variables(environ)):
        hub = hub_service(settings, environ)
        if settings.issuer is None and settings.client_id is None:
            # Only the Hub knows of a provider, so another program would not find what was kept.
            settings, store = with_provider_of(hub, settings), False
    issuer, client_id = provider_of(settings)
    proof = client_proof(settings)
    return OidcAuthProvider.begin_login(
        issuer,
        client_id,
        proof if isinstance(proof, Secret) else None,
        redirect_uri=settings.redirect_uri,
        audience=settings.audience,
        scope=settings.scope,
        authorize_params=dict(settings.authorize_params),
        flow=flow,
        store=sign_in_store(settings, environ, announce=announce) if store else None,
        bearer=settings.bearer,
        resource=settings.resource,
        private_key=proof if isinstance(proof, PrivateKey) else None,
        http=provider_http(settings),
        desk=desk,
        hub=hub,
    )


def login(  # noqa: PLR0913 - the seams
    settings: ClientSettings,
    *,
    flow: Flow = Flow.BROWSER,
    fallbacks: Sequence[Flow] = (),
    browser: Browser = SYSTEM_BROWSER,
    announce: Callable[[str], None] | None = None,
    show: Callable[[PendingLogin], None] | None = None,
    store: bool = True,
    environ: Mapping[str, str] | None = None,
    ask: Callable[[str], str] | None = None,
) -> OidcAuthProvider | HubTokenProvider:
    """Sign a person in and wait for it.

    Args:
        settings: Which provider, and as which application.
        flow: The way to sign in.
        fallbacks: The ways to go on with, in order, when one cannot be started or no browser opens.
        browser: Opens the page.
        announce: Told in sentences what the person is to do, and what changes meanwhile.
        show: Shows a sign-in that was started, in place of the sentence that `announce` would be told.
        store: Whether the sign-in is kept for other programs of this person.
        environ: Stands in for the process environment.
        ask: Asks the person for the pasted address; without it nobody can paste.

    Raises:
        ConfigurationError: No provider is configured.
        LoginFailed: The sign-in ended without a token.
        ProviderUnavailable: The provider does not answer.
        ProviderMisbehaved: The provider's answer breaks the protocol, or it does not offer this flow.
    """
    announce = announce or _keep_quiet
    # Where the sign-in is kept does not change with the flow, so it is said once.
    announce_place = _once(announce)
    left = [found for found in (flow, *fallbacks) if found is not Flow.PASTE or ask is not None]
    while left:
        current, *left = left
        try:
            pending = begin_login(settings, flow=current, environ=environ, announce=announce_place, store=store)
        except MicromegasError as error:
            if not left or not may_go_on(error):
                raise
            announce(f"{error.what} {_FALLBACK_LINES[left[0]]}")
            continue
        if isinstance(pending, GivenSignIn):
            return pending.result()
        try:
            (show or _sentence_for(announce))(pending)
            if current is Flow.BROWSER and not browser.open(pending.start_url or "") and left:
                announce(f"No browser opened here. {_FALLBACK_LINES[left[0]]}")
                continue
            if current is Flow.PASTE and ask is not None:
                _take_pasted(pending, ask=ask, announce=announce)
            return pending.result()
        finally:
            pending.cancel()
            pending.wait_closed(LINGER_SECONDS + 1)  # or the program ends before the person has seen the last page
    raise UsageError("Nobody is here who could paste an address.", remedy="Choose another way to sign in.")


def sentence_of(pending: PendingLogin) -> str:
    """Return what a person is to do for this sign-in."""
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


def _override(settings: ClientSettings, environ: Mapping[str, str]) -> tuple[Flow | None, str | None]:
    origin = settings.origin_of("flow")
    if settings.flow is not None or origin is not None:  # a setting that says auto has no flow
        return settings.flow, origin or "flow"
    remembered = remembered_flow(settings, environ)
    return remembered, None if remembered is None else REMEMBERED


def _offers_device(settings: ClientSettings) -> bool:
    issuer, client_id = provider_of(settings)
    connection = ProviderConnection(issuer, client_id, None, http=provider_http(settings), clock=SYSTEM_CLOCK)
    return connection.metadata().device_authorization_endpoint is not None


def _take_pasted(pending: PendingLogin, *, ask: Callable[[str], str], announce: Callable[[str], None]) -> None:
    """Ask until an address fits; what went wrong in the end is the sign-in's own result."""
    for _ in range(PASTE_TRIES):
        pasted = Secret(ask("Paste the address here (it is not shown): "))
        if pending.done:
            return
        try:
            pending.submit(pasted)
        except (UsageError, ProviderMisbehaved) as error:
            announce(str(error))
        else:
            return
    raise LoginFailed("None of the pasted addresses belongs to this sign-in.")


def _sentence_for(announce: Callable[[str], None]) -> Callable[[PendingLogin], None]:
    return lambda pending: announce(sentence_of(pending))


def _once(announce: Callable[[str], None]) -> Callable[[str], None]:
    said: set[str] = set()

    def announce_new(sentence: str) -> None:
        if sentence not in said:
            said.add(sentence)
            announce(sentence)

    return announce_new


def _keep_quiet(_sentence: str) -> None:
    """Announce to nobody."""
