"""The connections that cells use, some by a name; a cell waits for the sign-in that its connection needs."""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from micromegas_jupyter.core.text import seconds_text
from micromegas_jupyter.errors import LoginRequired, MicromegasError, QueryCancelled, UsageError
from micromegas_jupyter.notebook.login.connections import PersonalProvider
from micromegas_jupyter.notebook.results.rows import DisplayLine, LiveLine, TerminalLine
from micromegas_jupyter.notebook.shell import has_kernel, is_attended, show_as_lines, shown_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.config.client import ClientSettings
    from micromegas_jupyter.notebook.login.connections import Connection, SettingsChoice
    from micromegas_jupyter.notebook.login.session import NotebookSession

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")


class CellConnections:
    """The connections that cells name: each name stands for the settings that were read when it was given."""

    def __init__(self, shell: InteractiveShell, session: NotebookSession) -> None:
        self._shell = shell
        self._session = session
        self._by_name: dict[str, SettingsChoice] = {}
        #: The MIME bundle and metadata of what a cell shows that waits for a sign-in.
        self.notice: Callable[[], Any] = lambda: None

    def put(self, name: str, choice: SettingsChoice, settings: ClientSettings) -> None:
        """Give a name to settings."""
        if not _NAME.fullmatch(name):
            raise UsageError(
                f'"{shown_name(name)}" is not a valid connection name.',
                remedy="Use letters, digits, _ and -, at most 63.",
            )
        self._by_name[name] = replace(choice, settings=settings)

    def forget(self, name: str) -> None:
        """Remove a name, if there is one."""
        self._by_name.pop(name, None)

    def choice(self, name: str) -> SettingsChoice:
        """Return the choice with this name."""
        if name in self._by_name:
            return self._by_name[name]
        nearest = get_close_matches(name, self._by_name, n=1)
        names = f"The named ones: {', '.join(self._by_name)}. " if self._by_name else ""
        remedy = f'Did you mean "{nearest[0]}"?' if nearest else f"{names}%micromegas_connect URI --as NAME names one."
        raise UsageError(f'There is no connection named "{shown_name(name)}".', remedy=remedy)

    def all(self) -> dict[str, ClientSettings]:
        """Return the settings of every name, in the order in which the names were given."""
        return {name: choice.settings for name, choice in self._by_name.items() if choice.settings is not None}

    def settings(self, *, connection: str | None, profile: str | None) -> ClientSettings:
        """Return the settings of the connection that a cell names."""
        if connection is None:
            return self._session.settings(profile)
        return self.choice(connection).read(self._session.dependencies)

    @contextmanager
    def connected(
        self, *, connection: str | None, profile: str | None
    ) -> Iterator[tuple[ClientSettings, Connection, LiveLine]]:
        """Wait for the connection that a cell names; the block finishes or clears the line, which shows the wait."""
        settings = self.settings(connection=connection, profile=profile)
        line: LiveLine = DisplayLine() if has_kernel(self._shell) else TerminalLine(sys.stdout)
        try:
            yield settings, self._wait(settings, line), line
        except MicromegasError as error:
            self._session.note_failure(settings, error)
            if isinstance(error, LoginRequired) and connection is not None:
                # A sign-in is for the connection in use.
                error.remedy = f"Run %micromegas_connect {connection}, then %micromegas_login."
            raise

    def _wait(self, settings: ClientSettings, line: LiveLine) -> Connection:
        clock = self._session.dependencies.clock
        started = clock.monotonic()

        def show_card() -> None:
            notice = self.notice()
            if isinstance(line, DisplayLine) and notice is not None:
                line.show(*notice)

        try:
            if has_kernel(self._shell) and is_attended(self._shell):
                self._begin_sign_in_if_needed(settings)
            return self._session.connection(settings, on_wait=show_card)
        except KeyboardInterrupt as interrupt:
            stopped = QueryCancelled("The wait for the sign-in was stopped.")
            waited = seconds_text(clock.monotonic() - started)
            show_as_lines(stopped, [f"✗ stopped waiting for the sign-in after {waited}; it stays open"])
            line.clear()
            raise stopped from interrupt
        except MicromegasError:
            line.clear()
            raise

    def _begin_sign_in_if_needed(self, settings: ClientSettings) -> None:
        """Start a sign-in, which the cell then waits for, if a person is here and not signed in."""
        session = self._session
        if session.pending(settings) is not None:
            return
        try:
            provider = session.connections.get(settings).provider
            if isinstance(provider, PersonalProvider):
                provider.get_token()
        except LoginRequired as error:
            session.note_failure(settings, error)
            # A service that should have signed the user in reported why it did not; or the user signed out here.
            has_service = error.sign_in_service is not None or settings.profile in session.connections.signed_out
            if has_service or settings.as_service_account:
                raise
            session.begin_sign_in(settings, self._shell)
