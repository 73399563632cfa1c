"""The line under an offer to sign in that says how long it still holds; rewritten in place each second.

What is offered is `sign_in_terminal`'s business.
"""

import threading
from datetime import datetime
from typing import TextIO

from micromegas_jupyter.seams import Clock

_TICK_SECONDS = 1.0
_CLEAR_LINE = "\r\x1b[K"


class Countdown:
    """Writes the line from a thread of its own until it is stopped, then takes it away.

    Args:
        stream: A terminal that can rewrite a line.
        expires_at: When the offer ends (aware UTC).
        clock: Tells the time.
    """

    def __init__(self, stream: TextIO, *, expires_at: datetime, clock: Clock) -> None:
        self._stream = stream
        self._expires_at = expires_at
        self._clock = clock
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="micromegas-countdown", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End and take the line away; safe to call twice."""
        self._stopped.set()
        self._thread.join(_TICK_SECONDS)

    def _run(self) -> None:
        try:
            while True:
                self._write(f"{_CLEAR_LINE}{waiting_line(self._expires_at, self._clock.now())}")
                if self._stopped.wait(_TICK_SECONDS):
                    break
            self._write(_CLEAR_LINE)
        except (OSError, ValueError):
            return  # the terminal is gone, and with it whoever would read this

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def waiting_line(expires_at: datetime, now: datetime) -> str:
    """Return how long an offer to sign in still holds, as `9:41`."""
    seconds = max(int((expires_at - now).total_seconds()), 0)
    return f"Waiting for you to sign in; {seconds // 60}:{seconds % 60:02d} left."
