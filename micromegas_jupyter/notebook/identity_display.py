"""Shows who is signed in: a widget where a person looks at a notebook, plain text or HTML elsewhere."""

from __future__ import annotations

import shutil
import sys
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from micromegas_jupyter.notebook.identity_buttons import IdentityButtons
from micromegas_jupyter.notebook.identity_state import IdentityStatus, identity_lines, lines_as_html
from micromegas_jupyter.notebook.ipython_names import display, new_display_handle
from micromegas_jupyter.notebook.surroundings import has_kernel, is_attended
from micromegas_jupyter.redirect.terminal_qr import QR_CAPTION, shows_qr, terminal_qr
from micromegas_jupyter.seams import process_variables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.notebook.identity_state import IdentityState
    from micromegas_jupyter.notebook.identity_widget import IdentityWidget
    from micromegas_jupyter.notebook.ipython_names import Handle
    from micromegas_jupyter.notebook.session import NotebookSession


_MAX_HANDLES = 64


class IdentityDisplay:
    """Shows the session's state; all cells of a notebook show one widget, so none of them goes stale.

    Args:
        shell: Where the magics run.
        session: Whose state it is.
    """

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
        from micromegas_jupyter.notebook.identity_widget import IdentityWidget

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
