"""Protocols for the outside world and their real versions: clock, browser, randomness.

Nothing else in the package reads a clock or draws a random number, so a test can stand in for any of them.
"""

import secrets
import time
import webbrowser
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start that never run backwards; for deadlines and durations."""
        ...


class Browser(Protocol):
    """Shows a page to the person."""

    def open(self, url: str) -> bool:
        """Open `url` in the person's own browser; False when there is none. Returns at once."""
        ...


class Randomness(Protocol):
    """Draws unguessable text."""

    def token_urlsafe(self, nbytes: int) -> str:
        """Return `nbytes` random bytes as unpadded base64url text."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return the machine's monotonic seconds."""
        return time.monotonic()


class SystemBrowser:
    """The person's default browser."""

    def open(self, url: str) -> bool:
        """Open `url` in a new tab of the default browser; False when none can be started."""
        try:
            return webbrowser.open(url, new=2)
        except (webbrowser.Error, OSError):
            return False


class SystemRandomness:
    """The operating system's random source."""

    def token_urlsafe(self, nbytes: int) -> str:
        """Return `nbytes` bytes of the operating system's randomness as base64url text."""
        return secrets.token_urlsafe(nbytes)


SYSTEM_CLOCK = SystemClock()
SYSTEM_BROWSER = SystemBrowser()
SYSTEM_RANDOMNESS = SystemRandomness()
