"""What the settings say about calls to the identity provider: deadline, authorities, proxy, and a program's scope."""

from pathlib import Path

from micromegas_jupyter.config.client import DEFAULT_SCOPE, ClientSettings
from micromegas_jupyter.core.http import ProviderHttp, read_certificates


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


def checked_ca_bundle(settings: ClientSettings) -> Path | None:
    """Return the same after checking it, for a reader that does not check certificates as `ProviderHttp` does."""
    path = ca_bundle_file(settings)
    if path is not None:
        read_certificates(path)
    return path


def service_scope(settings: ClientSettings) -> str | None:
    """Return the scope that somebody chose for a program; None leaves it to the provider.

    The default, and what a preset puts in its place, ask for a person's claims, which no program has.
    """
    is_chosen = settings.scope != DEFAULT_SCOPE and not (settings.origin_of("scope") or "").startswith("preset ")
    return settings.scope if is_chosen else None
