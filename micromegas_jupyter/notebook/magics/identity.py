"""`%micromegas_login`, `_whoami`, and `_logout`, and for troubleshooting `_doctor` and `_explain`."""

from __future__ import annotations

import _thread
import threading
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING

from IPython.core.magic import Magics, magics_class

from micromegas_jupyter.auth.flows.base import (
    PASTE_PROMPT,
    RuntimeEnvironment,
    gather_runtime_info,
    login_remedy,
    take_pasted,
)
from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import (
    LoginFailed,
    LoginRequired,
    MicromegasError,
    QueryCancelled,
)
from micromegas_jupyter.notebook.login.connections import AUTOMATIC, VARIABLE_OF_OPTION
from micromegas_jupyter.notebook.shell import (
    PlainText,
    argument,
    check_exclusive,
    clear_output,
    error_lines,
    has_kernel,
    is_alone_in_cell,
    is_attended,
    line_magic,
    show_as_lines,
    sign_in_text,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.notebook.login.connections import Login
    from micromegas_jupyter.notebook.login.display import IdentityDisplay
    from micromegas_jupyter.notebook.login.session import NotebookSession

_FLOWS = (AUTOMATIC, *(flow.value for flow in Flow))


@magics_class
class IdentityMagics(Magics):
    """The magics for signing in and out."""

    def __init__(self, shell: InteractiveShell, session: NotebookSession) -> None:
        super().__init__(shell)
        self._shell = shell
        self._session = session

    @cached_property
    def display(self) -> IdentityDisplay:
        """The display of the sign-in's state."""
        from micromegas_jupyter.notebook.login.display import IdentityDisplay  # imports anywidget

        return IdentityDisplay(self._shell, self._session)

    def close(self) -> None:
        """Replace the card with text."""
        if "display" in vars(self):
            self.display.close()

    @line_magic
    @argument("--profile", metavar="NAME", help="profile of config.json, also for later cells")
    @argument("--flow", choices=_FLOWS, help="sign-in flow, saved for the profile; auto clears it")
    @argument(
        "--issuer",
        metavar="URL",
        help="identity provider instead of the configured one; never receives the configured secrets",
    )
    @argument("--client-id", metavar="ID", help="client ID of the application")
    @argument("--scope", metavar="SCOPES", help='scopes to request, separated by spaces: "openid email"')
    @argument("--audience", metavar="NAME", help="audience of the token, if the provider requires one")
    @argument(
        "--service-account",
        action="store_true",
        help="use the configured service account, even if you are signed in",
    )
    def micromegas_login(self, arguments: argparse.Namespace) -> None:
        """Sign in with your organization's identity provider.

        In a notebook this shows a link or a code and returns at once: run the next cells, they wait for the sign-in.
        Where an address must be pasted, it asks for it.
        """
        check_exclusive(arguments, "flow", "service_account")  # flows are for users
        session = self._session
        choice = session.choice.with_options(
            profile=arguments.profile,
            options={name: getattr(arguments, name) for name in VARIABLE_OF_OPTION},
            # Specifying a flow implies a user.
            as_service_account=True if arguments.service_account else None if arguments.flow is None else False,
        )
        settings = choice.read(session.dependencies)
        if arguments.service_account:
            session.dependencies.stored_provider(settings)  # reports missing settings here instead of in later cells
        session.choice = choice
        session.connections.signed_out.discard(settings.profile)
        session.cancel()
        reason = session.why_not_signed_in(settings)
        is_through_hub = bool(session.state and session.state.through)
        is_another = arguments.flow not in {None, AUTOMATIC} and (arguments.flow == Flow.HUB) is not is_through_hub
        if reason is not None or is_another:
            self._sign_in(settings, arguments.flow, reason)
            return
        self._show()
        if has_kernel(self._shell) and is_attended(self._shell):
            session.fetch_identity_later(settings)

    @line_magic
    def micromegas_whoami(self, _arguments: argparse.Namespace) -> None:
        """Show who is signed in, until when, and your identity according to the server."""
        settings = self._session.settings()
        self._session.signed_in(settings)
        try:
            self._session.fetch_identity(settings)
        finally:
            self._show()
            connection = self._session.connections.current(settings)
            if connection is not None and connection.notices.newest:
                connection.notices.take_new()
                print(f"⚠ {connection.notices.newest}")  # noqa: T201 - the magic's output

    @line_magic
    @argument("--profile", metavar="NAME", help="profile of config.json; default: the current one")
    @argument(
        "--end-session",
        action="store_true",
        help="also show a link to end your session with the provider",
    )
    def micromegas_logout(self, arguments: argparse.Namespace) -> None:
        """End the sign-in here and with the identity provider, for all notebooks and terminals on this machine."""
        settings = self._session.settings(arguments.profile)
        print(self._session.logout(settings, end_session=arguments.end_session))  # noqa: T201 - the magic's output

    @line_magic
    @argument("--profile", metavar="NAME", help="profile of config.json; default: the current one")
    @argument("--json", action="store_true", help="print a JSON object")
    def micromegas_doctor(self, arguments: argparse.Namespace) -> None:
        """Check everything that a sign-in needs, one check per line, and explain how to fix failures."""
        from micromegas_jupyter.doctor import examination as doctor

        findings = doctor.examine(
            load_settings=lambda: self._session.settings(arguments.profile),
            facts=gather_runtime_info(shell=self._shell),
        )
        lines = [doctor.findings_as_json(findings)] if arguments.json else doctor.findings_as_lines(findings)
        print("\n".join(lines))  # noqa: T201 - the magic's output

    @line_magic
    @argument(
        "code",
        metavar="CODE",
        nargs="?",
        help="error code, such as SQL001; default: list all codes",
    )
    def micromegas_explain(self, arguments: argparse.Namespace) -> PlainText:
        """Explain an error code: what happened, and what to do."""
        from micromegas_jupyter.core.error_page import explain_error

        return PlainText(explain_error(arguments.code, how_to_list="%micromegas_explain"))

    def _sign_in(self, settings: ClientSettings, preference: str | None, reason: MicromegasError | None) -> None:
        """Sign a user in; `reason` explains why this is needed, unless the user requested it."""
        if not is_attended(self._shell):
            if reason is not None and reason.sign_in_service is not None:
                raise reason  # explains what to do about the Hub or platform that signs users in here
            raise LoginRequired(
                f"Not signed in{sign_in_text(settings)}, and no user is present to sign in.",
                remedy=login_remedy(RuntimeEnvironment.UNATTENDED, profile=settings.profile),
            ) from reason
        choice = self._session.dependencies.choose_flow(settings, self._shell, preference)
        try:
            attempt = self._session.sign_in(
                settings, choice, on_begun=self._show_begun, on_signed_in=lambda: self._remember(settings, preference)
            )
            if attempt.login.flow is Flow.PASTE:
                take_pasted(
                    attempt.login,
                    prompt=lambda: prompt_until_done(
                        attempt.login, lambda: self._session.dependencies.prompt(PASTE_PROMPT)
                    ),
                    show_error=lambda error: print("\n".join(error_lines(error))),  # noqa: T201 - the magic's output
                )
            elif has_kernel(self._shell):
                return
            self._session.finish(attempt)
        except LoginFailed:
            self._session.cancel()
            raise
        except (KeyboardInterrupt, EOFError) as interrupt:
            self._session.cancel()
            cancelled = QueryCancelled("The sign-in was canceled.")
            show_as_lines(cancelled, ["✗ The sign-in was canceled."])
            raise cancelled from interrupt
        if is_alone_in_cell(self._shell):
            # Front ends echo each prompt in the cell; these echoes and any invalid inputs are no longer needed.
            clear_output(wait=True)
        elif has_kernel(self._shell):
            return
        self._session.signed_in(settings)
        self._show()

    def _show(self) -> None:
        if self._session.state is not None:
            self.display.show(self._session.state)

    def _show_begun(self, login: Login) -> bool:
        """Show a sign-in; return whether the user can use it."""
        self._show()
        if has_kernel(self._shell) or login.flow is not Flow.BROWSER:
            return True
        return self._session.dependencies.browser.open(login.start_url or "")

    def _remember(self, settings: ClientSettings, preference: str | None) -> None:
        if preference is not None:
            flow = None if preference == AUTOMATIC else Flow(preference)
            # The user is signed in, so it doesn't matter if the next sign-in needs the option again.
            with suppress(MicromegasError):
                self._session.dependencies.remember_flow(settings, flow)


def prompt_until_done(login: Login, prompt: Callable[[], str]) -> Secret | None:
    """Return the user's input, or None if the sign-in finishes first, which ends a prompt on the main thread.

    The response may contain a code, which a traceback must not show.
    """
    lock, first = threading.Lock(), ""

    def note(what: str) -> None:
        nonlocal first
        with lock:
            if not first and what == "end":
                # A kernel's input request checks for interrupts 100 times per second; a prompt's event loop is woken
                # up.
                _thread.interrupt_main()
            first = first or what

    if threading.current_thread() is threading.main_thread():
        login.on_done(lambda *_: note("end"))
    try:
        text = prompt()
        note("answer")
    except KeyboardInterrupt:
        if first == "end":
            return None
        raise
    finally:
        note("answer")
    return None if login.done else Secret(text)
