"""Waits for what no event tells: that something has become true."""

import asyncio
import threading

from micromegas_jupyter.core.system import SYSTEM_CLOCK

DEADLINE_SECONDS = 60.0
_LOOK_SECONDS, _MAX_LOOK_SECONDS = 0.005, 0.1
_MAX_DELAY = 1 / 8


def wait_until(look, what, *, seconds=DEADLINE_SECONDS, pause_seconds=_LOOK_SECONDS):
    """Return what is looked for, as soon as it is there or true.

    Many looks are queries, or read all of /proc: during a long wait they become less frequent, down to ten per second.
    The wait takes an eighth longer at most.
    """
    began_at = SYSTEM_CLOCK.monotonic()
    pause = threading.Event()
    while not (found := look()):
        waited_seconds = SYSTEM_CLOCK.monotonic() - began_at
        assert waited_seconds < seconds, f"not within {seconds:g} s: {what}"
        pause.wait(max(pause_seconds, min(waited_seconds * _MAX_DELAY, _MAX_LOOK_SECONDS)))
    return found


async def until(holds, what, *, seconds=DEADLINE_SECONDS):
    deadline = SYSTEM_CLOCK.monotonic() + seconds
    while not holds():
        assert SYSTEM_CLOCK.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(_LOOK_SECONDS)


class FakeBackground:
    """Keeps what is started in the background until the test lets it run."""

    def __init__(self):
        self.waiting = []

    def start(self, work):
        self.waiting.append(work)

    def run(self):
        while self.waiting:
            self.waiting.pop(0)()
