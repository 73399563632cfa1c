"""Gives a cell the connection that it names: waits for a sign-in that goes on, and says so in a line that goes again.

What runs over the connection is the magics' job, who is signed in the session's.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from micromegas_jupyter.errors import LoginRequired, MicromegasError, QueryCancelled
from micromegas_jupyter.notebook.error_lines import show_as_lines
from micromegas_jupyter.notebook.live_line import DisplayLine, TerminalLine
from micromegas_jupyter.notebook.sign_in_offer import offer_of, waiting_address, waiting_line
from micromegas_jupyter.notebook.surroundings import has_kernel
from micromegas_jupyter.notebook.words import moment_text, provider_text, seconds_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.notebook.connections import Connection
    from micromegas_jupyter.notebook.live_line import LiveLine
    from micromegas_jupyter.notebook.named_connections import NamedConnections
    from micromegas_jupyter.notebook.parts import Login
    from micromegas_jupyter.notebook.session import NotebookSession
    from micromegas_jupyter.settings import ClientSettings


class CellConnections:
    """The connections that cells name by `--connection` and `--profile`; without either, the one in use.

    Args:
        shell: Where the cells run.
        session: The notebook's sign-in and clients.
        named: What `--connection` means.
    """

    def __init__(self, shell: InteractiveShell, session: NotebookSession, named: NamedConnections) -> None:
        self._shell = shell
        self._session = session
        self._named = named

    def names(self) -> tuple[str, ...]:
        """Return what `--connection` may name."""
        return tuple(self._named.all())

    def settings(self, *, connection: str | None, profile: str | None) -> ClientSettings:
        """Return the settings of the connection that a cell names.

        Raises:
            UsageError: There is no connection of this name.
            ConfigurationError: The settings contradict each other or a file cannot be read.
        """
        return self._session.settings(profile) if connection is None else self._named.settings(connection)

    @contextmanager
    def connected(
        self, *, connection: str | None, profile: str | None
    ) -> Iterator[tuple[ClientSettings, Connection, LiveLine]]:
        """Wait for the connection that a cell names; an error in the block counts as one of its server's.

        The line says what is waited for; it is left for the block to finish or to clear.

        Raises:
            QueryCancelled: The person interrupted the wait; the sign-in goes on.
            LoginRequired: A sign-in is configured and nobody is signed in.
            LoginFailed: The sign-in that was waited for ended without a token.
            TokenStoreError: The token file cannot be used safely.
            UsageError: There is no connection of this name.
            ConfigurationError: The settings contradict each other or a file cannot be read.
        """
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
        clock = self._session.parts.clock
        started = clock.monotonic()

        def say_what_for(login: Login) -> None:
            offer = offer_of(login)
            until = f" (until {moment_text(login.expires_at, now=clock.now())})"
            waiting = waiting_line(offer, issuer=provider_text(settings.issuer), until=until)
            line.rewrite(f"⏳ {waiting} · interrupt to stop waiting", address=waiting_address(offer))

        try:
            return self._session.connection(settings, on_wait=say_what_for)
        except KeyboardInterrupt as interrupt:
            stopped = QueryCancelled("The wait for the sign-in was stopped.")
            waited = seconds_text(clock.monotonic() - started)
            show_as_lines(stopped, [f"✗ stopped waiting for the sign-in after {waited}; it stays open"])
            line.clear()
            raise stopped from interrupt
        except MicromegasError:
            line.clear()
            raise
