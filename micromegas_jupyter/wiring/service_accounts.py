"""Token providers for programs that sign in without a user, chosen by settings. Not loaded for users."""

from collections.abc import Mapping
from pathlib import Path, PurePath

from micromegas_jupyter.auth.client_credentials import OidcClientCredentialsProvider
from micromegas_jupyter.auth.provider_connection import (
    ProviderConnection,
    ca_bundle_file,
    configured_credential,
    provider_http,
)
from micromegas_jupyter.auth.workloads import (
    AZURE_APP_ENDPOINT_VARIABLE,
    AzureManagedIdentitySource,
    GithubActionsSource,
    GoogleMetadataSource,
    GoogleServiceAccountProvider,
    TokenExchange,
    TokenFileSource,
    WorkloadProvider,
    WorkloadSource,
    parse_service_account_key,
    token_exchange,
)
from micromegas_jupyter.config.client import (
    DEFAULT_SCOPE,
    Bearer,
    ClientSettings,
    WorkloadExchange,
    WorkloadPlatform,
    WorkloadSetting,
)
from micromegas_jupyter.core.files import read_secret_file
from micromegas_jupyter.core.http import PlatformHttp
from micromegas_jupyter.core.protocols import AuthProvider
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Secret, process_variables
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.oidc.private_key import PrivateKey

AUDIENCE_SETTING = "MICROMEGAS_OIDC_WORKLOAD_AUDIENCE"
EXCHANGE_SETTING = "MICROMEGAS_OIDC_WORKLOAD_EXCHANGE"
TOKEN_FILE_SETTING = "MICROMEGAS_OIDC_WORKLOAD_TOKEN_FILE"  # noqa: S105 - a setting's name, not a token
# Set by Azure Kubernetes Service in a pod with a federated identity.
AZURE_TOKEN_FILE_VARIABLE = "AZURE_FEDERATED_TOKEN_FILE"  # noqa: S105 - a variable's name, not a token
AZURE_CLIENT_ID_VARIABLE = "AZURE_CLIENT_ID"
# The audience that Entra ID requires in other issuers' tokens: Microsoft Learn, "Workload identity federation".
ENTRA_ASSERTION_AUDIENCE = "api://AzureADTokenExchange"


def service_provider(settings: ClientSettings, environ: Mapping[str, str] | None = None) -> AuthProvider | None:
    """Return the provider for a program that signs in without a user.

    In this order: a Google service account's key file; the platform's token; a private key or a client secret, unless
    the secret belongs to an application that users sign in with. None if a user has to sign in, or sign-in isn't used.
    """
    if settings.service_account_file is not None:
        return _google_service_account(settings, settings.service_account_file)
    if settings.workload is not None:
        return workload_provider(settings, settings.workload, process_variables(environ))
    if settings.issuer is None or settings.client_id is None:
        return None
    if settings.secret_is_native and settings.private_key is None:
        return None
    credential = configured_credential(settings)
    if credential is None:
        return None
    return OidcClientCredentialsProvider(
        settings.issuer,
        settings.client_id,
        credential if isinstance(credential, Secret) else None,
        audience=settings.audience,
        scope=service_scope(settings),
        private_key=credential if isinstance(credential, PrivateKey) else None,
        resource=settings.resource,
        http=provider_http(settings),
    )


def service_scope(settings: ClientSettings) -> str | None:
    """Return the configured scope for a program; None leaves it to the provider.

    The default, and presets' replacements, request a user's claims, which programs don't have.
    """
    is_chosen = settings.scope != DEFAULT_SCOPE and not (settings.origin_of("scope") or "").startswith("preset ")
    return settings.scope if is_chosen else None


def _google_service_account(settings: ClientSettings, path: PurePath) -> GoogleServiceAccountProvider:
    name = settings.origin_of("service_account_file") or "service_account_file"
    key = parse_service_account_key(read_secret_file(path, setting=name), source_name=name)
    wants_id_token = settings.bearer is Bearer.ID_TOKEN
    return GoogleServiceAccountProvider(
        key,
        # The server accepts users' ID tokens for the application, so it also accepts a program's.
        audience=settings.audience or settings.client_id if wants_id_token else None,
        scope=None if wants_id_token else service_scope(settings),
        http=provider_http(settings),
    )


def workload_provider(
    settings: ClientSettings, workload: WorkloadSetting, environ: Mapping[str, str], *, http: PlatformHttp | None = None
) -> WorkloadProvider:
    """Return the provider for a program whose platform gives it an identity."""
    http = http or PlatformHttp(extra_ca_bundle=ca_bundle_file(settings))
    source = _workload_source(settings, workload, environ, http)
    return WorkloadProvider(source, exchange=_workload_exchange(settings, workload, environ))


def _workload_source(
    settings: ClientSettings, workload: WorkloadSetting, environ: Mapping[str, str], http: PlatformHttp
) -> WorkloadSource:
    platform = workload.platform
    federated = environ.get(AZURE_TOKEN_FILE_VARIABLE)
    is_federated = bool(federated) and not environ.get(AZURE_APP_ENDPOINT_VARIABLE)
    if platform is WorkloadPlatform.KUBERNETES or (platform is WorkloadPlatform.AZURE and is_federated):
        token_file, setting = workload.token_file, TOKEN_FILE_SETTING
        if platform is WorkloadPlatform.AZURE:
            token_file, setting = PurePath(str(federated)), AZURE_TOKEN_FILE_VARIABLE
            if workload.exchange is WorkloadExchange.NONE:
                # The token would identify the machine, not the pod.
                raise ConfigurationError(
                    f"This pod has a federated identity ({setting}), and its token must be exchanged.",
                    key=EXCHANGE_SETTING,
                    remedy=f"Set {EXCHANGE_SETTING}=client-assertion.",
                )
        if token_file is None:
            raise ConfigurationError(
                f"{setting} is not set, and Kubernetes doesn't have a standard token path.",
                key=setting,
                remedy="Set it to the file in the pod's projected serviceAccountToken volume.",
            )
        # The volume's definition already requested the audience, so it is only compared here.
        return TokenFileSource(
            Path(token_file).expanduser(),
            audience=workload.audience,
            setting=setting,
            name=platform,
            clock=SYSTEM_CLOCK,
        )
    audience = _workload_audience(settings, workload)
    if platform is WorkloadPlatform.GITHUB_ACTIONS:
        return GithubActionsSource(environ, audience=audience, http=http, clock=SYSTEM_CLOCK)
    if platform is WorkloadPlatform.GOOGLE:
        return GoogleMetadataSource(environ, audience=audience, http=http, clock=SYSTEM_CLOCK)
    client_id = workload.managed_identity_client_id
    return AzureManagedIdentitySource(environ, resource=audience, client_id=client_id, http=http, clock=SYSTEM_CLOCK)


def _workload_audience(settings: ClientSettings, workload: WorkloadSetting) -> str:
    """Return the audience to request for the platform's token."""
    if workload.exchange is WorkloadExchange.NONE:
        default = settings.resource if workload.platform is WorkloadPlatform.AZURE else None
        default = default or settings.audience or settings.client_id
    elif workload.exchange is WorkloadExchange.CLIENT_ASSERTION and settings.preset == "entra":
        default = ENTRA_ASSERTION_AUDIENCE
    else:
        default = settings.issuer
    audience = workload.audience or default
    if not audience:
        raise ConfigurationError(
            f"{AUDIENCE_SETTING} is not set, so the platform can't issue a token.",
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
            f"{missing} is not set, so there is no provider to exchange the platform's token with.",
            key=missing,
            remedy="Set both MICROMEGAS_OIDC_ISSUER and MICROMEGAS_OIDC_CLIENT_ID.",
        )
    is_assertion = workload.exchange is WorkloadExchange.CLIENT_ASSERTION
    credential = None if is_assertion else configured_credential(settings)  # an assertion is itself the credential
    connection = ProviderConnection(
        settings.issuer, client_id, credential, http=provider_http(settings), clock=SYSTEM_CLOCK
    )
    return token_exchange(
        connection,
        is_assertion=is_assertion,
        scope=service_scope(settings),
        audience=settings.audience,
        resource=settings.resource,
    )
