"""The connection to the identity provider that the settings ask for, and the authorities that they have trusted."""

from pathlib import Path

from micromegas_jupyter.config.client import ClientSettings
from micromegas_jupyter.core.http import ProviderHttp


def provider_http(settings: ClientSettings) -> ProviderHttp:
    """Return how the identity provider is called: with the settings' deadline, authorities and proxy.

    Raises:
        ConfigurationError: The file of certificates cannot be used.
    """
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
    except RuntimeError:  # there is no such home folder; who reads the file says that it is not there
        return written


def checked_ca_bundle(settings: ClientSettings) -> Path | None:
    """Return the same for a reader that does not look at the certificates as `ProviderHttp` does.

    Raises:
        ConfigurationError: There is no such file, it is too large, or it holds no certificate or a damaged one.
    """
    path = ca_bundle_file(settings)
    if path is not None:
        from micromegas_jupyter.core.http import read_certificates

        read_certificates(path)
    return path
