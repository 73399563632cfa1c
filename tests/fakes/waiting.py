"""Waits for what no event tells: that something has become true."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.core.system import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.005


def wait_until(holds, what, *, seconds=DEADLINE_SECONDS):
    deadline = SYSTEM_CLOCK.monotonic() + seconds
    pause = threading.Event()
    while not holds():
        assert SYSTEM_CLOCK.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        pause.wait(_LOOK_SECONDS)


async def until(holds, what, *, seconds=DEADLINE_SECONDS):
    deadline = SYSTEM_CLOCK.monotonic() + seconds
    while not holds():
        assert SYSTEM_CLOCK.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(_LOOK_SECONDS)


class FakeBackground:
    """Keeps what is started in the background until the test lets it run."""

    def __init__(self):
        self.waiting: list[Callable[[], None]] = []

    def start(self, work):
        self.waiting.append(work)

    def run(self):
        while self.waiting:
            self.waiting.pop(0)()
