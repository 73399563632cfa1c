"""Whether and where the settings let a person sign in; cheap, for whoever asks before anything is loaded."""

from micromegas_jupyter.config.client import ClientSettings
from micromegas_jupyter.errors import ConfigurationError


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


def provider_of(settings: ClientSettings) -> tuple[str, str]:
    """Return the issuer and the client id that the settings name.

    Raises:
        ConfigurationError: They do not name both.
    """
    if not sign_in_configured(settings) or settings.issuer is None or settings.client_id is None:
        raise ConfigurationError(
            "No identity provider is configured.",
            key="MICROMEGAS_OIDC_ISSUER",
            remedy="Set MICROMEGAS_OIDC_ISSUER and MICROMEGAS_OIDC_CLIENT_ID, or name a profile that has them.",
        )
    return settings.issuer, settings.client_id
