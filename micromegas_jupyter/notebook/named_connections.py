"""The connections of a notebook that have a name for `--connection`; making them work is the session's job."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.notebook.words import cut, printable

if TYPE_CHECKING:
    from micromegas_jupyter.notebook.settings_choice import SettingsChoice
    from micromegas_jupyter.settings import ClientSettings

MAX_NAMES = 32

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")
_MAX_SHOWN_CHARACTERS = 64


class NamedConnections:
    """Which settings each name stands for, as they were read when it was given."""

    def __init__(self) -> None:
        self._by_name: dict[str, tuple[SettingsChoice, ClientSettings]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def put(self, name: str, choice: SettingsChoice, settings: ClientSettings) -> bool:
        """Give a name to settings; returns whether it stood for others before.

        Raises:
            UsageError: It is no such name, or there are too many.
        """
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
        """Return the choice that a name stands for, which gives these settings.

        Raises:
            UsageError: There is no connection of this name.
        """
        return self._known(name)[0]

    def settings(self, name: str) -> ClientSettings:
        """Return the settings that a name stands for.

        Raises:
            UsageError: There is no connection of this name.
        """
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
