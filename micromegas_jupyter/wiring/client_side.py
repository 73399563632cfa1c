"""Joins settings, credentials and client: where notebook, terminal and Python callers start.

Modules are loaded where they are used: a terminal command that finds a fresh token needs few of them.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from micromegas_jupyter.auth.flows.environment import is_below_hub
from micromegas_jupyter.config.client import ClientSettings
from micromegas_jupyter.config.client_config import WRAPPER_VARIABLE
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.core.system import Variables, process_variables
from micromegas_jupyter.errors import ConfigurationError, LoginRequired
from micromegas_jupyter.wiring.environment import load_client_settings, sign_in_configured

if TYPE_CHECKING:
    from micromegas_jupyter.auth import AuthProvider, OidcAuthProvider
    from micromegas_jupyter.auth.flows.environment import Facts
    from micromegas_jupyter.client.flight_client import FlightSQLClient
    from micromegas_jupyter.oidc.client_auth import ClientProof


def is_wrapped(environ: Mapping[str, str] | None = None) -> bool:
    """Whether a module that `MICROMEGAS_PYTHON_MODULE_WRAPPER` names makes the client, whatever else is set."""
    return bool((os.environ if environ is None else environ).get(WRAPPER_VARIABLE))


def without_wrapper(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment without the wrapper module, for callers who said what they want to connect to."""
    return Variables({name: value for name, value in process_variables(environ).items() if name != WRAPPER_VARIABLE})


def stored_provider(
    settings: ClientSettings, environ: Mapping[str, str] | None = None, *, facts: "Facts | None" = None
) -> "AuthProvider | None":
    """Return the provider that these settings give without a person.

    In this order: an API key file; a service account file or a workload identity; JupyterHub, where it signs people in
    and no other flow was chosen; the stored sign-in of exactly these settings, unless they ask for a service account; a
    service account with a secret or a private key. There is none where a wrapper module makes the client, which signs
    in by itself, or where the settings ask for no sign-in. `facts` says where the program runs, for the remedy.

    Raises:
        LoginRequired: A sign-in is configured and nobody is signed in.
        TokenStoreError: The token file cannot be used safely.
        ConfigurationError: The settings contradict each other or a key file cannot be read.
    """
    if is_wrapped(environ):
        return None
    if settings.api_key_file is not None:
        from micromegas_jupyter.auth.static import StaticTokenAuthProvider

        return StaticTokenAuthProvider.from_file(Path(settings.api_key_file).expanduser())
    if settings.service_account_file is not None or settings.workload is not None:
        return _service_provider(settings, environ)
    if settings.as_service_account:
        return service_account_provider(settings, environ)
    by_hub = _hub_provider(settings, environ)
    if by_hub is not None or not sign_in_configured(settings):
        return by_hub
    stored = _stored_sign_in(settings, environ) or _service_provider(settings, environ)
    if stored is None:
        raise _login_required(settings, environ, facts)
    return stored


def service_account_provider(settings: ClientSettings, environ: Mapping[str, str] | None = None) -> "AuthProvider":
    """Return the provider of a service account, whoever else may be signed in.

    Raises:
        ConfigurationError: Issuer, client id or what proves the account is missing.
    """
    provider = None
    if sign_in_configured(settings):
        provider = _service_provider(replace(settings, secret_is_native=False), environ)
    if provider is None:
        raise ConfigurationError(
            "A service account needs issuer, client id and client secret.", key="MICROMEGAS_OIDC_CLIENT_SECRET"
        )
    return provider


def open_client(
    settings: ClientSettings,
    auth_provider: "AuthProvider | None",
    *,
    environ: Mapping[str, str] | None = None,
) -> "FlightSQLClient":
    """Return a client of the server that the settings name; connects at its first call.

    A module that `MICROMEGAS_PYTHON_MODULE_WRAPPER` names makes the client instead, whatever else is set.

    Raises:
        ConfigurationError: The wrapper module or the file of authorities cannot be used.
    """
    wrapped = _wrapped_client(environ)
    return _build_client(settings, auth_provider) if wrapped is None else wrapped


def connect(
    uri: str | None = None,
    *,
    profile: str | None = None,
    auth_provider: "AuthProvider | None" = None,
    preserve_dictionary: bool = False,
    environ: Mapping[str, str] | None = None,
) -> "FlightSQLClient":
    """Return a client; without arguments it follows the environment and `~/.micromegas/config.json`.

    Args:
        uri: The server; wins over every setting.
        profile: A profile of `config.json`.
        auth_provider: Gives the bearer token of each call; wins over the configured sign-in.
        preserve_dictionary: Keep dictionary-encoded columns as they are.
        environ: Stands in for the process environment.

    Returns:
        The client of the wrapper module, when `MICROMEGAS_PYTHON_MODULE_WRAPPER` names one and no argument says what
        to connect to: it wins over every setting.

    Raises:
        ConfigurationError: A setting is malformed.
        LoginRequired: A sign-in is configured and nobody is signed in.
    """
    if uri is None and profile is None and auth_provider is None:
        wrapped = _wrapped_client(environ)
        if wrapped is not None:
            return wrapped
    environ = without_wrapper(environ)
    settings = load_client_settings(profile=profile, environ=environ)
    if uri is not None:
        settings = replace(settings, uri=uri, origins=(*settings.origins, ("uri", "argument")))
    provider = stored_provider(settings, environ) if auth_provider is None else auth_provider
    return _build_client(settings, provider, preserve_dictionary=preserve_dictionary)


def _build_client(
    settings: ClientSettings, auth_provider: "AuthProvider | None", *, preserve_dictionary: bool = False
) -> "FlightSQLClient":
    from micromegas_jupyter.client.flight_client import FlightSQLClient

    certificate_file, key_file = client_certificate_files(settings)
    ca_bundle = None
    if settings.ca_bundle is not None:
        from micromegas_jupyter.wiring.environment import checked_ca_bundle

        ca_bundle = checked_ca_bundle(settings)
    return FlightSQLClient(
        settings.uri,
        auth_provider=auth_provider,
        preserve_dictionary=preserve_dictionary,
        extra_ca_bundle=ca_bundle,
        client_certificate_file=certificate_file,
        client_key_file=key_file,
    )


def client_certificate_files(settings: ClientSettings) -> tuple[Path | None, Path | None]:
    """Return the files of the client's certificate and key, None when none are set.

    Raises:
        ConfigurationError: The key's file cannot be read, or others can read it.
    """
    if settings.client_certificate_file is None or settings.client_key_file is None:
        return None, None
    from micromegas_jupyter.wiring.credentials import read_secret_file

    setting = settings.origin_of("client_key_file") or "client_key_file"
    read_secret_file(settings.client_key_file, setting=setting)
    return Path(settings.client_certificate_file), Path(settings.client_key_file)


def _wrapped_client(environ: Mapping[str, str] | None) -> "FlightSQLClient | None":
    from micromegas_jupyter.client.flight_client import wrapped_client

    # It has the face of `FlightSQLClient`, as far as another client can wear it.
    return cast("FlightSQLClient | None", wrapped_client(environ))


def _hub_provider(settings: ClientSettings, environ: Mapping[str, str] | None) -> "AuthProvider | None":
    if not is_below_hub(os.environ if environ is None else environ):
        return None
    from micromegas_jupyter.wiring.sign_in import hub_provider, uses_hub

    if not uses_hub(settings, environ):
        return None
    if settings.issuer is None or settings.client_id is None:
        return hub_provider(settings, environ)
    return hub_provider(settings, environ, stored=lambda: _stored_sign_in(settings, environ))


def _stored_sign_in(settings: ClientSettings, environ: Mapping[str, str] | None) -> "OidcAuthProvider | None":
    from micromegas_jupyter.wiring.token_stores import token_store

    store = token_store(settings, environ)
    if store.mark() is None:
        return None
    from micromegas_jupyter.auth import OidcAuthProvider
    from micromegas_jupyter.wiring.environment import provider_http

    proof: ClientProof = None
    if not (settings.client_secret is None and settings.client_secret_file is None and settings.private_key is None):
        from micromegas_jupyter.wiring.credentials import client_proof

        proof = client_proof(settings)
    return OidcAuthProvider.from_store(
        store,
        proof if isinstance(proof, Secret) else None,
        private_key=None if isinstance(proof, Secret) else proof,
        bearer=settings.bearer,
        http=provider_http(settings),
    )


def _service_provider(settings: ClientSettings, environ: Mapping[str, str] | None) -> "AuthProvider | None":
    from micromegas_jupyter.wiring.credentials import service_provider

    return service_provider(settings, environ)


def _login_required(
    settings: ClientSettings, environ: Mapping[str, str] | None, facts: "Facts | None"
) -> LoginRequired:
    from micromegas_jupyter.auth.flows.environment import gather_facts
    from micromegas_jupyter.auth.flows.select import detect_environment, login_remedy

    environ = process_variables(environ)
    environment = detect_environment(environ, gather_facts(environ=environ) if facts is None else facts)
    return LoginRequired(
        f"You are not signed in at {settings.issuer}.", remedy=login_remedy(environment, profile=settings.profile)
    )
