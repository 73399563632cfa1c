"""What the settings give to prove an application or a program with: secrets, keys, and the providers made of them.

Who signs in when a person is involved is `sign_in`'s; which provider wins is `client_side`'s.
"""

from collections.abc import Mapping
from pathlib import PurePath

from micromegas_jupyter.auth.client_credentials import OidcClientCredentialsProvider
from micromegas_jupyter.auth.google_service_account import GoogleServiceAccountProvider, parse_service_account_key
from micromegas_jupyter.config.client import Bearer, ClientSettings, WorkloadExchange
from micromegas_jupyter.core.http.platform_http import PlatformHttp
from micromegas_jupyter.core.protocols import AuthProvider, Secret
from micromegas_jupyter.core.system import SYSTEM_CLOCK, process_variables
from micromegas_jupyter.oidc.client_auth import ClientProof
from micromegas_jupyter.oidc.private_key import PrivateKey, parse_private_key
from micromegas_jupyter.wiring.provider_calls import ca_bundle_file, provider_http
from micromegas_jupyter.wiring.secret_files import read_secret_file, read_secret_line
from micromegas_jupyter.wiring.service_scope import service_scope
from micromegas_jupyter.wiring.workloads import workload_provider

SECRET_FILE_SETTING = "MICROMEGAS_OIDC_CLIENT_SECRET_FILE"  # noqa: S105 - a setting's name, not a secret
PRIVATE_KEY_FILE_SETTING = "MICROMEGAS_OIDC_PRIVATE_KEY_FILE"
SERVICE_ACCOUNT_FILE_SETTING = "MICROMEGAS_OIDC_SERVICE_ACCOUNT_FILE"


def client_proof(settings: ClientSettings) -> ClientProof:
    """Return what the application proves itself with; None for a public client.

    Raises:
        ConfigurationError: The file that is named cannot be used, or others can read it.
    """
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

    In this order: a Google service account's key file; what the platform says; a private key or a client secret,
    unless the secret belongs to an application that people sign in with.

    Args:
        settings: What is configured.
        environ: Stands in for the process environment.

    Returns:
        None when a person has to sign in, or nobody.

    Raises:
        ConfigurationError: A file cannot be used, a setting is missing, or the program does not run on its platform.
    """
    if settings.service_account_file is not None:
        return _google_service_account(settings, settings.service_account_file)
    if settings.workload is not None:
        return workload_provider(
            settings,
            settings.workload,
            process_variables(environ),
            # With any other exchange nothing is proved by a secret of the application's own.
            proof=client_proof(settings) if settings.workload.exchange is WorkloadExchange.TOKEN_EXCHANGE else None,
            http=provider_http(settings),
            platform_http=PlatformHttp(extra_ca_bundle=ca_bundle_file(settings)),
            clock=SYSTEM_CLOCK,
        )
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


def _google_service_account(settings: ClientSettings, path: PurePath) -> GoogleServiceAccountProvider:
    name = settings.origin_of("service_account_file") or SERVICE_ACCOUNT_FILE_SETTING
    key = parse_service_account_key(read_secret_file(path, setting=name), source_name=name)
    wants_id_token = settings.bearer is Bearer.ID_TOKEN
    return GoogleServiceAccountProvider(
        key,
        # The server takes a person's ID token for the application, so it takes a program's for the same.
        audience=settings.audience or settings.client_id if wants_id_token else None,
        scope=None if wants_id_token else service_scope(settings),
        http=provider_http(settings),
    )
