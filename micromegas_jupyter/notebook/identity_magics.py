"""`%micromegas_login`, `%micromegas_whoami` and `%micromegas_logout`; what they act on is the session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from IPython.core.magic import Magics, magics_class

from micromegas_jupyter.errors import LoginRequired, QueryCancelled
from micromegas_jupyter.notebook.arguments import parse_words
from micromegas_jupyter.notebook.error_lines import errors_as_lines, show_as_lines
from micromegas_jupyter.notebook.ipython_names import argument, line_magic, no_var_expand, with_arguments
from micromegas_jupyter.notebook.surroundings import has_kernel, is_attended
from micromegas_jupyter.notebook.words import host_text

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.notebook.identity_display import IdentityDisplay
    from micromegas_jupyter.notebook.session import NotebookSession
    from micromegas_jupyter.settings import ClientSettings

UNATTENDED_REMEDY = (
    "Set MICROMEGAS_OIDC_CLIENT_ID and MICROMEGAS_OIDC_CLIENT_SECRET of a service account, "
    "or run `micromegas login` on this machine beforehand."
)


@magics_class
class IdentityMagics(Magics):
    """The magics about who is signed in.

    Args:
        shell: Where they run.
        session: The notebook's sign-in; closed by the extension.
        display: Shows who is signed in.
    """

    def __init__(self, shell: InteractiveShell, session: NotebookSession, display: IdentityDisplay) -> None:
        super().__init__(shell)
        self._shell = shell
        self._session = session
        self._display = display

    @no_var_expand
    @with_arguments()
    @argument("--profile", metavar="NAME", help="a profile of config.json; later cells use it too")
    @argument("--traceback", action="store_true", help="show the Python traceback of an error")
    @line_magic
    def micromegas_login(self, line: str) -> None:
        """Sign in with your organisation's identity provider.

        In a notebook this shows a link and returns at once: run the next cells, they wait for the sign-in.
        """
        with errors_as_lines(traceback="--traceback" in line.split()):
            arguments = parse_words(self.micromegas_login, line)
            settings = self._session.settings(arguments.profile)
            self._session.choose_profile(arguments.profile)
            try:
                state = self._session.signed_in(settings)
            except LoginRequired as error:
                self._begin(settings, error)
                return
            self._display.show(state)
            if has_kernel(self._shell) and is_attended(self._shell):
                self._session.ask_server_later(settings)

    @no_var_expand
    @with_arguments()
    @argument("--traceback", action="store_true", help="show the Python traceback of an error")
    @line_magic
    def micromegas_whoami(self, line: str) -> None:
        """Show who is signed in, until when, and whom the server takes you for."""
        with errors_as_lines(traceback="--traceback" in line.split()):
            parse_words(self.micromegas_whoami, line)
            settings = self._session.settings()
            state = self._session.signed_in(settings)
            try:
                state = self._session.ask_server(settings)
            finally:
                self._display.show(self._session.state or state)

    @no_var_expand
    @with_arguments()
    @argument("--traceback", action="store_true", help="show the Python traceback of an error")
    @line_magic
    def micromegas_logout(self, line: str) -> None:
        """End the sign-in here and at the identity provider, for all notebooks and terminals of this machine."""
        with errors_as_lines(traceback="--traceback" in line.split()):
            parse_words(self.micromegas_logout, line)
            print(self._session.logout(self._session.settings()))  # noqa: T201 - the magic's output

    def _begin(self, settings: ClientSettings, reason: LoginRequired) -> None:
        if not is_attended(self._shell):
            raise LoginRequired(
                f"You are not signed in to {host_text(settings.uri)}, and nobody is here to sign in.",
                remedy=UNATTENDED_REMEDY,
            ) from reason
        login = self._session.begin_login(settings)
        state = self._session.state
        if state is not None:
            self._display.show(state)
        if has_kernel(self._shell):
            return
        self._session.parts.browser.open(login.start_url)
        try:
            self._session.finish_login(login)
        except KeyboardInterrupt as interrupt:
            self._session.cancel_login()
            cancelled = QueryCancelled("The sign-in was cancelled.")
            show_as_lines(cancelled, ["✗ The sign-in was cancelled."])
            raise cancelled from interrupt
        self._display.show(self._session.signed_in(settings))
