"""A program of a chaos run: four threads that ask for a token all the time, until the process is killed."""

import base64
import enum
import json
import mmap
import os
import signal
import threading
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from micromegas_jupyter.auth import OidcAuthProvider
from micromegas_jupyter.auth.tokens.store import LOCK_WAIT_SECONDS, FileTokenStore
from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import LoginRequired, MicromegasError
from tests.fakes.rotating_provider import RECEIVER_HEADER

START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
THREAD_COUNT = 4
PAUSE_SECONDS = 0.05

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

    def __getitem__(self, cell):
        return self._memory[self._number_of(*cell)]

    def __setitem__(self, cell, value):
        self._memory[self._number_of(*cell)] = value

    @staticmethod
    def _number_of(worker, thread, what):
        return 8 + (worker * THREAD_COUNT + thread) * len(Seen) + what


class BoardClock:
    """A clock that shows the board's time, and real seconds for pauses."""

    def __init__(self, board):
        self.now = lambda: board.now
        self.monotonic = SYSTEM_CLOCK.monotonic


def read_id_token(token):
    """Return a token's generation and its end."""
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims["generation"], datetime.fromtimestamp(claims["exp"], UTC)


def run(*, worker, name, issuer, token_path, board_path):
    """Ask for tokens for ever."""
    board = Board(board_path)
    store, calls = _MortalStore(token_path, worker, board), _MortalCalls(name, board)
    provider = OidcAuthProvider(issuer, "notebook", store=store, http=calls, clock=BoardClock(board))

    def ask_forever(thread):
        never = threading.Event()
        while not never.wait(PAUSE_SECONDS):
            began_at = board.now
            try:
                generation, ends_at = read_id_token(provider.get_token())
            except LoginRequired:
                board[worker, thread, Seen.LOGOUTS] += 1
            except MicromegasError:
                board[worker, thread, Seen.FAILURES] += 1
            else:
                if ends_at <= began_at:
                    board[worker, thread, Seen.ENDED] += 1
                board[worker, thread, Seen.GENERATION] = generation
            board[worker, thread, Seen.CALLS] += 1

    for thread in range(1, THREAD_COUNT):
        threading.Thread(target=ask_forever, args=(thread,), daemon=True).start()
    ask_forever(0)


def _die_if_told(board, phase):
    # Each phase is reached under the store's lock, so no two programs get here at once.
    if board.dies_at is phase:
        board.dies_at = Phase.NONE
        os.kill(os.getpid(), signal.SIGKILL)


class _MortalCalls(ProviderHttp):
    """Says who calls, and dies around the call when it is told to.

    The time of an answer is left out: the test's clock jumps while calls are on their way, which no real one does.
    """

    def __init__(self, name, board):
        super().__init__()
        self._name, self._board = name, board

    def fetch_json(self, url, *, headers=None, refuses_private=False):
        return replace(super().fetch_json(url, headers=headers, refuses_private=refuses_private), date=None)

    def post_form(self, url, fields, *, headers=None, needs_body=True):
        _die_if_told(self._board, Phase.SENDING)
        named = {**(headers or {}), RECEIVER_HEADER: self._name}
        answer = super().post_form(url, fields, headers=named, needs_body=needs_body)
        _die_if_told(self._board, Phase.ANSWERED)
        return replace(answer, date=None)


class _MortalStore(FileTokenStore):
    """Dies under the lock, while writing or after it when it is told to."""

    def __init__(self, path, worker, board):
        super().__init__(path)
        self._worker, self._board = worker, board
        self._fsync = os.fsync
        os.fsync = self._sync  # this process writes nothing but the token file

    @contextmanager
    def locked(self, *, wait_seconds=LOCK_WAIT_SECONDS):
        with super().locked(wait_seconds=wait_seconds):
            _die_if_told(self._board, Phase.LOCKED)
            yield

    def save(self, login):
        mark = super().save(login)
        if login.tokens.id_token is not None:
            generation, _ = read_id_token(login.tokens.id_token.reveal())
            self._board[self._worker, 0, Seen.SAVED] = generation
        _die_if_told(self._board, Phase.SAVED)
        return mark

    def _sync(self, descriptor):
        _die_if_told(self._board, Phase.WRITING)
        self._fsync(descriptor)
