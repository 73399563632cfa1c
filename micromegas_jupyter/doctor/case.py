"""What the checks look at: one set of settings in one environment, and what is found out on the way.

Joining the parts is `assembly`'s job.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from micromegas_jupyter import assembly
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.surroundings import Facts, gather_facts
from micromegas_jupyter.contracts import AuthProvider
from micromegas_jupyter.seams import SYSTEM_CLOCK, Clock
from micromegas_jupyter.settings import ClientSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One set of settings in one environment.

    Attributes:
        settings: What was read.
        environ: Stands in for the process environment.
        facts: Where the program runs.
        clock: Tells the time.
    """

    settings: ClientSettings
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    facts: Facts = field(default_factory=gather_facts)
    clock: Clock = SYSTEM_CLOCK

    @property
    def is_wrapped(self) -> bool:
        """Whether another module makes the client, so that no setting counts."""
        return assembly.is_wrapped(self.environ)

    @property
    def names_a_provider(self) -> bool:
        """Whether the settings name both a provider and the application there."""
        return self.settings.issuer is not None and self.settings.client_id is not None

    @property
    def has_no_sign_in(self) -> bool:
        """Whether nothing at all says who calls."""
        is_anonymous = self.settings.issuer is None and self.settings.client_id is None
        return is_anonymous and not self.has_credential_of_its_own

    @property
    def has_default_server(self) -> bool:
        """Whether no setting names the server."""
        return self.settings.origin_of("uri") is None

    @property
    def has_credential_of_its_own(self) -> bool:
        """Whether a credential is set that comes before any sign-in of a person."""
        settings = self.settings
        return bool(settings.api_key_file or settings.service_account_file or settings.workload)

    @property
    def program_credential(self) -> str | None:
        """What the program proves itself with in place of a person, in a few words; None when a person signs in.

        Raises:
            TokenStoreError: The place of the stored sign-in, which would come first, cannot be used.
        """
        settings = self.settings
        if settings.api_key_file is not None:
            return "an API key is used"
        if settings.service_account_file is not None:
            return "a service account is used"
        if settings.workload is not None:
            return "a workload identity is used"
        has_key = settings.private_key is not None
        has_secret = settings.client_secret is not None or settings.client_secret_file is not None
        if not self.names_a_provider or not (has_key or (has_secret and not settings.secret_is_native)):
            return None
        is_stored = assembly.sign_in_store(settings, self.environ).mark() is not None
        return None if is_stored else "a service account is used"

    def connection(self) -> ProviderConnection | None:
        """Return a connection to the configured provider, None when none is configured; calls nothing yet.

        Raises:
            ConfigurationError: The settings of the connection cannot be used.
        """
        settings = self.settings
        if settings.issuer is None:
            return None
        return ProviderConnection(
            settings.issuer,
            settings.client_id or "",
            None,
            http=assembly.provider_http(settings),
            clock=self.clock,
        )

    def provider(self) -> AuthProvider | None:
        """Return what gives the token of each call, None when no sign-in is configured.

        Raises:
            LoginRequired: A sign-in is configured and nobody is signed in.
            MicromegasError: The stored sign-in or the settings cannot be used.
        """
        return assembly.stored_provider(self.settings, self.environ, facts=self.facts)
