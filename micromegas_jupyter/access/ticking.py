"""A thread that does one thing again and again until it is told to stop.

What is done is the caller's choice.
"""

import logging
import threading
from collections.abc import Callable

from micromegas_jupyter.access.audit import record_event

_STOP_SECONDS = 10.0


class Ticker:
    """Calls `tick` every `interval_seconds`; never keeps the process alive, and survives whatever `tick` raises.

    The same kind of failure again and again is told once.
    """

    def __init__(self, tick: Callable[[], None], *, interval_seconds: float, name: str) -> None:
        self._tick = tick
        self._interval_seconds = interval_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; the first call comes after one interval."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait a bounded time for a call under way; safe to call twice, and from `tick` itself."""
        self._stopping.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        told: str | None = None
        while not self._stopping.wait(self._interval_seconds):
            try:
                self._tick()
                told = None
            except Exception as error:  # noqa: BLE001 - a defect in one round must not end the rounds
                kind = type(error).__name__
                if kind != told:
                    record_event(logging.ERROR, "Looking for changes failed.", kind=kind)
                told = kind
