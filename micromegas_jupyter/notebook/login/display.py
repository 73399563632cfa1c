"""Shows the state of the sign-in (as a card, or as text where nobody watches), and handles the card's buttons."""

import logging
import shutil
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from threading import Lock
from types import SimpleNamespace
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from micromegas_jupyter.config.client import ClientSettings, Flow
from micromegas_jupyter.core.system import process_variables
from micromegas_jupyter.errors import InternalError, LoginRequired, MicromegasError
from micromegas_jupyter.notebook.login.card import IdentityCard
from micromegas_jupyter.notebook.login.session import NotebookSession
from micromegas_jupyter.notebook.login.state import (
    IdentityAction,
    IdentityState,
    IdentityStatus,
    accepted_actions,
    identity_lines,
    lines_as_html,
    shown_detail,
)
from micromegas_jupyter.notebook.shell import (
    Handle,
    display,
    error_lines,
    has_kernel,
    is_attended,
    new_display_handle,
    start_thread,
)

TOO_LATE = "Nothing was done, because the sign-in has changed meanwhile."
_log = logging.getLogger(__name__)
_MAX_HANDLES = 64
# It stands in for the shell in the choice of a flow: a card's message does not say that a person is there.
_CLICKED_SHELL = SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda _: {"content": {"allow_stdin": True}}))


class IdentityButtons:
    """Handles one button at a time, on a thread: a card's message must not block the kernel."""

    def __init__(self, session: NotebookSession) -> None:
        self._session = session
        self._busy = Lock()

    def press(self, action: IdentityAction, card: IdentityCard) -> None:
        """Begin a button's action, and return at once; the person is notified when the button came too late."""
        shown = self._session.shown.shown
        if shown is None or action not in accepted_actions(shown[1]) or not self._busy.acquire(blocking=False):
            card.send_address(TOO_LATE)
            return
        if action is IdentityAction.SIGN_IN and self._session.sign_in.is_pending(shown[0]):
            self._busy.release()
            card.send_address()  # a page that was loaded again asked for it too late
            return
        card.begin_action(action)
        start_thread(self._run, action, shown[0], card, name=f"micromegas-{action}")

    def _run(self, action: IdentityAction, settings: ClientSettings, card: IdentityCard) -> None:
        error = news = ""
        try:
            news = self._do(action, settings)
        except MicromegasError as failure:
            error = error_lines(failure)[0]
        except Exception as failure:  # noqa: BLE001 - whatever happens, the buttons work again
            _log.error("A button of the sign-in card failed.", extra={"kind": type(failure).__name__})
            error = error_lines(InternalError("That did not work."))[0]
        finally:
            self._busy.release()
            card.end_action(error=error, news=news)

    def _do(self, action: IdentityAction, settings: ClientSettings) -> str:
        session = self._session
        match action:
            case IdentityAction.SIGN_IN:
                self._sign_in(settings)
            case IdentityAction.SHOW_CODE:
                session.begin_sign_in(settings, _CLICKED_SHELL, Flow.DEVICE)
            case IdentityAction.CANCEL:
                session.sign_in.cancel()
            case IdentityAction.SIGN_OUT:
                report = shown_detail(session.logout(settings))
                session.shown.change(
                    settings,
                    lambda state: replace(state, detail=report) if state.status is IdentityStatus.SIGNED_OUT else state,
                )
            case IdentityAction.REFRESH:
                is_new = session.renew(settings)
                session.fetch_identity(settings)
                return "Token renewed, and the server checked." if is_new else "Server checked."
        return ""

    def _sign_in(self, settings: ClientSettings) -> None:
        session = self._session
        session.connections.signed_out.discard(settings.profile)
        if session.state is None or not session.state.has_token:
            try:
                session.signed_in(settings)  # another notebook or a terminal may have signed in meanwhile
            except MicromegasError as error:
                if not isinstance(error, LoginRequired) and error.giver is None:
                    raise
            else:
                session.fetch_identity(settings)
                return
        session.begin_sign_in(settings, _CLICKED_SHELL)


class IdentityDisplay:
    """Shows the session's state; all cells of a notebook show one card, so none of them is outdated."""

    def __init__(self, shell: InteractiveShell, session: NotebookSession) -> None:
        self._shell = shell
        self._session = session
        self._buttons = IdentityButtons(session)
        self._card: IdentityCard | None = None
        self._offers: list[Handle] = []
        self._handles: deque[Handle] = deque(maxlen=_MAX_HANDLES)

    def show(self, state: IdentityState) -> None:
        """Show the state in this cell."""
        lines = identity_lines(state, now=self._session.dependencies.clock.now())
        if not has_kernel(self._shell):
            print("\n".join(lines))  # noqa: T201 - a terminal
            self._print_qr(state)
        elif not is_attended(self._shell):
            # A saved notebook that nobody watched would keep a countdown that ended long ago.
            display(_text_bundle(lines), raw=True)
        else:
            card, handle = self._current_card(state), new_display_handle()
            handle.display(card)
            self._handles.append(handle)
            if state.status is IdentityStatus.WAITING:
                self._offers.append(handle)

    def notice(self, state: IdentityState) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what a cell shows that waits for a sign-in: the card's MIME bundle and its metadata."""
        bundle, metadata = self._current_card(state)._repr_mimebundle_()
        return bundle, metadata

    def send_address(self) -> None:
        """Send open pages the address to sign in at once more."""
        if self._card is not None:
            self._card.send_address()

    def close(self) -> None:
        """Put text in place of the card in all cells: without its kernel a widget cannot be shown again."""
        card, self._card = self._card, None
        if card is None:
            return
        state = self._session.state
        if state is not None:
            # Nobody renews it any more, and a sign-in under way is over.
            now = self._session.dependencies.clock.now()
            lines = identity_lines(replace(state, renews=False, offer=None), now=now)
            for handle in self._handles:
                handle.update(_text_bundle(lines), raw=True)
        card.close()

    def _print_qr(self, state: IdentityState) -> None:
        if state.offer is None or not sys.stdout.isatty():
            return
        from micromegas_jupyter.auth.flows.base import QR_CAPTION, shows_qr, terminal_qr

        if not shows_qr(process_variables(), encoding=sys.stdout.encoding):
            return
        picture = terminal_qr(state.offer.scan_address, columns=shutil.get_terminal_size().columns)
        if picture:
            print("\n".join([QR_CAPTION, *picture]))  # noqa: T201 - a terminal

    def _current_card(self, state: IdentityState) -> IdentityCard:
        """Return the card, which shows the state; the first cell that shows it makes it."""
        if self._card is None:
            self._card = IdentityCard(clock=self._session.dependencies.clock, on_press=self._buttons.press)
            self._session.shown.listener = self._follow
        self._card.apply(state)
        return self._card

    def _follow(self, state: IdentityState) -> None:
        if self._card is None:
            return
        self._card.apply(state)
        if state.status is not IdentityStatus.WAITING:
            # The text that is saved beside the card must not offer a sign-in that is over.
            offers, self._offers = self._offers, []
            for handle in offers:
                handle.update(self._card)


def _text_bundle(lines: Sequence[str]) -> dict[str, str]:
    return {"text/plain": "\n".join(lines), "text/html": lines_as_html(lines)}
