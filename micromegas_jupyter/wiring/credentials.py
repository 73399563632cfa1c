"""What the settings give an application or a program to authenticate with: secrets, keys, and token providers."""

from pathlib import Path

from micromegas_jupyter.config.client import DEFAULT_SCOPE, ClientSettings
from micromegas_jupyter.core.files import read_secret_file, read_secret_line
from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.oidc.authorization import ClientCredential
from micromegas_jupyter.oidc.private_key import parse_private_key


def provider_http(settings: ClientSettings) -> ProviderHttp:
    """Return what calls the identity provider; raises `ConfigurationError` when the certificates cannot be used."""
    return ProviderHttp(
        timeout_seconds=settings.provider_timeout_seconds,
        extra_ca_bundle=ca_bundle_file(settings),
        proxy=settings.proxy,
    )


def ca_bundle_file(settings: ClientSettings) -> Path | None:
    """Return the file of authorities to trust besides the usual ones, its `~` expanded; None when none is set."""
    if settings.ca_bundle is None:
        return None
    written = Path(settings.ca_bundle)
    try:
        return written.expanduser()
    except RuntimeError:  # there is no such home folder; whoever reads the file reports it
        return written


def service_scope(settings: ClientSettings) -> str | None:
    """Return the scope that somebody chose for a program; None leaves it to the provider.

    The default, and what a preset puts in its place, ask for a person's claims, which no program has.
    """
    is_chosen = settings.scope != DEFAULT_SCOPE and not (settings.origin_of("scope") or "").startswith("preset ")
    return settings.scope if is_chosen else None


def client_credential(settings: ClientSettings) -> ClientCredential:
    """Return what the application authenticates with; None for a public client."""
    if settings.client_secret is not None:
        return settings.client_secret
    if settings.client_secret_file is not None:
        name = settings.origin_of("client_secret_file") or "client_secret_file"
        return read_secret_line(settings.client_secret_file, setting=name)
    if settings.private_key is not None:
        name = settings.origin_of("private_key") or "private_key"
        return parse_private_key(
            read_secret_file(settings.private_key.file, setting=name),
            key_id=settings.private_key.key_id,
            algorithm=settings.private_key.algorithm,
            source_name=name,
            audience=settings.private_key.audience,
        )
    return None
