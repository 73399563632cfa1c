"""Builds the provider of a program that its platform vouches for.

How platforms and provider are asked is `auth`'s job.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import assert_never

from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.workload_azure import APP_ENDPOINT_VARIABLE, AzureManagedIdentitySource
from micromegas_jupyter.auth.workload_file import TokenFileSource
from micromegas_jupyter.auth.workload_github import GithubActionsSource
from micromegas_jupyter.auth.workload_google import GoogleMetadataSource
from micromegas_jupyter.auth.workload_provider import (
    TokenTrade,
    WorkloadProvider,
    client_assertion_trade,
    token_exchange_trade,
)
from micromegas_jupyter.auth.workload_source import WorkloadSource
from micromegas_jupyter.config.client import ClientSettings, WorkloadExchange, WorkloadPlatform, WorkloadSetting
from micromegas_jupyter.core.http import ProviderCalls
from micromegas_jupyter.core.http.platform_http import PlatformHttp
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.oidc.client_auth import ClientProof
from micromegas_jupyter.wiring.service_scope import service_scope

AUDIENCE_SETTING = "MICROMEGAS_OIDC_WORKLOAD_AUDIENCE"
EXCHANGE_SETTING = "MICROMEGAS_OIDC_WORKLOAD_EXCHANGE"
TOKEN_FILE_SETTING = "MICROMEGAS_OIDC_WORKLOAD_TOKEN_FILE"  # noqa: S105 - a setting's name, not a token
# What Azure's own Kubernetes tells a pod with a federated identity.
AZURE_TOKEN_FILE_VARIABLE = "AZURE_FEDERATED_TOKEN_FILE"  # noqa: S105 - a variable's name, not a token
AZURE_CLIENT_ID_VARIABLE = "AZURE_CLIENT_ID"
# What Entra ID asks of the tokens of other issuers: Microsoft Learn, "Workload identity federation".
ENTRA_ASSERTION_AUDIENCE = "api://AzureADTokenExchange"


def workload_provider(  # noqa: PLR0913 - what the two sides are called with
    settings: ClientSettings,
    workload: WorkloadSetting,
    environ: Mapping[str, str],
    *,
    proof: ClientProof,
    http: ProviderCalls,
    platform_http: PlatformHttp,
    clock: Clock,
) -> WorkloadProvider:
    """Return the provider that asks the platform and trades its token.

    Raises:
        ConfigurationError: The program does not run on that platform, or a setting that is needed is missing.
    """
    source = _source(settings, workload, environ, http=platform_http, clock=clock)
    trade = _trade(settings, workload, environ, proof=proof, http=http, clock=clock)
    return WorkloadProvider(source, trade=trade, clock=clock)


def _source(
    settings: ClientSettings,
    workload: WorkloadSetting,
    environ: Mapping[str, str],
    *,
    http: PlatformHttp,
    clock: Clock,
) -> WorkloadSource:
    match workload.platform:
        case WorkloadPlatform.GITHUB_ACTIONS:
            return GithubActionsSource(environ, audience=_audience(settings, workload), http=http, clock=clock)
        case WorkloadPlatform.GOOGLE:
            return GoogleMetadataSource(environ, audience=_audience(settings, workload), http=http, clock=clock)
        case WorkloadPlatform.KUBERNETES:
            if workload.token_file is None:
                raise ConfigurationError(
                    f"{TOKEN_FILE_SETTING} is not set, and Kubernetes has no usual place for a token.",
                    key=TOKEN_FILE_SETTING,
                    remedy="Set it to the file of the pod's projected serviceAccountToken volume.",
                )
            path = Path(workload.token_file).expanduser()
            return _token_file(path, workload, setting=TOKEN_FILE_SETTING, clock=clock)
        case WorkloadPlatform.AZURE:
            return _azure_source(settings, workload, environ, http=http, clock=clock)
        case _:
            assert_never(workload.platform)


def _azure_source(
    settings: ClientSettings,
    workload: WorkloadSetting,
    environ: Mapping[str, str],
    *,
    http: PlatformHttp,
    clock: Clock,
) -> WorkloadSource:
    federated = environ.get(AZURE_TOKEN_FILE_VARIABLE)
    if not federated or environ.get(APP_ENDPOINT_VARIABLE):
        return AzureManagedIdentitySource(
            environ,
            resource=_audience(settings, workload),
            client_id=workload.managed_identity_client_id,
            http=http,
            clock=clock,
        )
    if workload.exchange is WorkloadExchange.NONE:
        # The machine would answer as itself, not as the pod.
        raise ConfigurationError(
            f"This pod has a federated identity ({AZURE_TOKEN_FILE_VARIABLE}), whose token has to be exchanged.",
            key=EXCHANGE_SETTING,
            remedy=f"Set {EXCHANGE_SETTING}=client-assertion.",
        )
    return _token_file(Path(federated), workload, setting=AZURE_TOKEN_FILE_VARIABLE, clock=clock)


def _token_file(path: Path, workload: WorkloadSetting, *, setting: str, clock: Clock) -> TokenFileSource:
    # The audience was asked for where the volume is described, so it is only held against what is expected.
    return TokenFileSource(path, audience=workload.audience, setting=setting, name=workload.platform, clock=clock)


def _audience(settings: ClientSettings, workload: WorkloadSetting) -> str:
    """Return what the platform's token is asked for."""
    match workload.exchange:
        case WorkloadExchange.NONE:
            usual = settings.resource if workload.platform is WorkloadPlatform.AZURE else None
            usual = usual or settings.audience or settings.client_id
        case WorkloadExchange.TOKEN_EXCHANGE:
            usual = settings.issuer
        case WorkloadExchange.CLIENT_ASSERTION:
            usual = ENTRA_ASSERTION_AUDIENCE if settings.preset == "entra" else settings.issuer
        case _:
            assert_never(workload.exchange)
    audience = workload.audience or usual
    if not audience:
        raise ConfigurationError(
            f"{AUDIENCE_SETTING} is not set, so the platform cannot be told whom its token is for.",
            key=AUDIENCE_SETTING,
            remedy=f"Set {AUDIENCE_SETTING} to the audience that the server or the provider accepts.",
        )
    return audience


def _trade(  # noqa: PLR0913 - what the provider is called with
    settings: ClientSettings,
    workload: WorkloadSetting,
    environ: Mapping[str, str],
    *,
    proof: ClientProof,
    http: ProviderCalls,
    clock: Clock,
) -> TokenTrade | None:
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
    # With an assertion the platform's token is the proof.
    connection = ProviderConnection(settings.issuer, client_id, None if is_assertion else proof, http=http, clock=clock)
    make = client_assertion_trade if is_assertion else token_exchange_trade
    return make(
        connection,
        scope=service_scope(settings),
        audience=settings.audience,
        resource=settings.resource,
        clock=clock,
    )
