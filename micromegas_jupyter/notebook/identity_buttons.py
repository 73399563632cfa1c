"""Does what a person asked for by a button of the identity widget, beside the cells and one thing at a time.

What happens to the sign-in is the session's; which buttons there are is `identity_actions`'.
"""

from __future__ import annotations

import contextvars
import logging
from dataclasses import replace
from threading import Lock, Thread
from typing import TYPE_CHECKING, Protocol

from micromegas_jupyter.errors import InternalError, LoginRequired, MicromegasError, UsageError
from micromegas_jupyter.notebook.error_lines import error_lines
from micromegas_jupyter.notebook.identity_actions import IdentityAction, accepted_actions
from micromegas_jupyter.notebook.identity_renewal import renew_now
from micromegas_jupyter.notebook.identity_state import IdentityStatus
from micromegas_jupyter.notebook.parts import FlowWish
from micromegas_jupyter.notebook.session_states import has_token, shown_detail
from micromegas_jupyter.settings import Flow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from micromegas_jupyter.notebook.session import NotebookSession
    from micromegas_jupyter.settings import ClientSettings

TOO_LATE = "Not done: things have changed meanwhile."

_log = logging.getLogger(__name__)


class Board(Protocol):
    """Where it is shown that something is being done, and what became of it."""

    def begin_action(self, action: IdentityAction) -> None:
        """Show that this is being done."""
        ...

    def end_action(self, *, error: str = "") -> None:
        """Show that it is done, or with an error's line that it is not."""
        ...

    def tell(self, news: str) -> None:
        """Show a sentence that is of interest for a moment."""
        ...


class IdentityButtons:
    """Does one thing at a time, on a thread of its own: a widget's message must not keep the kernel.

    `_lock` guards `_is_working` and is free while something is done.

    Args:
        session: Whose sign-in it is.
    """

    def __init__(self, session: NotebookSession) -> None:
        self._session = session
        self._lock = Lock()
        self._is_working = False

    def press(self, action: IdentityAction, board: Board) -> None:
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

    def _work(self, action: IdentityAction, settings: ClientSettings, board: Board) -> None:
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
                self._session.cancel_login()
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
                self._session.begin_login(
                    settings, flow, reason=reason, stands_in=chosen.flow is Flow.HUB and flow is not Flow.HUB
                )
            except MicromegasError as error:
                if error.giver is None or not flows:
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
