"""A program of a chaos run: four threads that ask for a token all the time, until the process is killed."""

from __future__ import annotations

import base64
import json
import os
import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from micromegas_jupyter.auth import OidcAuthProvider
from micromegas_jupyter.auth.tokens.store import LOCK_WAIT_SECONDS, FileTokenStore
from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.errors import LoginRequired, MicromegasError
from tests.fakes.rotating_provider import RECEIVER_HEADER
from tests.integration.auth.chaos_board import THREAD_COUNT, Board, BoardClock, Phase, Seen

PAUSE_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a program is told when it is started."""

    worker: int
    name: str
    issuer: str
    token_path: str
    board_path: str


def read_id_token(token):
    """Return a token's generation and its end."""
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims["generation"], datetime.fromtimestamp(claims["exp"], UTC)


def run(plan):
    """Ask for tokens for ever."""
    worker = _Worker(plan)
    for thread in range(1, THREAD_COUNT):
        threading.Thread(target=worker.ask_forever, args=(thread,), daemon=True).start()
    worker.ask_forever(0)


class _Worker:
    def __init__(self, plan):
        self._plan = plan
        self._board = Board(Path(plan.board_path))
        self._clock = BoardClock(self._board)
        self._provider = OidcAuthProvider(
            plan.issuer,
            "notebook",
            store=_MortalStore(plan, self._board),
            http=_MortalCalls(plan, self._board),
            clock=self._clock,
        )

    def ask_forever(self, thread):
        never, board, worker = threading.Event(), self._board, self._plan.worker
        while not never.wait(PAUSE_SECONDS):
            began_at = self._clock.now()
            try:
                generation, ends_at = read_id_token(self._provider.get_token())
            except LoginRequired:
                board.add(worker, thread, Seen.LOGOUTS)
            except MicromegasError:
                board.add(worker, thread, Seen.FAILURES)
            else:
                if ends_at <= began_at:
                    board.add(worker, thread, Seen.ENDED)
                board.set(worker, thread, Seen.GENERATION, generation)
            board.add(worker, thread, Seen.CALLS)


def _die_if_told(board, phase):
    # Each phase is reached under the store's lock, so no two programs get here at once.
    if board.dies_at is phase:
        board.dies_at = Phase.NONE
        os.kill(os.getpid(), signal.SIGKILL)


class _MortalCalls(ProviderHttp):
    """Says who calls, and dies around the call when it is told to.

    The time of an answer is left out: the test's clock jumps while calls are on their way, which no real one does.
    """

    def __init__(self, plan, board):
        super().__init__()
        self._plan = plan
        self._board = board

    def fetch_json(self, url, *, headers=None, refuses_private=False):
        return replace(super().fetch_json(url, headers=headers, refuses_private=refuses_private), date=None)

    def post_form(self, url, fields, *, headers=None, needs_body=True):
        _die_if_told(self._board, Phase.SENDING)
        named = {**(headers or {}), RECEIVER_HEADER: self._plan.name}
        answer = super().post_form(url, fields, headers=named, needs_body=needs_body)
        _die_if_told(self._board, Phase.ANSWERED)
        return replace(answer, date=None)


class _MortalStore(FileTokenStore):
    """Dies under the lock, while writing or after it when it is told to."""

    def __init__(self, plan, board):
        super().__init__(plan.token_path)
        self._plan = plan
        self._board = board
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
            self._board.set(self._plan.worker, 0, Seen.SAVED, generation)
        _die_if_told(self._board, Phase.SAVED)
        return mark

    def _sync(self, descriptor):
        _die_if_told(self._board, Phase.WRITING)
        self._fsync(descriptor)
