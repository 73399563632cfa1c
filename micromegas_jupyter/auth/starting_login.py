"""Starts each flow: talks to the provider as far as it must before the person is asked.

Waiting for the person is the flow's own job and carrying the sign-in to its end is `pending_login`'s.
"""

from datetime import timedelta

from micromegas_jupyter.auth.browser_login import BrowserLogin
from micromegas_jupyter.auth.code_grant import CodeGrant
from micromegas_jupyter.auth.device_login import DeviceLogin, StopSignal
from micromegas_jupyter.auth.hub_redirect import HubRedirectLogin, start_hub_redirect
from micromegas_jupyter.auth.hub_service import HubService
from micromegas_jupyter.auth.login_request import LoginRequest
from micromegas_jupyter.auth.loopback_address import LoopbackAddress, parse_loopback_address
from micromegas_jupyter.auth.loopback_receiver import LoopbackReceiver
from micromegas_jupyter.auth.paste_login import PasteLogin
from micromegas_jupyter.auth.pending_login import LoginPrompt, RunningFlow
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.redirect_desk import RedirectDesk
from micromegas_jupyter.auth.redirect_login import RedirectLogin
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.core.system import Clock, Randomness
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.oidc.authorization import build_authorization_request
from micromegas_jupyter.oidc.discovery import ProviderMetadata
from micromegas_jupyter.redirect.redirect_address import callback_address
from micromegas_jupyter.redirect.routing import RANDOM_BYTES

BROWSER_TIMEOUT_SECONDS = 300.0
PASTE_TIMEOUT_SECONDS = 600.0
REDIRECT_TIMEOUT_SECONDS = 600.0
LONGEST_DEVICE_SECONDS = 1800.0
# Nobody listens here in the paste flow. A fixed port, because some providers compare it (RFC 8252 section 7.3 asks
# them not to), so that one address can be registered for it.
PASTE_PORT = 48080


def start_login(  # noqa: PLR0913 - the seams
    flow: Flow,
    request: LoginRequest,
    connection: ProviderConnection,
    *,
    clock: Clock,
    randomness: Randomness,
    device_stop: StopSignal | None = None,
    desk: RedirectDesk | None = None,
    hub: HubService | None = None,
) -> RunningFlow:
    """Start a flow; returns as soon as there is something to show to the person.

    Args:
        flow: Browser, device, paste, or redirect where there is a Hub or a desk.
        request: What is asked for.
        connection: Calls the provider.
        clock: Tells the time.
        randomness: Draws state, nonce and verifier.
        device_stop: Stands in for the pauses of the device flow.
        desk: Where a Jupyter server's requests come in, in a kernel that has one.
        hub: The service of a Hub that has one redirect for all; goes before a desk.

    Raises:
        UsageError: The redirect URI is not on loopback, scope or parameters are malformed, or the flow is not one
            that a program by itself can carry out.
        ProviderUnavailable: The provider does not answer.
        ProviderMisbehaved: The provider's description is not acceptable, or it has no such flow.
        LoginFailed: The fixed port is taken, or the provider refuses the application.
        LoginRequired: The Hub takes no sign-in.
    """
    if flow is Flow.DEVICE:
        return _start_device(request, connection, clock=clock, stopped=device_stop)
    if flow is Flow.REDIRECT and hub is not None:
        return _start_at_hub(request, connection, hub, clock=clock, randomness=randomness)
    if flow is Flow.REDIRECT and desk is not None:
        return _start_redirect(request, connection, desk, clock=clock, randomness=randomness)
    if flow not in {Flow.BROWSER, Flow.PASTE}:
        raise UsageError(f"The flow {flow.value!r} cannot be started here.", remedy="Use browser, device or paste.")
    address = parse_loopback_address(request.redirect_uri)
    if flow is Flow.PASTE:
        return _start_paste(request, connection, address, clock=clock, randomness=randomness)
    return _start_browser(request, connection, address, clock=clock, randomness=randomness)


def _start_browser(
    request: LoginRequest,
    connection: ProviderConnection,
    address: LoopbackAddress,
    *,
    clock: Clock,
    randomness: Randomness,
) -> BrowserLogin:
    metadata = connection.metadata()  # before a port is taken
    receiver = LoopbackReceiver(address, randomness=randomness)
    try:
        grant = _code_grant(request, connection, metadata, redirect_uri=receiver.redirect_uri, randomness=randomness)
        timeout_seconds = _timeout_of(request, BROWSER_TIMEOUT_SECONDS)
        prompt = _prompt(Flow.BROWSER, timeout_seconds, clock=clock, start_url=receiver.start_url)
        return BrowserLogin(prompt, receiver, grant)
    except BaseException:
        receiver.close()
        raise


def _start_redirect(
    request: LoginRequest,
    connection: ProviderConnection,
    desk: RedirectDesk,
    *,
    clock: Clock,
    randomness: Randomness,
) -> RedirectLogin:
    # Kept as it is now: later, on the thread that answers the server, nothing may be fetched.
    metadata = connection.metadata()

    def build_grant(redirect_uri: str) -> CodeGrant:
        return _code_grant(
            request,
            connection,
            metadata,
            redirect_uri=redirect_uri,
            randomness=randomness,
            state_prefix=desk.state_prefix(),
        )

    build_grant(callback_address("http://localhost/"))  # what is wrong with the request is said now, not on a page
    name, start_address = desk.start_address(randomness.token_urlsafe(RANDOM_BYTES))
    timeout_seconds = min(_timeout_of(request, REDIRECT_TIMEOUT_SECONDS), REDIRECT_TIMEOUT_SECONDS)
    prompt = _prompt(Flow.REDIRECT, timeout_seconds, clock=clock, start_url=start_address)
    login = RedirectLogin(prompt, build_grant, fetch_keys=connection.keys)
    desk.open(name, login)
    return login


def _start_at_hub(
    request: LoginRequest, connection: ProviderConnection, hub: HubService, *, clock: Clock, randomness: Randomness
) -> HubRedirectLogin:
    metadata = connection.metadata()
    return start_hub_redirect(
        hub,
        lambda uri: _code_grant(request, connection, metadata, redirect_uri=uri, randomness=randomness),
        issuer=connection.issuer,
        client_id=connection.client_id,
        longest_seconds=min(_timeout_of(request, REDIRECT_TIMEOUT_SECONDS), REDIRECT_TIMEOUT_SECONDS),
        clock=clock,
    )


def _start_paste(
    request: LoginRequest,
    connection: ProviderConnection,
    address: LoopbackAddress,
    *,
    clock: Clock,
    randomness: Randomness,
) -> PasteLogin:
    redirect_uri = f"http://{address.authority(address.port or PASTE_PORT)}{address.path}"
    grant = _code_grant(request, connection, connection.metadata(), redirect_uri=redirect_uri, randomness=randomness)
    timeout_seconds = _timeout_of(request, PASTE_TIMEOUT_SECONDS)
    return PasteLogin(_prompt(Flow.PASTE, timeout_seconds, clock=clock, start_url=grant.request.url), grant)


def _start_device(
    request: LoginRequest, connection: ProviderConnection, *, clock: Clock, stopped: StopSignal | None
) -> DeviceLogin:
    authorization = connection.start_device(scope=request.scope, audience=request.audience, resource=request.resource)
    life_seconds = (authorization.expires_at - clock.now()).total_seconds()
    timeout_seconds = min(life_seconds, _timeout_of(request, LONGEST_DEVICE_SECONDS))
    prompt = LoginPrompt(
        flow=Flow.DEVICE,
        timeout_seconds=timeout_seconds,
        expires_at=clock.now() + timedelta(seconds=timeout_seconds),
        user_code=authorization.user_code,
        verification_uri=authorization.verification_uri,
        verification_uri_complete=authorization.verification_uri_complete,
    )
    return DeviceLogin(prompt, authorization, connection, request, clock=clock, stopped=stopped)


def _code_grant(  # noqa: PLR0913 - what a request is made of
    request: LoginRequest,
    connection: ProviderConnection,
    metadata: ProviderMetadata,
    *,
    redirect_uri: str,
    randomness: Randomness,
    state_prefix: str = "",
) -> CodeGrant:
    authorization = build_authorization_request(
        metadata,
        client_id=connection.client_id,
        redirect_uri=redirect_uri,
        scope=request.scope,
        randomness=randomness,
        audience=request.audience,
        resource=request.resource,
        extra_parameters=request.authorize_params,
        state_prefix=state_prefix,
    )
    return CodeGrant(
        request=authorization,
        metadata=metadata,
        connection=connection,
        needs_id_token=request.needs_id_token,
    )


def _timeout_of(request: LoginRequest, usual_seconds: float) -> float:
    return usual_seconds if request.timeout_seconds is None else request.timeout_seconds


def _prompt(flow: Flow, timeout_seconds: float, *, clock: Clock, start_url: str) -> LoginPrompt:
    expires_at = clock.now() + timedelta(seconds=timeout_seconds)
    return LoginPrompt(flow=flow, timeout_seconds=timeout_seconds, expires_at=expires_at, start_url=start_url)
