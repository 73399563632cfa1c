"""`%micromegas_login`, `%micromegas_whoami` and `%micromegas_logout`; what they act on is the session."""

from __future__ import annotations

import _thread
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from IPython.core.magic import Magics, magics_class

from micromegas_jupyter.auth.flow_choice import login_remedy, may_go_on
from micromegas_jupyter.auth.surroundings import Surroundings
from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.errors import (
    LoginFailed,
    LoginRequired,
    MicromegasError,
    ProviderMisbehaved,
    QueryCancelled,
    UsageError,
)
from micromegas_jupyter.notebook.arguments import answers_help, parse_words
from micromegas_jupyter.notebook.formatting import error_lines, errors_as_lines, host_text, place_text, show_as_lines
from micromegas_jupyter.notebook.login.connection_settings import VARIABLE_OF_OPTION
from micromegas_jupyter.notebook.login.dependencies import FlowToUse, FlowWish
from micromegas_jupyter.notebook.shell import (
    argument,
    clear_output,
    has_kernel,
    is_alone_in_cell,
    is_attended,
    line_magic,
    no_var_expand,
    with_arguments,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.notebook.login.dependencies import Login
    from micromegas_jupyter.notebook.login.display import IdentityDisplay
    from micromegas_jupyter.notebook.login.session import NotebookSession

_AUTOMATIC = "auto"
_FLOWS = (_AUTOMATIC, *(flow.value for flow in Flow))
PROMPT = "Paste the address here (it is not shown): "
_MAX_TRIES = 5
_NO_BROWSER = "No browser opened here."


@magics_class
class IdentityMagics(Magics):
    """The magics about who is signed in."""

    def __init__(self, shell: InteractiveShell, session: NotebookSession, display: IdentityDisplay) -> None:
        super().__init__(shell)
        self._shell = shell
        self._session = session
        self._display = display

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
                self._sign_in(settings, wish, reason=error)
                return
            if wish.flow is not None and (wish.flow is Flow.HUB) is not bool(state.through):
                self._sign_in(settings, wish)
                return
            self._session.sign_in.leave(settings)
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

    def _sign_in(self, settings: ClientSettings, wish: FlowWish, *, reason: MicromegasError | None = None) -> None:
        """Sign a person in; where nothing but a link or a code is to be shown, the sign-in goes on by itself.

        Args:
            settings: At which provider, and as which application.
            wish: Which way was asked for.
            reason: Why a person is needed; None when they want to sign in in another way than they are.
        """
        if not is_attended(self._shell):
            if reason is not None and reason.giver is not None:
                raise reason  # it says what to do about what signs people in here by itself
            raise _nobody_here(settings) from reason
        chosen = self._session.parts.choose_flow(settings, self._shell, wish)
        try:
            login = self._begin(settings, chosen, wish)
            if login.flow is Flow.PASTE:
                self._take_pasted(login)
            elif has_kernel(self._shell):
                return
            self._session.sign_in.finish(login)
        except (KeyboardInterrupt, EOFError) as interrupt:
            self._session.sign_in.cancel()
            cancelled = QueryCancelled("The sign-in was cancelled.")
            show_as_lines(cancelled, ["✗ The sign-in was cancelled."])
            raise cancelled from interrupt
        if is_alone_in_cell(self._shell):
            # Front ends write each question into the cell, and nobody needs those and the wrong answers any more.
            clear_output(wait=True)
        elif has_kernel(self._shell):
            return
        self._display.show(self._session.signed_in(settings))

    def _begin(self, settings: ClientSettings, chosen: FlowToUse, wish: FlowWish) -> Login:
        flows = [chosen.flow, *chosen.fallbacks]
        reason = chosen.reason
        while True:
            flow = flows.pop(0)
            try:
                login = self._session.sign_in.begin(
                    settings,
                    flow,
                    reason=reason,
                    on_signed_in=lambda: self._remember(settings, wish),
                    stands_in=chosen.flow is Flow.HUB and flow is not Flow.HUB,
                )
            except MicromegasError as error:
                if not flows or not may_go_on(error):
                    raise
                reason = f"Not by {flow.value}: {error.what}"
                continue
            state = self._session.state
            if state is not None:
                self._display.show(state)
            if has_kernel(self._shell) or flow is not Flow.BROWSER:
                return login
            if self._session.parts.browser.open(login.start_url or "") or not flows:
                return login
            reason = _NO_BROWSER

    def _take_pasted(self, login: Login) -> None:
        """Ask until an address fits; why none did in the end is the sign-in's own result."""
        for _ in range(_MAX_TRIES):
            try:
                login.submit(ask_until(login, lambda: self._session.parts.ask(PROMPT)))
            except WaitEnded:
                return
            except (UsageError, ProviderMisbehaved) as error:
                if login.done:
                    return
                print("\n".join(error_lines(error)))  # noqa: T201 - the magic's output
            else:
                return
        self._session.sign_in.cancel()
        raise LoginFailed("None of the pasted addresses belongs to this sign-in.")

    def _remember(self, settings: ClientSettings, wish: FlowWish) -> None:
        if wish.flow is None and not wish.is_automatic:
            return
        # Whoever is signed in does not care that the next sign-in may ask for the flow again.
        with suppress(MicromegasError):
            self._session.parts.remember_flow(settings, wish.flow)


def _wish(named: str | None) -> FlowWish:
    if named == _AUTOMATIC:
        return FlowWish(is_automatic=True)
    return FlowWish(flow=None if named is None else Flow(named))


def _nobody_here(settings: ClientSettings) -> LoginRequired:
    where = place_text(host_text(settings.issuer or ""), host_text(settings.uri))
    return LoginRequired(
        f"Not signed in{where}, and nobody is here to sign in.",
        remedy=login_remedy(Surroundings.UNATTENDED, profile=settings.profile),
    )


class WaitEnded(Exception):
    """The sign-in ended before the person had answered."""


class _Question:
    """One question; its lock decides which came first, the answer or the sign-in's end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_open = True
        self.was_interrupted = False

    def answered(self) -> None:
        with self._lock:
            self._is_open = False

    def interrupt(self) -> None:
        with self._lock:
            if self._is_open:
                self._is_open = False
                self.was_interrupted = True
                # A kernel's input request looks for it a hundred times a second; a prompt's event loop is woken.
                _thread.interrupt_main()


def ask_until(login: Login, ask: Callable[[], str]) -> str:
    """Return what the person answers.

    Args:
        login: What waits for the answer.
        ask: Asks; runs on this thread. Only the main thread can be interrupted.

    Raises:
        WaitEnded: The sign-in ended first.
        KeyboardInterrupt: The person interrupted.
    """
    question = _Question()
    if threading.current_thread() is threading.main_thread():
        login.on_done(lambda *_: question.interrupt())
    try:
        text = ask()
        question.answered()
    except KeyboardInterrupt:
        if question.was_interrupted:
            raise WaitEnded from None
        raise
    finally:
        question.answered()
    if login.done:
        raise WaitEnded
    return text
