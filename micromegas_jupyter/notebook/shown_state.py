"""What is shown about a sign-in, and who is told when it changes; what it should be is the session's job."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from micromegas_jupyter.notebook.identity_state import IdentityState
    from micromegas_jupyter.settings import ClientSettings


class ShownState:
    """The state of the settings that were last asked about.

    `_lock` guards `_shown` and `_listeners` and is free while listeners are told. `_telling` is held while they
    are, so that the last that each hears is the newest.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._telling = Lock()
        self._shown: tuple[ClientSettings, IdentityState] | None = None
        self._listeners: list[Callable[[IdentityState], None]] = []

    @property
    def state(self) -> IdentityState | None:
        """What is shown; None before anything was asked."""
        shown = self.shown
        return None if shown is None else shown[1]

    @property
    def shown(self) -> tuple[ClientSettings, IdentityState] | None:
        """What is shown, and about which settings; None before anything was asked."""
        with self._lock:
            return self._shown

    def subscribe(self, listener: Callable[[IdentityState], None]) -> None:
        """Have `listener` told of every change; it may be called on another thread."""
        with self._lock:
            self._listeners.append(listener)

    def show(self, settings: ClientSettings, state: IdentityState) -> IdentityState:
        """Show `state` of these settings from now on, and return it."""
        with self._lock:
            self._shown = (settings, state)
        self._tell()
        return state

    def change(self, settings: ClientSettings, change: Callable[[IdentityState], IdentityState]) -> None:
        """Change what is shown, in one step, when it is about these settings; nothing is told when all stays."""
        with self._lock:
            if self._shown is None or self._shown[0] != settings:
                return
            changed = change(self._shown[1])
            if changed == self._shown[1]:
                return
            self._shown = (settings, changed)
        self._tell()

    def _tell(self) -> None:
        with self._telling:
            with self._lock:
                listeners = list(self._listeners)
                state = None if self._shown is None else self._shown[1]
            if state is not None:
                for listener in listeners:
                    listener(state)
