"""Which settings the cells of a notebook use: a profile, and what a magic's options said in place of its values.

Reading settings is `settings`' and `assembly`'s job.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from micromegas_jupyter.settings import ClientSettings

VARIABLE_OF_OPTION = MappingProxyType(
    {
        "issuer": "MICROMEGAS_OIDC_ISSUER",
        "client_id": "MICROMEGAS_OIDC_CLIENT_ID",
        "scope": "MICROMEGAS_OIDC_SCOPE",
        "audience": "MICROMEGAS_OIDC_AUDIENCE",
    }
)
"""The variable that each option of `%micromegas_login` stands in for."""

_URI_VARIABLE = "MICROMEGAS_ANALYTICS_URI"
_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsChoice:
    """Which settings to use.

    Attributes:
        profile: A profile of `config.json`; None for the configured one.
        variables: Variables that stand in for those of the environment.
        as_service_account: Whether the configured service account signs in, whoever else may be signed in.
        uri: The server in place of the configured one; None for that.
        settings: What was read when the choice got a name, and holds from then on; None reads afresh each time.
    """

    profile: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    as_service_account: bool = False
    uri: str | None = None
    settings: ClientSettings | None = None

    def with_options(
        self, *, profile: str | None, options: Mapping[str, str | None], as_service_account: bool | None = None
    ) -> SettingsChoice:
        """Return the choice that a magic's options make; without any it stays as it is.

        A profile begins afresh; options alone leave the profile, and the server that was named. `as_service_account`
        alone leaves all of them.
        """
        variables = {VARIABLE_OF_OPTION[name]: value for name, value in options.items() if value}
        if profile is None and not variables:
            return self if as_service_account is None else replace(self, as_service_account=as_service_account)
        return SettingsChoice(
            profile=profile or self.profile,
            variables=variables,
            as_service_account=bool(as_service_account),
            uri=self.uri if profile is None else None,
        )

    def with_server(self, uri: str | None, *, profile: str | None) -> SettingsChoice:
        """Return the choice of another server, of a profile, or of both; a profile begins afresh."""
        if profile is None:
            return replace(self, uri=uri, settings=None)
        return SettingsChoice(profile=profile, uri=uri)

    def pinned(self, settings: ClientSettings) -> SettingsChoice:
        """Return the same choice with the settings that it gives from now on, whatever becomes of their sources."""
        return replace(self, settings=settings)

    def read(
        self, load: Callable[[str | None, Mapping[str, str]], ClientSettings], *, profile: str | None = None
    ) -> ClientSettings:
        """Read the settings; those of `profile` alone when it is another one.

        `load` keeps what proves the configured application from a provider that the options name instead.

        Raises:
            ConfigurationError: They cannot be read.
        """
        if profile is not None and profile != self.profile:
            return load(profile, _NOTHING)
        if self.settings is not None:
            return replace(self.settings, as_service_account=self.as_service_account)
        server = {} if self.uri is None else {_URI_VARIABLE: self.uri}
        settings = load(self.profile, {**self.variables, **server})
        return replace(settings, as_service_account=True) if self.as_service_account else settings
