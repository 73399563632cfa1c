"""What an application proves itself with goes to the provider that it was configured for, and to no other.

Source: RFC 9700 section 4.4 (a client that talks to several providers); RFC 6749 section 2.3.1.
"""

from dataclasses import replace

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.settings.client import ClientSettings
from micromegas_jupyter.settings.client_profile import CONFIG_FILE

PROOFS = ("client_secret", "client_secret_file", "private_key", "service_account_file", "workload")


def without_proofs(settings: ClientSettings) -> ClientSettings:
    """Return the settings without what proves the application or the machine to a provider."""
    return replace(
        settings,
        client_secret=None,
        client_secret_file=None,
        private_key=None,
        service_account_file=None,
        workload=None,
        secret_is_native=False,
        origins=tuple((name, origin) for name, origin in settings.origins if name.partition(".")[0] not in PROOFS),
    )


def same_application(settings: ClientSettings, other: ClientSettings) -> bool:
    """Whether both name the same application of the same provider, as far as `other` names one."""
    return other.issuer in {None, settings.issuer} and other.client_id in {None, settings.client_id}


def check_proofs_of_file(settings: ClientSettings, *, issuer_of_file: object) -> None:
    """Check that no proof of `config.json` would go to another provider than the one that is named there.

    Raises:
        ConfigurationError: A variable names another provider, and the proof comes from the file.
    """
    origins = dict(settings.origins)
    if issuer_of_file is None or issuer_of_file == settings.issuer:
        return
    for name in PROOFS:
        origin = origins.get(name, "")
        if origin.startswith(CONFIG_FILE):
            raise ConfigurationError(
                f"{origin} belongs to the provider of {CONFIG_FILE}, and {origins.get('issuer')} names another one.",
                key=origins.get("issuer") or "issuer",
                remedy=f"Make a profile for the other provider, or unset {origins.get('issuer')}.",
            )
