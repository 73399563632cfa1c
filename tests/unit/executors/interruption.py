"""Interrupts a coroutine at one of the places where it waits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator


class Interrupted:
    """Awaits a coroutine, and calls a function when it waits for the n-th time.

    Args:
        work: The coroutine.
        at: When to interrupt it, counted from 1.
        interrupt: What is done then.
        is_late: Whether it is done when that wait is over, but before the coroutine has noticed.
        on_wait: Called at each wait with the names of the functions that wait, the outermost first.

    Attributes:
        waits: How often it has waited.
        place: The names of the functions that waited when it was interrupted; empty when it was not.
    """

    def __init__(
        self,
        work: Coroutine[Any, Any, Any],
        *,
        at: int,
        interrupt: Callable[[], object],
        is_late: bool = False,
        on_wait: Callable[[tuple[str, ...]], object] = lambda _: None,
    ) -> None:
        self._work: Any = work
        self._at = at
        self._interrupt = interrupt
        self._is_late = is_late
        self._on_wait = on_wait
        self.waits = 0
        self.place: tuple[str, ...] = ()

    def __await__(self) -> Generator[Any, Any, Any]:
        error: BaseException | None = None
        while True:
            try:
                waited_for = self._work.send(None) if error is None else self._work.throw(error)
            except StopIteration as end:
                return end.value
            self.waits += 1
            place = _find_place(self._work)
            if self.waits == self._at:
                self.place = place
                if self._is_late and asyncio.isfuture(waited_for):
                    # Before the task's own callback, which is added when this generator yields.
                    waited_for.add_done_callback(lambda _: self._interrupt())
                else:
                    self._interrupt()
            self._on_wait(place)
            error = None
            try:
                yield waited_for
            except BaseException as raised:  # noqa: BLE001 - it is the coroutine's to handle
                error = raised


def _find_place(work: Any) -> tuple[str, ...]:
    names = []
    while hasattr(work, "cr_code"):
        names.append(work.cr_code.co_name)
        work = work.cr_await
    return tuple(names)
