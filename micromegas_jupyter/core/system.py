"""Replaceable interfaces to the machine's resources, and types for secret values."""

import contextvars
import os
import queue
import random
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol, TypeVar

_HOURS_OF_TWO_DAYS: Final = 48


class Clock(Protocol):
    """A source of the current time."""

    def now(self) -> datetime:
        """Return the current time as an aware UTC time."""

    def monotonic(self) -> float:
        """Return monotonic seconds from an arbitrary starting point, for deadlines and durations."""


class Browser(Protocol):
    """Shows a page to the user."""

    def open(self, url: str) -> bool:
        """Open `url` in the user's browser without waiting; return False if there is no browser."""


class Randomness(Protocol):
    """Generates unguessable strings."""

    def token_urlsafe(self, nbytes: int) -> str:
        """Return `nbytes` random bytes as an unpadded base64url string."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        return datetime.now(UTC)

    #: Returns monotonic seconds from the machine's clock.
    monotonic = staticmethod(time.monotonic)


class SystemBrowser:
    """The user's default browser."""

    def open(self, url: str) -> bool:
        """Open `url` in a new tab of the default browser; return False if no browser can be started."""
        import webbrowser  # most programs don't need it

        try:
            return webbrowser.open(url, new=2)
        except (webbrowser.Error, OSError):
            return False


def jitter() -> float:
    """Return a random number from 0 to 1, for spreading out simultaneous callers."""
    return random.random()  # noqa: S311 - it isn't a secret


class Variables(dict[str, str]):
    """Environment variables that are safe in verbose tracebacks, where only their names are shown."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Variables({', '.join(self)})"

    __str__ = __repr__


def process_variables(environ: Mapping[str, str] | None = None) -> Mapping[str, str]:
    """Return this process's current environment variables, or the given ones."""
    return environ if isinstance(environ, Variables) else Variables(os.environ if environ is None else environ)


def duration_text(duration: timedelta) -> str:
    """Return a duration as a string: `45 s`, `58 min`, `10 h 4 min`, `3 days`."""
    minutes, seconds = divmod(max(int(duration.total_seconds()), 0), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= _HOURS_OF_TWO_DAYS:
        return f"{hours // 24} days"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{seconds} s"


SYSTEM_CLOCK = SystemClock()
SYSTEM_BROWSER = SystemBrowser()
SYSTEM_RANDOMNESS: Randomness = secrets  # the operating system's random source


# On some platforms, Ctrl-C is delivered only between two waits.
WAIT_SLICE_SECONDS: Final = 0.2

T = TypeVar("T")


def start_thread(target: Callable[..., object], *arguments: object, name: str) -> threading.Thread:
    """Start a daemon thread in a copy of the caller's context, which ipykernel uses to assign output to a cell."""
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(target, *arguments), name=name, daemon=True)
    thread.start()
    return thread


def run_interruptibly(work: Callable[[], T]) -> T:
    """Run `work`, which has a deadline, on another thread; Ctrl-C returns immediately while the thread finishes."""
    # Ctrl-C interrupts waiting on a `SimpleQueue` only at its timeout.
    outcome: queue.Queue[tuple[T, None] | tuple[None, BaseException]] = queue.Queue()

    def run() -> None:
        try:
            outcome.put((work(), None))
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread
            outcome.put((None, error))

    start_thread(run, name="micromegas-call")
    while True:
        try:
            result, error = outcome.get(timeout=WAIT_SLICE_SECONDS)
        except queue.Empty:
            continue
        if error is not None:
            raise error
        return result  # type: ignore[return-value] # the pair has a result unless it has an error


class Secret:
    """A string that must not be shown: its `str` and `repr` are a placeholder, and it cannot be pickled."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the string itself; call this only where it is sent to its destination."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> str:
        raise TypeError("a secret cannot be pickled")


class HiddenText(str):
    """A secret string for functions that require a plain string; verbose tracebacks don't show it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "HiddenText(***)"


class HiddenBytes(bytes):
    """Secret bytes, like `HiddenText`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "HiddenBytes(***)"

    __str__ = __repr__


def hide_texts(pairs: Mapping[Any, Any] | Iterable[Any]) -> list[Any]:
    """Return pairs with values that verbose tracebacks don't show; anything other than pairs becomes `[()]`."""
    with suppress(TypeError, ValueError):
        return [(key, _hide(value)) for key, value in (pairs.items() if isinstance(pairs, Mapping) else pairs)]
    return [()]


def _hide(value: object) -> object:
    if isinstance(value, str):
        return HiddenText(value)
    return HiddenBytes(value) if isinstance(value, bytes) else value


class SecretObject(dict[str, object]):
    """A JSON object that may contain tokens: its `str` and `repr` are a placeholder, and it cannot be pickled."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "SecretObject(***)"

    __str__ = __repr__

    def __reduce__(self) -> str:
        raise TypeError("a secret cannot be pickled")


def secret_object(value: object) -> SecretObject | None:
    """Return a decoded JSON object with a hidden repr, or None for anything else."""
    return SecretObject(value) if isinstance(value, dict) else None


def keep_pandas_out() -> None:
    """Prevent this process from loading pandas, which accounts for half of the time and memory of a server's imports.

    pyarrow would load it with the first array. A process that has already loaded either of them is unchanged.
    """
    if sys.modules.keys().isdisjoint({"pandas", "pyarrow"}):
        sys.modules["pandas"] = None  # type: ignore[assignment] # as `import` documents it
        import pyarrow as pa

        with suppress(AttributeError):  # pyarrow 23 fails when it first looks for pandas, and then remembers the result
            pa.scalar(0)
