"""Waits for what clients send: for few at once, for one caller after the other, and for none for ever.

A message takes memory from when it is waited for, up to the size that the client announces, whether it comes or not.
What a message says is the business of whoever waits for it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

from micromegas_jupyter.errors import DeadlineExceeded, ResourcesExhausted
from micromegas_jupyter.flightsql.framing import ParameterLimits
from micromegas_jupyter.server.equal_timers import Deadline, EqualTimers
from micromegas_jupyter.server.fair_slots import CallerKey, FairSlots, SlotLimits

_WAITS: Final = 16
_WAITS_PER_CALLER: Final = 8
_WAITING: Final = 100_000  # as many calls as there may be
_SURE_SECONDS: Final = 5.0
_MOST_BYTES: Final = 1024 * 1024
_VALUES_SECONDS: Final = 300.0
_REST_SECONDS: Final = 5.0
_MAX_REST_BYTES: Final = 16 * 1024 * 1024
_FULL: Final = "As many calls as may, of yours or in all, wait for what their clients send."

Read = Callable[[], Awaitable[bytes | None]]
"""Returns the client's next message, None after its last."""


class Waits:
    """A number of waits that callers share. Belongs to one event loop.

    As long as nobody else wants to wait, one has its full time; then `_SURE_SECONDS`, so that clients that are silent
    keep others out for a moment only.

    Args:
        seconds: How long one waits for its turn, and how long its turn is.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        limits = SlotLimits(
            slots=_WAITS,
            per_caller=_WAITS_PER_CALLER,
            waiting=_WAITING,
            waiting_per_caller=_WAITING,
            wait_seconds=seconds,
        )
        self._slots = FairSlots(limits, limit="calls", what=_FULL)
        self._timers = EqualTimers(seconds)
        self._waits: set[_Wait] = set()

    def has_room(self, caller: CallerKey) -> bool:
        """Whether the caller's turn would come at once."""
        return self._slots.has_room(caller)

    def turn(self, caller: CallerKey) -> "_Wait":
        """Wait for the client in the body of an `async with`.

        Raises:
            DeadlineExceeded: The body took too long.
            ResourcesExhausted: No turn came in time.
        """
        return _Wait(self, caller)

    async def begin(self, wait: "_Wait") -> None:
        """Take the turn of a wait, after those before it."""
        if not self.has_room(wait.caller):
            self._hurry(wait.caller)
        await self._slots.take(wait.caller)
        wait.deadline = Deadline(self._timers, too_late)
        wait.deadline.__enter__()
        wait.began = asyncio.get_running_loop().time()
        self._waits.add(wait)
        if self._slots.waiting_count:
            self._hurry(wait.caller)

    def finish(self, wait: "_Wait") -> None:
        """Give the turn of a wait to the next."""
        self._waits.discard(wait)
        self._slots.give_back(wait.caller)

    def _hurry(self, caller: CallerKey) -> None:
        """Let those who stand in a caller's way have the time that is sure, and no more."""
        is_full = self._slots.taken_count >= _WAITS
        for wait in self._waits:
            if (is_full or wait.caller == caller) and self._seconds > _SURE_SECONDS:
                wait.hurry()


class _Wait:
    """One wait for a client; the body of an `async with`."""

    __slots__ = ("_sooner", "_waits", "began", "caller", "deadline")

    def __init__(self, waits: Waits, caller: CallerKey) -> None:
        self._waits = waits
        self.caller = caller
        self.began = 0.0
        self.deadline: Deadline | None = None
        self._sooner: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        await self._waits.begin(self)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._sooner is not None:
            self._sooner.cancel()
        self._waits.finish(self)
        if self.deadline is not None:
            self.deadline.__exit__(kind, error, traceback)

    def hurry(self) -> None:
        """Let it have the time that is sure, and no more."""
        if self._sooner is None and self.deadline is not None:
            self._sooner = asyncio.get_running_loop().call_at(self.began + _SURE_SECONDS, self.deadline.time_is_over)


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageWaits:
    """The waits of a server for the only message of a call, and for the values of statements.

    Attributes:
        silent_seconds: How long a client may send nothing.
    """

    silent_seconds: float = 60.0
    _messages: Waits = field(init=False, repr=False)
    _values: Waits = field(init=False, repr=False)
    _rests: Waits = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_messages", Waits(self.silent_seconds))
        object.__setattr__(self, "_values", Waits(_VALUES_SECONDS))
        object.__setattr__(self, "_rests", Waits(_REST_SECONDS))

    async def message(self, read: Read, caller: CallerKey) -> bytes | None:
        """Return a call's first message, None when it has none.

        Raises:
            DeadlineExceeded: It did not come in time.
            ResourcesExhausted: It is too large, or too many others are waited for.
        """
        async with self._messages.turn(caller):
            message = await read()
        if message is not None and len(message) > _MOST_BYTES:
            raise ResourcesExhausted(
                "The call's message is larger than 1 MiB.", remedy="Send rows and values in messages of their own."
            )
        return message

    async def values(self, first: bytes, read: Read, caller: CallerKey, *, limits: ParameterLimits) -> list[bytes]:
        """Return all messages of a stream of values, of which `first` is here, no further than `limits` say.

        Raises:
            DeadlineExceeded: One did not come in time, or all of them.
            ResourcesExhausted: They are too large, or too many others are waited for.
        """
        frames, size = [first], len(first)
        async with self._values.turn(caller):
            while (frame := await self._next(read)) is not None:
                frames.append(frame)
                size += len(frame)
                if size > limits.max_bytes or len(frames) > limits.max_messages:
                    raise ResourcesExhausted(
                        "The parameters are larger than this server takes.", remedy="Bind fewer values."
                    )
        return frames

    async def rest(self, read: Read, caller: CallerKey) -> None:
        """Throw away what else a client sends, for a bounded time, unless that is done for others already."""
        size = 0
        if self._rests.has_room(caller):
            with contextlib.suppress(DeadlineExceeded):
                async with self._rests.turn(caller):
                    while size <= _MAX_REST_BYTES and (message := await read()) is not None:
                        size += len(message)

    async def _next(self, read: Read) -> bytes | None:
        try:
            async with asyncio.timeout(self.silent_seconds) as scope:
                return await read()
        except TimeoutError:
            if not scope.expired():
                raise
            raise too_late() from None


def too_late() -> DeadlineExceeded:
    """Return the error of a call whose client is silent, or too slow."""
    return DeadlineExceeded(
        "The call's message did not come in time.", remedy="Call again over a better connection.", limit="silent_client"
    )
