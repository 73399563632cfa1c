"""Shows the state of the sign-in (as a widget, or as text where nobody watches), and handles the widget's buttons."""

from __future__ import annotations

import contextvars
import logging
import shutil
import sys
from collections import deque
from dataclasses import replace
from threading import Lock, Thread
from typing import TYPE_CHECKING

from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.core.system import process_variables
from micromegas_jupyter.errors import InternalError, LoginRequired, MicromegasError, UsageError
from micromegas_jupyter.notebook.formatting import error_lines
from micromegas_jupyter.notebook.login.dependencies import FlowPreference
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

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.notebook.login.session import NotebookSession
    from micromegas_jupyter.notebook.login.widget import IdentityWidget

TOO_LATE = "Nothing was done, because the sign-in has changed meanwhile."
_log = logging.getLogger(__name__)
_MAX_HANDLES = 64


class IdentityButtons:
    """Handles one button at a time, on a thread: a widget's message must not block the kernel.

    `_lock` guards `_is_busy` and is free during the work.
    """

    def __init__(self, session: NotebookSession) -> None:
        self._session = session
        self._lock = Lock()
        self._is_busy = False

    def press(self, action: IdentityAction, widget: IdentityWidget) -> None:
        """Begin a button's action, and return at once; the person is notified when the button came too late.

        A page may have sent it while the kernel was busy with what made it pointless, and two pages may send one each.
        """
        shown = self._session.shown.shown
        if shown is None or action not in accepted_actions(shown[1]) or not self._begin():
            widget.notify(TOO_LATE)
            return
        widget.begin_action(action)
        # ipykernel 7 finds the cell that a widget's message belongs to in a context variable.
        context = contextvars.copy_context()
        Thread(
            target=context.run, args=(self._run, action, shown[0], widget), name=f"micromegas-{action}", daemon=True
        ).start()

    def _begin(self) -> bool:
        with self._lock:
            was_busy, self._is_busy = self._is_busy, True
        return not was_busy

    def _run(self, action: IdentityAction, settings: ClientSettings, widget: IdentityWidget) -> None:
        error = news = ""
        try:
            news = self._do(action, settings)
        except MicromegasError as failure:
            error = error_lines(failure)[0]
        except Exception as failure:  # noqa: BLE001 - whatever happens, the buttons work again
            _log.error("A button of the identity widget failed.", extra={"kind": type(failure).__name__})
            error = error_lines(InternalError("That did not work."))[0]
        finally:
            with self._lock:
                self._is_busy = False
            widget.end_action(error=error)
            if news:
                widget.notify(news)

    def _do(self, action: IdentityAction, settings: ClientSettings) -> str:
        match action:
            case IdentityAction.SIGN_IN:
                self._sign_in(settings)
            case IdentityAction.SHOW_CODE:
                self._begin_login(settings, FlowPreference(flow=Flow.DEVICE))
            case IdentityAction.CANCEL:
                self._session.sign_in.cancel()
            case IdentityAction.SIGN_OUT:
                report = shown_detail(self._session.logout(settings))
                self._session.shown.change(
                    settings,
                    lambda state: replace(state, detail=report) if state.status is IdentityStatus.SIGNED_OUT else state,
                )
            case IdentityAction.REFRESH:
                is_new = self._session.renew(settings)
                self._session.fetch_identity(settings)
                return "Token renewed, and the server checked." if is_new else "Server checked."
        return ""

    def _sign_in(self, settings: ClientSettings) -> None:
        self._session.connections.allow_sign_in(settings.profile)
        if not has_token(self._session.state):
            try:
                self._session.signed_in(settings)  # another notebook or a terminal may have signed in meanwhile
            except MicromegasError as error:
                if not isinstance(error, LoginRequired) and error.giver is None:
                    raise
            else:
                self._session.fetch_identity(settings)
                return
        self._begin_login(settings, FlowPreference())

    def _begin_login(self, settings: ClientSettings, preference: FlowPreference) -> None:
        choice = self._session.dependencies.choose_flow(settings, _CLICKED_SHELL, preference)
        if choice.flow is Flow.PASTE:
            raise UsageError(
                "The sign-in flow here asks for an address, which a button cannot do.",
                remedy="Run %micromegas_login in a cell.",
            )
        fallbacks = tuple(flow for flow in choice.fallbacks if flow is not Flow.PASTE)
        self._session.sign_in.begin(settings, replace(choice, fallbacks=fallbacks))


class _ClickedKernel:
    """A kernel in whose front end a person has just clicked, so somebody is there to sign in."""

    def get_parent(self, _channel: str) -> Mapping[str, object]:
        """Return what a request of such a front end says."""
        return {"content": {"allow_stdin": True}}


class _ClickedShell:
    """A stand-in for the shell in the choice of a flow: a widget's message does not say that a person is there."""

    kernel = _ClickedKernel()


_CLICKED_SHELL = _ClickedShell()


class IdentityDisplay:
    """Shows the session's state; all cells of a notebook show one widget, so none of them is outdated."""

    def __init__(self, shell: InteractiveShell, session: NotebookSession) -> None:
        self._shell = shell
        self._session = session
        self._buttons = IdentityButtons(session)
        self._widget: IdentityWidget | None = None
        self._offers: list[Handle] = []
        self._handles: deque[Handle] = deque(maxlen=_MAX_HANDLES)

    def show(self, state: IdentityState) -> None:
        """Show the state in this cell."""
        lines = identity_lines(state, now=self._session.dependencies.clock.now())
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
            # Nobody renews it any more, and a sign-in under way is over.
            now = self._session.dependencies.clock.now()
            lines = identity_lines(replace(state, renews=False, offer=None), now=now)
            for handle in self._handles:
                handle.update(_text_bundle(lines), raw=True)
        widget.close()

    def _print(self, state: IdentityState, lines: Sequence[str]) -> None:
        print("\n".join(lines))  # noqa: T201 - a terminal
        if state.offer is None or not sys.stdout.isatty():
            return
        from micromegas_jupyter.auth.flows.base import QR_CAPTION, shows_qr, terminal_qr

        if not shows_qr(process_variables(), encoding=sys.stdout.encoding):
            return
        picture = terminal_qr(state.offer.scan_address, columns=shutil.get_terminal_size().columns)
        if picture:
            print("\n".join([QR_CAPTION, *picture]))  # noqa: T201 - a terminal

    def _show_widget(self, state: IdentityState) -> None:
        from micromegas_jupyter.notebook.login.widget import IdentityWidget

        if self._widget is None:
            self._widget = IdentityWidget(clock=self._session.dependencies.clock, on_press=self._buttons.press)
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
            # The text that is saved beside the widget must not offer a sign-in that is over.
            offers, self._offers = self._offers, []
            for handle in offers:
                handle.update(self._widget)


def _text_bundle(lines: Sequence[str]) -> dict[str, str]:
    return {"text/plain": "\n".join(lines), "text/html": lines_as_html(lines)}
