"""Memory that the programs of a chaos run share: the time, and what each thread has seen."""

from __future__ import annotations

import enum
import mmap
from datetime import UTC, datetime, timedelta

from micromegas_jupyter.core.system import SYSTEM_CLOCK

START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
THREAD_COUNT = 4

_CELL_BYTES = 8
_CELL_COUNT = 512


class Phase(enum.IntEnum):
    """Points of a renewal at which a program can be told to kill itself; 0 means at none."""

    NONE = 0
    LOCKED = 1  # it holds the lock and has done nothing yet
    SENDING = 2  # it is about to send the refresh token
    ANSWERED = 3  # it has the new tokens in memory only
    WRITING = 4  # it has written a neighbour of the token file, which is not renamed yet
    SAVED = 5  # the file is in place and the lock still held


class Seen(enum.IntEnum):
    """What each thread keeps on the board."""

    GENERATION = 0  # of the newest token that it was given
    CALLS = 1
    LOGOUTS = 2  # how often it was told to sign in
    FAILURES = 3  # how often it was told something else
    ENDED = 4  # how often it was given a token that had ended
    SAVED = 5  # the newest generation that its program has stored; in the first thread's cells only


class Board:
    """A file of numbers, mapped into memory; each cell has one writer at a time."""

    def __init__(self, path):
        if not path.exists():
            path.write_bytes(bytes(_CELL_COUNT * _CELL_BYTES))
        with path.open("r+b") as file:
            self._memory = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")

    @property
    def now(self):
        return START + timedelta(microseconds=self._memory[0])

    def move_to(self, moment):
        self._memory[0] = max(self._memory[0], (moment - START) // timedelta(microseconds=1))

    @property
    def dies_at(self):
        return Phase(self._memory[1])

    @dies_at.setter
    def dies_at(self, phase):
        self._memory[1] = phase

    def get(self, worker, thread, what):
        return self._memory[self._cell(worker, thread, what)]

    def set(self, worker, thread, what, value):
        self._memory[self._cell(worker, thread, what)] = value

    def add(self, worker, thread, what):
        self._memory[self._cell(worker, thread, what)] += 1

    @staticmethod
    def _cell(worker, thread, what):
        return 8 + (worker * THREAD_COUNT + thread) * len(Seen) + what


class BoardClock:
    """Implements `seams.Clock`: the board's time, and real seconds for pauses."""

    def __init__(self, board):
        self._board = board

    def now(self):
        return self._board.now

    def monotonic(self):
        return SYSTEM_CLOCK.monotonic()
