"""Joins settings, sign-in and client: what notebook, terminal and Python callers start from."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from micromegas_jupyter.assembly.environment import load_client_settings, token_file
from micromegas_jupyter.auth import (
    AuthProvider,
    OidcAuthProvider,
    OidcClientCredentialsProvider,
    PendingLogin,
    StaticTokenAuthProvider,
)
from micromegas_jupyter.client import FlightSQLClient
from micromegas_jupyter.errors import ConfigurationError, LoginRequired
from micromegas_jupyter.seams import SYSTEM_BROWSER, Browser
from micromegas_jupyter.settings import DEFAULT_SCOPE, ClientSettings


def sign_in_configured(settings: ClientSettings) -> bool:
    """Whether the settings name a provider to sign in at.

    Raises:
        ConfigurationError: Only one of issuer and client id is set.
    """
    if (settings.issuer is None) != (settings.client_id is None):
        missing = "MICROMEGAS_OIDC_ISSUER" if settings.issuer is None else "MICROMEGAS_OIDC_CLIENT_ID"
        raise ConfigurationError(
            f"{missing} is not set, but its counterpart is.",
            key=missing,
            remedy="Set both MICROMEGAS_OIDC_ISSUER and MICROMEGAS_OIDC_CLIENT_ID, or neither.",
        )
    return settings.issuer is not None


def stored_provider(settings: ClientSettings, environ: Mapping[str, str] | None = None) -> AuthProvider | None:
    """Return the provider that these settings give without a person: key file, stored sign-in, service account.

    Returns:
        None when the settings ask for no sign-in at all.

    Raises:
        LoginRequired: A sign-in is configured and nobody is signed in.
        TokenStoreError: The token file cannot be used safely.
        ConfigurationError: The settings contradict each other or the key file cannot be read.
    """
    if settings.api_key_file is not None:
        return StaticTokenAuthProvider.from_file(Path(settings.api_key_file).expanduser())
    if not sign_in_configured(settings):
        return None
    path = token_file(settings, environ)
    if os.path.lexists(path):
        return OidcAuthProvider.from_file(path, client_secret=settings.client_secret)
    if settings.client_secret is not None:
        return service_account_provider(settings)
    raise LoginRequired(f"You are not signed in at {settings.issuer}.")


def service_account_provider(settings: ClientSettings) -> OidcClientCredentialsProvider:
    """Return the provider of a service account (client credentials).

    Raises:
        ConfigurationError: Issuer, client id or secret is missing.
    """
    if settings.issuer is None or settings.client_id is None or settings.client_secret is None:
        raise ConfigurationError(
            "A service account needs issuer, client id and client secret.", key="MICROMEGAS_OIDC_CLIENT_SECRET"
        )
    return OidcClientCredentialsProvider(
        settings.issuer,
        settings.client_id,
        settings.client_secret,
        audience=settings.audience,
        # The default asks for a person's claims, which no service account has.
        scope=None if settings.scope == DEFAULT_SCOPE else settings.scope,
    )


def begin_login(settings: ClientSettings) -> PendingLogin:
    """Start a sign-in that goes on by itself; returns at once with the address to open.

    Raises:
        ConfigurationError: No provider is configured.
        ProviderUnavailable: The provider does not answer.
        ProviderMisbehaved: The provider's answer breaks the protocol.
    """
    issuer, client_id = _provider_of(settings)
    return OidcAuthProvider.begin_login(
        issuer,
        client_id,
        settings.client_secret,
        token_file(settings),
        audience=settings.audience,
        scope=settings.scope,
    )


def login(
    settings: ClientSettings,
    *,
    browser: Browser = SYSTEM_BROWSER,
    announce: Callable[[str], None] | None = None,
    store: bool = True,
    environ: Mapping[str, str] | None = None,
) -> OidcAuthProvider:
    """Sign in with the person's browser and wait for it.

    Args:
        settings: Which provider, and as which application.
        browser: Opens the page.
        announce: Told the address to open, in case no browser appears.
        store: Whether the sign-in is kept for other programs of this person.
        environ: Stands in for the process environment.

    Raises:
        ConfigurationError: No provider is configured.
        LoginFailed: The sign-in ended without a token.
        ProviderUnavailable: The provider does not answer.
        ProviderMisbehaved: The provider's answer breaks the protocol.
    """
    issuer, client_id = _provider_of(settings)
    return OidcAuthProvider.login(
        issuer,
        client_id,
        settings.client_secret,
        token_file(settings, environ) if store else None,
        audience=settings.audience,
        scope=settings.scope,
        browser=browser,
        announce=announce,
    )


def open_client(settings: ClientSettings, auth_provider: AuthProvider | None) -> FlightSQLClient:
    """Return a client of the server that the settings name; connects at its first call."""
    return FlightSQLClient(settings.uri, auth_provider=auth_provider)


def connect(
    uri: str | None = None,
    *,
    profile: str | None = None,
    auth_provider: AuthProvider | None = None,
    preserve_dictionary: bool = False,
    environ: Mapping[str, str] | None = None,
) -> FlightSQLClient:
    """Return a client; without arguments it follows the environment and `~/.micromegas/config.json`.

    Args:
        uri: The server; wins over every setting.
        profile: A profile of `config.json`.
        auth_provider: Gives the bearer token of each call; wins over the configured sign-in.
        preserve_dictionary: Keep dictionary-encoded columns as they are.
        environ: Stands in for the process environment.

    Raises:
        ConfigurationError: A setting is malformed.
        LoginRequired: A sign-in is configured and nobody is signed in.
    """
    settings = load_client_settings(profile=profile, environ=environ)
    provider = stored_provider(settings, environ) if auth_provider is None else auth_provider
    return FlightSQLClient(uri or settings.uri, auth_provider=provider, preserve_dictionary=preserve_dictionary)


def _provider_of(settings: ClientSettings) -> tuple[str, str]:
    if not sign_in_configured(settings) or settings.issuer is None or settings.client_id is None:
        raise ConfigurationError(
            "No identity provider is configured.",
            key="MICROMEGAS_OIDC_ISSUER",
            remedy="Set MICROMEGAS_OIDC_ISSUER and MICROMEGAS_OIDC_CLIENT_ID, or name a profile that has them.",
        )
    return settings.issuer, settings.client_id
