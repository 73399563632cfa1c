"""The identity widget's kernel half: a state becomes traits, and text and HTML for where widgets do not run.

The browser half (`static/identity.js`) draws and counts down. Widget state is saved inside notebooks: no trait
ever holds a token, a code or a sign-in's state.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from micromegas_jupyter.notebook.identity_state import identity_lines, lines_as_html

if TYPE_CHECKING:
    from micromegas_jupyter.notebook.identity_state import IdentityState
    from micromegas_jupyter.seams import Clock

_STATIC = Path(__file__).parent / "static"


class IdentityWidget(anywidget.AnyWidget):
    """Shows one `IdentityState`.

    `remaining_seconds` is a duration, because the browser's clock and the kernel's differ; `as_of` (the kernel's
    time) changes whenever it was measured anew. `_apply_lock` keeps two threads from mixing two states.

    Args:
        clock: Measures how long a token is still good.
    """

    _esm = _STATIC / "identity.js"
    _css = _STATIC / "identity.css"

    status = traitlets.Unicode("signed_out").tag(sync=True)
    name = traitlets.Unicode("").tag(sync=True)
    email = traitlets.Unicode("").tag(sync=True)
    issuer = traitlets.Unicode("").tag(sync=True)
    server = traitlets.Unicode("").tag(sync=True)
    server_line = traitlets.Unicode("").tag(sync=True)
    detail = traitlets.Unicode("").tag(sync=True)
    start_url = traitlets.Unicode("").tag(sync=True)
    is_admin = traitlets.Bool(default_value=False).tag(sync=True)
    renews = traitlets.Bool(default_value=False).tag(sync=True)
    remaining_seconds = traitlets.Float(None, allow_none=True).tag(sync=True)
    as_of = traitlets.Unicode("").tag(sync=True)

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._apply_lock = Lock()
        self._identity: IdentityState | None = None
        super().__init__()

    def apply(self, state: IdentityState) -> None:
        """Show `state` from now on, in one message to the browser; any thread."""
        now = self._clock.now()
        with self._apply_lock, self.hold_sync():
            self._identity = state
            self.status = state.status.value
            self.name = state.name
            self.email = state.email or ""
            self.issuer = state.issuer
            self.server = state.server
            self.server_line = state.server_line
            self.detail = state.detail
            self.start_url = state.start_url or ""
            self.is_admin = state.is_admin
            self.renews = state.renews
            self.remaining_seconds = state.remaining_seconds(now)
            self.as_of = now.isoformat()

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - ipywidgets' own signature
        """Return the traits for a browser, the remaining time measured anew: a page may be loaded again much later."""
        values: dict[str, Any] = super().get_state(key=key, drop_defaults=drop_defaults)
        if self._identity is not None and "remaining_seconds" in values:
            now = self._clock.now()
            values |= {"remaining_seconds": self._identity.remaining_seconds(now), "as_of": now.isoformat()}
        return values

    def _repr_mimebundle_(self, **options: Any) -> Any:
        shown = super()._repr_mimebundle_(**options)
        if shown is None or self._identity is None:
            return shown
        bundle, metadata = shown
        lines = identity_lines(self._identity, now=self._clock.now())
        html = lines_as_html(lines, link_url=self._identity.start_url)
        return {**bundle, "text/plain": "\n".join(lines), "text/html": html}, metadata
