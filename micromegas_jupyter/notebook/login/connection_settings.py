"""Which settings the cells of a notebook use: a profile, what options said instead, and names for `--connection`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import TYPE_CHECKING

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.formatting import cut, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from micromegas_jupyter.config.client import ClientSettings

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
MAX_NAMES = 32
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")
_MAX_SHOWN_CHARACTERS = 64


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
        """
        if profile is not None and profile != self.profile:
            return load(profile, _NOTHING)
        if self.settings is not None:
            return replace(self.settings, as_service_account=self.as_service_account)
        server = {} if self.uri is None else {_URI_VARIABLE: self.uri}
        settings = load(self.profile, {**self.variables, **server})
        return replace(settings, as_service_account=True) if self.as_service_account else settings


class NamedConnections:
    """Which settings each name stands for, as they were read when it was given."""

    def __init__(self) -> None:
        self._by_name: dict[str, tuple[SettingsChoice, ClientSettings]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def put(self, name: str, choice: SettingsChoice, settings: ClientSettings) -> bool:
        """Give a name to settings; returns whether it stood for others before."""
        if not _NAME.fullmatch(name):
            raise UsageError(
                f'"{_shown(name)}" is no name for a connection.', remedy="Use letters, digits, _ and -, at most 63."
            )
        if name not in self._by_name and len(self._by_name) >= MAX_NAMES:
            raise UsageError(f"There are {MAX_NAMES} named connections already.", remedy="Give one of them anew.")
        is_known = name in self._by_name and self._by_name[name][1] != settings
        self._by_name[name] = (choice.pinned(settings), settings)
        return is_known

    def forget(self, name: str) -> None:
        """Let a name stand for nothing; does nothing when it does not."""
        self._by_name.pop(name, None)

    def choice(self, name: str) -> SettingsChoice:
        """Return the choice that a name stands for, which gives these settings."""
        return self._known(name)[0]

    def settings(self, name: str) -> ClientSettings:
        """Return the settings that a name stands for."""
        return self._known(name)[1]

    def all(self) -> dict[str, ClientSettings]:
        """Return the settings of every name, in the order in which the names were given."""
        return {name: settings for name, (_, settings) in self._by_name.items()}

    def _known(self, name: str) -> tuple[SettingsChoice, ClientSettings]:
        known = self._by_name.get(name)
        if known is not None:
            return known
        nearest = get_close_matches(name, self._by_name, n=1)
        what = f'No connection is called "{_shown(name)}".'
        if nearest:
            raise UsageError(what, remedy=f'Did you mean "{nearest[0]}"?')
        named = "Those that are: " + ", ".join(self._by_name) + "." if self._by_name else "None has a name yet."
        raise UsageError(what, remedy=f"{named} %micromegas_connect URI --as NAME names one.")


def _shown(name: str) -> str:
    return cut(printable(name), _MAX_SHOWN_CHARACTERS)
