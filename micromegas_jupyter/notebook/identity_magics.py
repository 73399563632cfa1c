"""`%micromegas_login`, `%micromegas_whoami` and `%micromegas_logout`; what they act on is the session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from IPython.core.magic import Magics, magics_class

from micromegas_jupyter.errors import LoginRequired, MicromegasError, UsageError
from micromegas_jupyter.notebook.arguments import answers_help, parse_words
from micromegas_jupyter.notebook.error_lines import errors_as_lines
from micromegas_jupyter.notebook.ipython_names import argument, line_magic, no_var_expand, with_arguments
from micromegas_jupyter.notebook.parts import FlowWish
from micromegas_jupyter.notebook.settings_choice import VARIABLE_OF_OPTION
from micromegas_jupyter.notebook.sign_in import SignIn
from micromegas_jupyter.notebook.surroundings import has_kernel, is_attended
from micromegas_jupyter.settings import Flow

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.notebook.identity_display import IdentityDisplay
    from micromegas_jupyter.notebook.session import NotebookSession

_AUTOMATIC = "auto"
_FLOWS = (_AUTOMATIC, *(flow.value for flow in Flow))


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
        self._sign_in = SignIn(shell, session, display)

    @answers_help
    @no_var_expand
    @with_arguments()
    @argument("--profile", metavar="NAME", help="a profile of config.json; later cells use it too")
    @argument("--flow", choices=_FLOWS, help="how to sign in; remembered for the profile, auto forgets it")
    @argument("--issuer", metavar="URL", help="the identity provider, in place of the configured one")
    @argument("--client-id", metavar="ID", help="the application's id there")
    @argument("--scope", metavar="SCOPES", help="what is asked for, separated by blanks, in quotes")
    @argument("--audience", metavar="NAME", help="for whom the token is, at providers that ask")
    @argument("--service-account", action="store_true", help="the configured service account, not a person")
    @argument("--traceback", action="store_true", help="show the Python traceback of an error")
    @line_magic
    def micromegas_login(self, line: str) -> None:
        """Sign in with your organisation's identity provider.

        In a notebook this shows a link or a code and returns at once: run the next cells, they wait for the sign-in.
        Where an address must be pasted, it asks for it.
        """
        with errors_as_lines(traceback="--traceback" in line.split()):
            arguments = parse_words(self.micromegas_login, line)
            if arguments.service_account and arguments.flow is not None:
                raise UsageError(
                    "--flow is how a person signs in, and --service-account is none.", remedy="Give one of them."
                )
            choice = self._session.choice.with_options(
                profile=arguments.profile,
                options={name: getattr(arguments, name) for name in VARIABLE_OF_OPTION},
                # Who names a way to sign in is a person.
                as_service_account=True if arguments.service_account else None if arguments.flow is None else False,
            )
            settings = choice.read(self._session.parts.load_settings)
            if arguments.service_account:
                self._session.parts.stored_provider(settings)  # or later cells would meet what is missing
            self._session.choice = choice
            self._session.come_back(settings)
            wish = _wish(arguments.flow)
            try:
                state = self._session.signed_in(settings)
            except MicromegasError as error:
                if not isinstance(error, LoginRequired) and error.giver is None:
                    raise
                self._sign_in.run(settings, wish, reason=error)
                return
            if wish.flow is not None and (wish.flow is Flow.HUB) is not bool(state.through):
                self._sign_in.run(settings, wish)
                return
            self._session.leave_login(settings)
            self._display.show(state)
            if has_kernel(self._shell) and is_attended(self._shell):
                self._session.ask_server_later(settings)

    @answers_help
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
                notice = self._session.notice(settings)
                if notice is not None:
                    print(f"⚠ {notice}")  # noqa: T201 - the magic's output

    @answers_help
    @no_var_expand
    @with_arguments()
    @argument("--profile", metavar="NAME", help="a profile of config.json; without it the one in use")
    @argument("--end-session", action="store_true", help="end your session at the identity provider, too")
    @argument("--traceback", action="store_true", help="show the Python traceback of an error")
    @line_magic
    def micromegas_logout(self, line: str) -> None:
        """End the sign-in here and at the identity provider, for all notebooks and terminals of this machine."""
        with errors_as_lines(traceback="--traceback" in line.split()):
            arguments = parse_words(self.micromegas_logout, line)
            settings = self._session.settings(arguments.profile)
            print(self._session.logout(settings, end_session=arguments.end_session))  # noqa: T201 - the magic's output


def _wish(named: str | None) -> FlowWish:
    if named == _AUTOMATIC:
        return FlowWish(is_automatic=True)
    return FlowWish(flow=None if named is None else Flow(named))
