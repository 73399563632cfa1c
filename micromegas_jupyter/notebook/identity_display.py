"""Shows who is signed in: a widget where a person looks at a notebook, plain text or HTML elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from micromegas_jupyter.notebook.identity_state import IdentityStatus, identity_lines, lines_as_html
from micromegas_jupyter.notebook.ipython_names import display, new_display_handle
from micromegas_jupyter.notebook.surroundings import has_kernel, is_attended

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from micromegas_jupyter.notebook.identity_state import IdentityState
    from micromegas_jupyter.notebook.identity_widget import IdentityWidget
    from micromegas_jupyter.notebook.ipython_names import Handle
    from micromegas_jupyter.notebook.session import NotebookSession


class IdentityDisplay:
    """Shows the session's state; all cells of a notebook show one widget, so none of them goes stale.

    Args:
        shell: Where the magics run.
        session: Whose state it is.
    """

    def __init__(self, shell: InteractiveShell, session: NotebookSession) -> None:
        self._shell = shell
        self._session = session
        self._widget: IdentityWidget | None = None
        self._offers: list[Handle] = []

    def show(self, state: IdentityState) -> None:
        """Show the state in this cell."""
        now = self._session.parts.clock.now()
        lines = identity_lines(state, now=now)
        if not has_kernel(self._shell):
            print("\n".join(lines))  # noqa: T201 - a terminal
        elif not is_attended(self._shell):
            # A saved notebook that nobody watched would keep a countdown that ended long ago.
            display({"text/plain": "\n".join(lines), "text/html": lines_as_html(lines)}, raw=True)
        else:
            self._show_widget(state)

    def close(self) -> None:
        """Take the widget out of all cells."""
        if self._widget is not None:
            self._widget.close()
            self._widget = None

    def _show_widget(self, state: IdentityState) -> None:
        from micromegas_jupyter.notebook.identity_widget import IdentityWidget

        if self._widget is None:
            self._widget = IdentityWidget(clock=self._session.parts.clock)
            self._session.subscribe(self._follow)
        self._widget.apply(state)
        handle = new_display_handle()
        handle.display(self._widget)
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
