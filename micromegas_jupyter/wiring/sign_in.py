"""Signs a person in with what the settings say: chooses the flow, starts it, falls back, and stores the result."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import assert_never

from micromegas_jupyter.auth import OidcAuthProvider, PendingLogin
from micromegas_jupyter.auth.client_credentials import OidcClientCredentialsProvider
from micromegas_jupyter.auth.flows import select
from micromegas_jupyter.auth.flows.environment import Facts, gather_facts, is_below_hub
from micromegas_jupyter.auth.flows.hub import HUB, HubService, HubTokenProvider, find_hub
from micromegas_jupyter.auth.flows.jupyter import RedirectLogins
from micromegas_jupyter.auth.flows.pending import LINGER_SECONDS
from micromegas_jupyter.auth.flows.select import ARGUMENT, REMEMBERED, TABLE, FlowChoice, RuntimeEnvironment
from micromegas_jupyter.auth.provider import CompletedLogin
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.workloads import platforms
from micromegas_jupyter.auth.workloads.google_service_account import (
    GoogleServiceAccountProvider,
    parse_service_account_key,
)
from micromegas_jupyter.auth.workloads.provider import TokenExchange, WorkloadProvider, token_exchange
from micromegas_jupyter.config.client import (
    Bearer,
    ClientSettings,
    Flow,
    WorkloadExchange,
    WorkloadPlatform,
    WorkloadSetting,
)
from micromegas_jupyter.core.files import FileProblem, find_exposure, is_mounted_read_only, read_shared_file
from micromegas_jupyter.core.http import HubHttp, PlatformHttp
from micromegas_jupyter.core.protocols import AuthProvider
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.core.system import SYSTEM_BROWSER, SYSTEM_CLOCK, Browser, process_variables
from micromegas_jupyter.errors import (
    ConfigurationError,
    LoginFailed,
    LoginRequired,
    MicromegasError,
    ProviderMisbehaved,
    UsageError,
)
from micromegas_jupyter.oidc.client_auth import ClientProof
from micromegas_jupyter.oidc.private_key import PrivateKey, parse_private_key
from micromegas_jupyter.wiring.client_side import (
    ca_bundle_file,
    provider_http,
    provider_of,
    remembered_flow,
    service_scope,
    sign_in_configured,
    token_store,
)

MAX_PASTE_TRIES = 4

_FALLBACK_LINES = {
    Flow.REDIRECT: "Continuing with a page of the Hub that you open in your browser.",
    Flow.DEVICE: "Continuing with a code that you type on any device.",
    Flow.PASTE: "Continuing with an address that you open yourself.",
    Flow.BROWSER: "Continuing with your browser.",
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
    """Choose how a person signs in: by argument, variable, profile, an earlier sign-in, or the runtime environment.

    `wanted` is what an argument named, and `is_automatic` says that it asked to leave it to the environment. What is
    None is found out: where the program runs (`facts`), which flows are `available`, and, by asking the provider where
    it matters, whether it has a device endpoint (`can_device`).
    """
    environ = process_variables(environ)
    facts = gather_facts(environ=environ) if facts is None else facts
    environment = select.detect_environment(environ, facts)
    offered = select.available_flows(environ, facts) if available is None else available
    origin = ARGUMENT if wanted is not None else None
    if wanted is None and not is_automatic:
        wanted, origin = _lasting_choice(settings, environ)

    def choose(can_device: bool | None) -> FlowChoice:  # noqa: FBT001 - the one thing that changes
        return select.choose_flow(environment, wanted=wanted, origin=origin, can_device=can_device, available=offered)

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
        remedy = f"{remedy} If somebody is here after all, name a flow with --flow."
    raise LoginRequired(f"Nobody can sign in at {settings.issuer} from here. {choice.reason}", remedy=remedy)


def begin_login(
    settings: ClientSettings,
    *,
    flow: Flow = Flow.BROWSER,
    environ: Mapping[str, str] | None = None,
    store: bool = True,
    redirects: RedirectLogins | None = None,
) -> PendingLogin | CompletedLogin[HubTokenProvider]:
    """Start a sign-in that continues by itself; returns at once with what the person needs.

    `store` says whether the sign-in is stored for other programs of this person. The redirect flow needs `redirects`,
    where a Jupyter server's requests come in, unless this is a Hub.

    Raises:
        ConfigurationError: No provider is configured.
        ProviderUnavailable: The provider does not answer.
        ProviderMisbehaved: The provider's answer breaks the protocol, or it does not offer this flow.
        LoginRequired: JupyterHub was to sign the person in, and does not.
    """
    if flow is Flow.HUB:
        provider = hub_provider(settings, environ)
        provider.get_token()
        return CompletedLogin(provider, flow=Flow.HUB, at=SYSTEM_CLOCK.now())
    hub = None
    if flow is Flow.REDIRECT and is_below_hub(process_variables(environ)):
        hub = hub_service(settings, environ)
        if settings.issuer is None and settings.client_id is None:
            # Only the Hub knows of a provider, so another program would not find what was kept.
            offered, store = hub.redirect(), False
            settings = replace(settings, issuer=offered.issuer, client_id=offered.client_id)
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
        store=token_store(settings, environ) if store else None,
        bearer=settings.bearer,
        resource=settings.resource,
        private_key=proof if isinstance(proof, PrivateKey) else None,
        http=provider_http(settings),
        redirects=redirects,
        hub=hub,
    )


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
    """Sign a person in and wait for it; raises as `begin_login` and `PendingLogin.result`.

    Args:
        settings: Which provider, and as which application.
        flow: The flow.
        fallbacks: The flows to try next, in order, when one cannot be started or no browser opens.
        browser: Opens the page.
        announce: Called with sentences about what the person is to do, and what changes meanwhile.
        show: Shows a sign-in that was started, in place of a sentence for `announce`.
        store: Whether the sign-in is kept for other programs of this person.
        environ: Stands in for the process environment.
        prompt: Asks the person for the pasted address; without it nobody can paste.
    """
    left = [found for found in (flow, *fallbacks) if found is not Flow.PASTE or prompt is not None]
    while left:
        current, *left = left
        try:
            pending = begin_login(settings, flow=current, environ=environ, store=store)
        except MicromegasError as error:
            if not left or not select.is_worth_another_flow(error):
                raise
            announce(f"{error.what} {_FALLBACK_LINES[left[0]]}")
            continue
        if isinstance(pending, CompletedLogin):
            return pending.result()
        try:
            if show is None:
                announce(sentence_of(pending))
            else:
                show(pending)
            if current is Flow.BROWSER and not browser.open(pending.start_url or "") and left:
                announce(f"No browser opened here. {_FALLBACK_LINES[left[0]]}")
                continue
            if current is Flow.PASTE and prompt is not None:
                _take_pasted(pending, prompt=prompt, announce=announce)
            return pending.result()
        finally:
            pending.cancel()
            pending.wait_closed(LINGER_SECONDS + 1)  # or the program ends before the person has seen the last page
    raise UsageError("There is nobody here to paste an address.", remedy="Choose another way to sign in.")


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


def uses_hub(settings: ClientSettings, environ: Mapping[str, str] | None = None) -> bool:
    """Whether calls with these settings are made with the Hub's token of the person whose server this is.

    They are not where a person chose another flow, or the settings name a service account. And without a setting for
    the server or the provider, no token is sent to whoever listens at the default address.
    """
    environ = process_variables(environ)
    has_secret = settings.client_secret is not None or settings.client_secret_file is not None
    names_service_account = settings.private_key is not None or (has_secret and not settings.secret_is_native)
    if not is_below_hub(environ) or names_service_account:
        return False
    if settings.issuer is None and settings.origin_of("uri") is None:
        return False
    return (settings.flow or remembered_flow(settings, environ)) in {None, Flow.HUB}


def hub_service(settings: ClientSettings, environ: Mapping[str, str] | None = None) -> HubService:
    """Return the Hub's sign-in service.

    Raises:
        ConfigurationError: This program's server was not started by a Hub with that service, or its address cannot be
            used.
    """
    try:
        endpoint = find_hub(process_variables(environ))
    except ConfigurationError as error:
        error.giver = HUB
        raise
    if endpoint is None:
        raise ConfigurationError(
            "No JupyterHub with a sign-in service started this program's server.",
            key="KERNEL_MICROMEGAS_HUB",
            remedy="Choose another way to sign in.",
        )
    http = HubHttp(timeout_seconds=settings.provider_timeout_seconds, extra_ca_bundle=ca_bundle_file(settings))
    return HubService(endpoint, http=http)


def hub_provider(
    settings: ClientSettings,
    environ: Mapping[str, str] | None = None,
    *,
    stored: Callable[[], OidcAuthProvider | None] = lambda: None,
) -> HubTokenProvider:
    """Return the provider of the Hub's tokens; makes no call yet. `stored` is used when the Hub refuses."""
    return HubTokenProvider(hub_service(settings, environ), issuer=settings.issuer, stored=stored)


def _lasting_choice(settings: ClientSettings, environ: Mapping[str, str]) -> tuple[Flow | None, str | None]:
    origin = settings.origin_of("flow")
    if settings.flow is not None or origin is not None:  # a setting that says auto has no flow
        return settings.flow, origin or "flow"
    remembered = remembered_flow(settings, environ)
    return remembered, None if remembered is None else REMEMBERED


def _offers_device(settings: ClientSettings) -> bool:
    issuer, client_id = provider_of(settings)
    connection = ProviderConnection(issuer, client_id, None, http=provider_http(settings), clock=SYSTEM_CLOCK)
    return connection.metadata().device_authorization_endpoint is not None


def _take_pasted(pending: PendingLogin, *, prompt: Callable[[str], str], announce: Callable[[str], None]) -> None:
    """Ask until an address fits; what went wrong in the end is the sign-in's own result."""
    for _ in range(MAX_PASTE_TRIES):
        pasted = Secret(prompt("Paste the address here (it is not shown): "))
        if pending.done:
            return
        try:
            pending.submit(pasted)
        except (UsageError, ProviderMisbehaved) as error:
            announce(str(error))
        else:
            return
    raise LoginFailed("None of the pasted addresses belongs to this sign-in.")


MAX_SECRET_FILE_BYTES = 64 * 1024

SECRET_FILE_SETTING = "MICROMEGAS_OIDC_CLIENT_SECRET_FILE"  # noqa: S105 - a setting's name, not a secret
PRIVATE_KEY_FILE_SETTING = "MICROMEGAS_OIDC_PRIVATE_KEY_FILE"
SERVICE_ACCOUNT_FILE_SETTING = "MICROMEGAS_OIDC_SERVICE_ACCOUNT_FILE"
AUDIENCE_SETTING = "MICROMEGAS_OIDC_WORKLOAD_AUDIENCE"
EXCHANGE_SETTING = "MICROMEGAS_OIDC_WORKLOAD_EXCHANGE"
TOKEN_FILE_SETTING = "MICROMEGAS_OIDC_WORKLOAD_TOKEN_FILE"  # noqa: S105 - a setting's name, not a token
# What Azure's own Kubernetes sets in a pod with a federated identity.
AZURE_TOKEN_FILE_VARIABLE = "AZURE_FEDERATED_TOKEN_FILE"  # noqa: S105 - a variable's name, not a token
AZURE_CLIENT_ID_VARIABLE = "AZURE_CLIENT_ID"
# What Entra ID requires of the tokens of other issuers: Microsoft Learn, "Workload identity federation".
ENTRA_ASSERTION_AUDIENCE = "api://AzureADTokenExchange"


def client_proof(settings: ClientSettings) -> ClientProof:
    """Return what the application authenticates with; None for a public client."""
    if settings.client_secret is not None:
        return settings.client_secret
    if settings.client_secret_file is not None:
        name = settings.origin_of("client_secret_file") or SECRET_FILE_SETTING
        return read_secret_line(settings.client_secret_file, setting=name)
    if settings.private_key is not None:
        name = settings.origin_of("private_key") or PRIVATE_KEY_FILE_SETTING
        return parse_private_key(
            read_secret_file(settings.private_key.file, setting=name),
            key_id=settings.private_key.key_id,
            algorithm=settings.private_key.algorithm,
            source_name=name,
            audience=settings.private_key.audience,
        )
    return None


def service_provider(settings: ClientSettings, environ: Mapping[str, str] | None = None) -> AuthProvider | None:
    """Return the provider of a program that signs in by itself.

    In this order: a Google service account's key file; the platform's token; a private key or a client secret, unless
    the secret belongs to an application that people sign in with.

    Args:
        settings: What is configured.
        environ: Stands in for the process environment.

    Returns:
        None when a person has to sign in, or nobody.
    """
    if settings.service_account_file is not None:
        return _google_service_account(settings, settings.service_account_file)
    if settings.workload is not None:
        return workload_provider(settings, settings.workload, process_variables(environ))
    if settings.issuer is None or settings.client_id is None:
        return None
    if settings.secret_is_native and settings.private_key is None:
        return None
    proof = client_proof(settings)
    if proof is None:
        return None
    return OidcClientCredentialsProvider(
        settings.issuer,
        settings.client_id,
        proof if isinstance(proof, Secret) else None,
        audience=settings.audience,
        scope=service_scope(settings),
        private_key=proof if isinstance(proof, PrivateKey) else None,
        resource=settings.resource,
        http=provider_http(settings),
    )


def read_secret_file(path: PurePath, *, setting: str) -> Secret:
    """Return a file's text, unless other people of the machine can read or change it.

    Unlike the token file, such a file often comes from an administrator or an orchestrator: it may be a symbolic link,
    may belong to root, and is never changed here.

    Args:
        path: The file; `~` stands for the home folder.
        setting: The setting that names it, for errors.
    """
    path = Path(path).expanduser()
    try:
        text, found = _read(path)
    except FileProblem as problem:
        raise ConfigurationError(
            f"The file that {setting} names {problem.args[0]}.", key=setting, remedy="Correct the path or the file."
        ) from None
    exposure = find_exposure(found, is_mounted_read_only=is_mounted_read_only(path))
    if exposure is not None:
        raise ConfigurationError(
            f"The file that {setting} names {exposure}.",
            key=setting,
            remedy="Make yourself its owner and close it to others: chmod 600. Others may have read it by now, so make "
            "a new secret.",
        )
    if text is None:
        raise ConfigurationError(
            f"The file that {setting} names is not UTF-8 text.", key=setting, remedy="Write it again as plain text."
        )
    return text


def read_secret_line(path: PurePath, *, setting: str) -> Secret:
    """Return the one line that the file holds, without white space around it; raises as `read_secret_file` does."""
    line = Secret(read_secret_file(path, setting=setting).reveal().strip())
    if not line.reveal() or not line.reveal().isprintable():
        raise ConfigurationError(
            f"The file that {setting} names does not hold one line of text.",
            key=setting,
            remedy="Write the secret alone into it.",
        )
    return line


def _read(path: Path) -> tuple[Secret | None, os.stat_result]:
    # A function of its own, so that the frame that raises has no plain text for a verbose traceback to show.
    content, found = read_shared_file(path, max_bytes=MAX_SECRET_FILE_BYTES)
    try:
        return Secret(content.decode("utf-8")), found
    except UnicodeDecodeError:
        return None, found


def _google_service_account(settings: ClientSettings, path: PurePath) -> GoogleServiceAccountProvider:
    name = settings.origin_of("service_account_file") or SERVICE_ACCOUNT_FILE_SETTING
    key = parse_service_account_key(read_secret_file(path, setting=name), source_name=name)
    wants_id_token = settings.bearer is Bearer.ID_TOKEN
    return GoogleServiceAccountProvider(
        key,
        # The server accepts a person's ID token for the application, so it accepts a program's for the same.
        audience=settings.audience or settings.client_id if wants_id_token else None,
        scope=None if wants_id_token else service_scope(settings),
        http=provider_http(settings),
    )


def workload_provider(
    settings: ClientSettings,
    workload: WorkloadSetting,
    environ: Mapping[str, str],
    *,
    http: PlatformHttp | None = None,
) -> WorkloadProvider:
    """Return the provider of a program that its platform vouches for."""
    http = http or PlatformHttp(extra_ca_bundle=ca_bundle_file(settings))
    source = _workload_source(settings, workload, environ, http)
    return WorkloadProvider(source, exchange=_workload_exchange(settings, workload, environ))


def _workload_source(
    settings: ClientSettings, workload: WorkloadSetting, environ: Mapping[str, str], http: PlatformHttp
) -> platforms.WorkloadSource:
    match workload.platform:
        case WorkloadPlatform.GITHUB_ACTIONS:
            audience = _workload_audience(settings, workload)
            return platforms.GithubActionsSource(environ, audience=audience, http=http, clock=SYSTEM_CLOCK)
        case WorkloadPlatform.GOOGLE:
            audience = _workload_audience(settings, workload)
            return platforms.GoogleMetadataSource(environ, audience=audience, http=http, clock=SYSTEM_CLOCK)
        case WorkloadPlatform.KUBERNETES:
            if workload.token_file is None:
                raise ConfigurationError(
                    f"{TOKEN_FILE_SETTING} is not set, and Kubernetes has no standard path for a token.",
                    key=TOKEN_FILE_SETTING,
                    remedy="Set it to the file of the pod's projected serviceAccountToken volume.",
                )
            return _token_file(Path(workload.token_file).expanduser(), workload, setting=TOKEN_FILE_SETTING)
        case WorkloadPlatform.AZURE:
            return _azure_source(settings, workload, environ, http)
        case _:
            assert_never(workload.platform)


def _azure_source(
    settings: ClientSettings, workload: WorkloadSetting, environ: Mapping[str, str], http: PlatformHttp
) -> platforms.WorkloadSource:
    federated = environ.get(AZURE_TOKEN_FILE_VARIABLE)
    if not federated or environ.get(platforms.AZURE_APP_ENDPOINT_VARIABLE):
        return platforms.AzureManagedIdentitySource(
            environ,
            resource=_workload_audience(settings, workload),
            client_id=workload.managed_identity_client_id,
            http=http,
            clock=SYSTEM_CLOCK,
        )
    if workload.exchange is WorkloadExchange.NONE:
        # The machine would answer as itself, not as the pod.
        raise ConfigurationError(
            f"This pod has a federated identity ({AZURE_TOKEN_FILE_VARIABLE}), whose token has to be exchanged.",
            key=EXCHANGE_SETTING,
            remedy=f"Set {EXCHANGE_SETTING}=client-assertion.",
        )
    return _token_file(Path(federated), workload, setting=AZURE_TOKEN_FILE_VARIABLE)


def _token_file(path: Path, workload: WorkloadSetting, *, setting: str) -> platforms.TokenFileSource:
    # The audience was requested where the volume is described, so it is only compared here.
    return platforms.TokenFileSource(
        path, audience=workload.audience, setting=setting, name=workload.platform, clock=SYSTEM_CLOCK
    )


def _workload_audience(settings: ClientSettings, workload: WorkloadSetting) -> str:
    """Return what the platform's token is requested for."""
    match workload.exchange:
        case WorkloadExchange.NONE:
            default = settings.resource if workload.platform is WorkloadPlatform.AZURE else None
            default = default or settings.audience or settings.client_id
        case WorkloadExchange.TOKEN_EXCHANGE:
            default = settings.issuer
        case WorkloadExchange.CLIENT_ASSERTION:
            default = ENTRA_ASSERTION_AUDIENCE if settings.preset == "entra" else settings.issuer
        case _:
            assert_never(workload.exchange)
    audience = workload.audience or default
    if not audience:
        raise ConfigurationError(
            f"{AUDIENCE_SETTING} is not set, so the platform cannot be told what its token is for.",
            key=AUDIENCE_SETTING,
            remedy=f"Set {AUDIENCE_SETTING} to the audience that the server or the provider accepts.",
        )
    return audience


def _workload_exchange(
    settings: ClientSettings, workload: WorkloadSetting, environ: Mapping[str, str]
) -> TokenExchange | None:
    if workload.exchange is WorkloadExchange.NONE:
        return None
    client_id = settings.client_id
    if workload.platform is WorkloadPlatform.AZURE:
        client_id = client_id or environ.get(AZURE_CLIENT_ID_VARIABLE)
    if settings.issuer is None or not client_id:
        missing = "MICROMEGAS_OIDC_ISSUER" if settings.issuer is None else "MICROMEGAS_OIDC_CLIENT_ID"
        raise ConfigurationError(
            f"{missing} is not set, so there is no provider to exchange the platform's token at.",
            key=missing,
            remedy="Set both MICROMEGAS_OIDC_ISSUER and MICROMEGAS_OIDC_CLIENT_ID.",
        )
    is_assertion = workload.exchange is WorkloadExchange.CLIENT_ASSERTION
    proof = None if is_assertion else client_proof(settings)  # an assertion is the proof itself
    connection = ProviderConnection(settings.issuer, client_id, proof, http=provider_http(settings), clock=SYSTEM_CLOCK)
    return token_exchange(
        connection,
        is_assertion=is_assertion,
        scope=service_scope(settings),
        audience=settings.audience,
        resource=settings.resource,
    )
