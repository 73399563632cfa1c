"""Shows who is signed in (a widget where a person looks, text elsewhere), and does what its buttons ask for."""

from __future__ import annotations

import contextvars
import logging
import shutil
import sys
from collections import deque
from dataclasses import replace
from threading import Lock, Thread
from typing import TYPE_CHECKING

from micromegas_jupyter.auth.flow_choice import may_go_on
from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.core.system import process_variables
from micromegas_jupyter.errors import InternalError, LoginRequired, MicromegasError, UsageError
from micromegas_jupyter.notebook.formatting import error_lines
from micromegas_jupyter.notebook.login.dependencies import FlowWish, PersonalProvider
from micromegas_jupyter.notebook.login.state import (
    IdentityAction,
    IdentityState,
    IdentityStatus,
    accepted_actions,
    has_token,
    identity_lines,
    lines_as_html,
    shown_detail,
)
from micromegas_jupyter.notebook.shell import Handle, display, has_kernel, is_attended, new_display_handle
from micromegas_jupyter.redirect.terminal_qr import QR_CAPTION, shows_qr, terminal_qr

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.notebook.login.session import NotebookSession
    from micromegas_jupyter.notebook.login.widget import IdentityWidget

TOO_LATE = "Not done: things have changed meanwhile."
_log = logging.getLogger(__name__)
_MAX_HANDLES = 64


class IdentityButtons:
    """Does one thing at a time, on a thread of its own: a widget's message must not keep the kernel.

    `_lock` guards `_is_working` and is free while something is done.
    """

    def __init__(self, session: NotebookSession) -> None:
        self._session = session
        self._lock = Lock()
        self._is_working = False

    def press(self, action: IdentityAction, board: IdentityWidget) -> None:
        """Begin to do what the button says, and return at once; a button that came too late is answered, too.

        A page may have sent it while the kernel was busy with what made it pointless, and two pages may send one each.
        """
        shown = self._session.shown.shown
        if shown is None or action not in accepted_actions(shown[1]) or not self._begin():
            board.tell(TOO_LATE)
            return
        board.begin_action(action)
        # ipykernel 7 finds the cell that a widget's message belongs to in a context variable.
        context = contextvars.copy_context()
        Thread(
            target=context.run, args=(self._work, action, shown[0], board), name=f"micromegas-{action}", daemon=True
        ).start()

    def _begin(self) -> bool:
        with self._lock:
            was_working, self._is_working = self._is_working, True
        return not was_working

    def _work(self, action: IdentityAction, settings: ClientSettings, board: IdentityWidget) -> None:
        error = news = ""
        try:
            news = self._do(action, settings)
        except MicromegasError as failure:
            error = error_lines(failure)[0]
        except Exception as failure:  # noqa: BLE001 - whatever happens, the buttons are there again
            _log.error("A button of the identity widget failed.", extra={"kind": type(failure).__name__})
            error = error_lines(InternalError("That did not work."))[0]
        finally:
            with self._lock:
                self._is_working = False
            board.end_action(error=error)
            if news:
                board.tell(news)

    def _do(self, action: IdentityAction, settings: ClientSettings) -> str:
        match action:
            case IdentityAction.SIGN_IN:
                self._sign_in(settings)
            case IdentityAction.SHOW_CODE:
                self._begin_login(settings, FlowWish(flow=Flow.DEVICE))
            case IdentityAction.CANCEL:
                self._session.sign_in.cancel()
            case IdentityAction.SIGN_OUT:
                report = shown_detail(self._session.logout(settings))
                self._session.shown.change(
                    settings,
                    lambda state: replace(state, detail=report) if state.status is IdentityStatus.SIGNED_OUT else state,
                )
            case IdentityAction.REFRESH:
                return self._refresh(settings)
        return ""

    def _sign_in(self, settings: ClientSettings) -> None:
        self._session.come_back(settings)
        if not has_token(self._session.state):
            try:
                self._session.signed_in(settings)  # another notebook or a terminal may have signed in meanwhile
            except MicromegasError as error:
                if not isinstance(error, LoginRequired) and error.giver is None:
                    raise
            else:
                self._session.ask_server(settings)
                return
        self._begin_login(settings, FlowWish())

    def _begin_login(self, settings: ClientSettings, wish: FlowWish) -> None:
        chosen = self._session.parts.choose_flow(settings, _CLICKED_SHELL, wish)
        if chosen.flow is Flow.PASTE:
            raise UsageError(
                "The way to sign in here asks for an address, which a button cannot do.",
                remedy="Run %micromegas_login in a cell.",
            )
        flows = [chosen.flow, *(flow for flow in chosen.fallbacks if flow is not Flow.PASTE)]
        reason = chosen.reason
        while True:
            flow = flows.pop(0)
            try:
                self._session.sign_in.begin(
                    settings, flow, reason=reason, stands_in=chosen.flow is Flow.HUB and flow is not Flow.HUB
                )
            except MicromegasError as error:
                if not flows or not may_go_on(error):
                    raise
                reason = f"Not by {flow.value}: {error.what}"
            else:
                return

    def _refresh(self, settings: ClientSettings) -> str:
        was_renewed = renew_now(self._session, settings)
        self._session.ask_server(settings)
        return "Token renewed, and the server asked again." if was_renewed else "The server was asked again."


class _ClickedKernel:
    """A kernel in whose front end a person has just pressed a button, so somebody is there to sign in."""

    def get_parent(self, _channel: str) -> Mapping[str, object]:
        """Return what a request of such a front end says."""
        return {"content": {"allow_stdin": True}}


class _ClickedShell:
    """Stands for the shell where it is asked who is there; the request of a widget's message does not say."""

    kernel = _ClickedKernel()


_CLICKED_SHELL = _ClickedShell()


def renew_now(session: NotebookSession, settings: ClientSettings) -> bool:
    """Renew the token of whoever is signed in; returns whether that brought another one.

    A token that is still valid serves on when it cannot be renewed. API keys and service accounts have nothing that a
    person would renew.

    Raises:
        LoginRequired: The sign-in is gone, or the provider has ended it; the token may be valid for a while.
        ProviderUnavailable: The provider does not answer.
    """
    try:
        provider = session.connection(settings).provider
    except LoginRequired as error:
        session.note_failure(settings, error)
        raise
    if not isinstance(provider, PersonalProvider):
        return False
    try:
        before = provider.get_token()
        provider.renew()
        is_new = provider.get_token() != before
    except MicromegasError as error:
        _show_failure(session, settings, provider, error)
        raise
    session.note_success(settings, provider)
    return is_new


def _show_failure(
    session: NotebookSession, settings: ClientSettings, provider: PersonalProvider, error: MicromegasError
) -> None:
    try:
        provider.get_token()
    except MicromegasError as worse:
        session.note_failure(settings, worse)
    else:
        if isinstance(error, LoginRequired):
            session.note_success(settings, provider)  # who is signed in is known, and that nothing renews it any more


class IdentityDisplay:
    """Shows the session's state; all cells of a notebook show one widget, so none of them goes stale."""

    def __init__(self, shell: InteractiveShell, session: NotebookSession) -> None:
        self._shell = shell
        self._session = session
        self._buttons = IdentityButtons(session)
        self._widget: IdentityWidget | None = None
        self._offers: list[Handle] = []
        self._handles: deque[Handle] = deque(maxlen=_MAX_HANDLES)

    def show(self, state: IdentityState) -> None:
        """Show the state in this cell."""
        now = self._session.parts.clock.now()
        lines = identity_lines(state, now=now)
        if not has_kernel(self._shell):
            self._print(state, lines)
        elif not is_attended(self._shell):
            # A saved notebook that nobody watched would keep a countdown that ended long ago.
            display(_text_bundle(lines), raw=True)
        else:
            self._show_widget(state)

    def close(self) -> None:
        """Put text in place of the widget in all cells: without its kernel a widget cannot be shown again."""
        widget, self._widget = self._widget, None
        if widget is None:
            return
        state = self._session.state
        if state is not None:
            # Nobody renews it any more, and a sign-in that went on is over.
            lines = identity_lines(replace(state, renews=False, offer=None), now=self._session.parts.clock.now())
            for handle in self._handles:
                handle.update(_text_bundle(lines), raw=True)
        widget.close()

    def _print(self, state: IdentityState, lines: Sequence[str]) -> None:
        print("\n".join(lines))  # noqa: T201 - a terminal
        if state.offer is None or not sys.stdout.isatty():
            return
        if not shows_qr(process_variables(), encoding=sys.stdout.encoding):
            return
        picture = terminal_qr(state.offer.scan_address, columns=shutil.get_terminal_size().columns)
        if picture:
            print("\n".join([QR_CAPTION, *picture]))  # noqa: T201 - a terminal

    def _show_widget(self, state: IdentityState) -> None:
        from micromegas_jupyter.notebook.login.widget import IdentityWidget

        if self._widget is None:
            self._widget = IdentityWidget(clock=self._session.parts.clock, on_press=self._buttons.press)
            self._session.shown.subscribe(self._follow)
        self._widget.apply(state)
        handle = new_display_handle()
        handle.display(self._widget)
        self._handles.append(handle)
        if state.status is IdentityStatus.WAITING:
            self._offers.append(handle)

    def _follow(self, state: IdentityState) -> None:
        if self._widget is None:
            return
        self._widget.apply(state)
        if state.status is not IdentityStatus.WAITING:
            # The text that is saved beside the widget must not go on offering a sign-in that is over.
            offers, self._offers = self._offers, []
            for handle in offers:
                handle.update(self._widget)


def _text_bundle(lines: Sequence[str]) -> dict[str, str]:
    return {"text/plain": "\n".join(lines), "text/html": lines_as_html(lines)}
