"""Runs many programs that share one token file through many expiries, kills some of them, and counts what happens.

What must hold is for the test to say; the programs are `chaos_worker`'s.
"""

import multiprocessing
import random
import signal
import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta

from micromegas_jupyter.auth.tokens.store import FileTokenStore, LoginKey, StoredLogin, parse_token
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import MicromegasError
from tests.integration.auth.chaos_worker import THREAD_COUNT, Phase, Seen, read_id_token, run

WORKER_COUNT = 8
RECOVERY_SECONDS = 60.0
_START_SECONDS = 60.0
_LOOK_SECONDS = 0.002
_SLOTS = [(worker, thread) for worker in range(WORKER_COUNT) for thread in range(THREAD_COUNT)]


@dataclass
class Figures:
    """What a run counted."""

    seed: int
    expiries: int = 0
    refreshes: int = 0
    repeated_refreshes: int = 0
    calls: int = 0
    kills: Counter = field(default_factory=Counter)
    lost_answers: int = 0  # families that ended as a program was killed between the provider's answer and the write
    late_requests: int = 0  # families that ended as the request of a program that was killed came after another's
    unexcused: list = field(default_factory=list)
    logouts_seen: int = 0
    failures_seen: int = 0
    ended_tokens_seen: int = 0
    unreadable_files: int = 0
    files_read: int = 0
    longest_recovery_seconds: float = 0.0


class ChaosRun:
    """One run at a provider, with or without a kill at each expiry; a context manager that starts and ends programs."""

    def __init__(self, idp, board, folder, *, seed, kills):
        self._idp, self._board, self._board_path, self._kills = idp, board, folder / "board", kills
        self._store = FileTokenStore(folder / "tokens.json")
        self._random = random.Random(seed)
        # The first one dies with new tokens in memory only, which may log out; a short run has no other kill.
        self._phases = [Phase.ANSWERED]
        self._workers, self._killed = [], set()
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.integration.auth.chaos_worker"])
        self._revocations_seen = 0
        self._never = threading.Event()
        self.figures = Figures(seed=seed)

    def __enter__(self):
        self._sign_in()
        self._workers = [self._started(worker) for worker in range(WORKER_COUNT)]
        self._wait_until_settled(after=0, deadline_seconds=_START_SECONDS)
        return self

    def __exit__(self, *_error):
        for _, process in self._workers:
            process.kill()
        for _, process in self._workers:
            process.join(60)

    def expire(self):
        """Let the tokens end once, and wait until each thread of each program has the next ones."""
        before, ends_at = self._kept()
        kill = self._next_kill()
        self._board.dies_at = kill
        self._let_time_pass(ends_at)
        began = SYSTEM_CLOCK.monotonic()
        if kill is not Phase.NONE:
            self.figures.kills[kill.name] += 1
        elif self._kills:
            self._never.wait(self._random.uniform(0, 0.03))
            self._workers[self._random.randrange(WORKER_COUNT)][1].kill()
            self.figures.kills["ANY_TIME"] += 1
        self._wait_until_settled(after=before, deadline_seconds=RECOVERY_SECONDS)
        self.figures.expiries += 1
        took = SYSTEM_CLOCK.monotonic() - began
        self.figures.longest_recovery_seconds = max(self.figures.longest_recovery_seconds, took)

    def count(self):
        """Return what happened so far."""
        found = self.figures
        found.refreshes = len(self._idp.refreshes_given)
        found.repeated_refreshes = sum(refresh.was_repeated for refresh in self._idp.refreshes_given)
        found.calls, found.logouts_seen, found.failures_seen, found.ended_tokens_seen = (
            sum(self._board[worker, thread, what] for worker, thread in _SLOTS)
            for what in (Seen.CALLS, Seen.LOGOUTS, Seen.FAILURES, Seen.ENDED)
        )
        return found

    def _next_kill(self):
        """Return where in the renewal a program is to die; `NONE` is at any time, or never in a run without kills."""
        if not self._kills:
            return Phase.NONE
        if not self._phases:
            self._phases = list(Phase)
            self._random.shuffle(self._phases)
        return self._phases.pop()

    def _let_time_pass(self, ends_at):
        """Move the clock into the tokens' last minutes, past their end, or through all of that in small steps."""
        draw = self._random.uniform
        kind = self._random.randrange(3)
        moments = [-draw(1, 230)] if kind == 0 else [draw(0, 1000)]
        if kind == 2:
            moments = [*sorted(-310 + step * draw(20, 40) for step in range(9)), draw(0, 10)]
        for seconds in moments:
            self._board.move_to(ends_at + timedelta(seconds=seconds))
            if len(moments) > 1:
                self._never.wait(draw(0, 0.01))

    def _wait_until_settled(self, *, after, deadline_seconds):
        """Wait until all threads have the tokens that the file holds, and those are newer than `after`."""
        deadline = SYSTEM_CLOCK.monotonic() + deadline_seconds
        while True:
            self._replace_the_dead()
            self._judge_revocations()
            generation, ends_at = self._kept()
            seen = {self._board[worker, thread, Seen.GENERATION] for worker, thread in _SLOTS}
            if generation > after and ends_at > self._board.now and seen == {generation} and self._nobody_dies():
                return
            left = deadline - SYSTEM_CLOCK.monotonic()
            assert left > 0, self._story(generation, ends_at, seen)
            self._never.wait(_LOOK_SECONDS)

    def _story(self, generation, ends_at, seen):
        alive = [process.is_alive() for _, process in self._workers]
        return (
            f"not recovered: the file holds {generation}, the threads have {sorted(seen)}; tokens end in "
            f"{(ends_at - self._board.now).total_seconds():.0f} s; to die: {self._board.dies_at.name}; alive: {alive}; "
            f"requests: {len(self._idp.requests)}, the last {self._idp.requests[-1].path}; {self.count()}"
        )

    def _nobody_dies(self):
        return self._board.dies_at is Phase.NONE and all(process.is_alive() for _, process in self._workers)

    def _kept(self):
        """Return the generation of the tokens in the file and their end."""
        self.figures.files_read += 1
        try:
            login, _ = self._store.load()
        except MicromegasError:
            self.figures.unreadable_files += 1
            raise
        return read_id_token(login.tokens.id_token.reveal())

    def _replace_the_dead(self):
        for worker, (name, process) in enumerate(self._workers):
            if process.is_alive():
                continue
            assert process.exitcode == -signal.SIGKILL, f"a program ended by itself with {process.exitcode}"
            self._killed.add(name)
            for thread in range(THREAD_COUNT):
                self._board[worker, thread, Seen.GENERATION] = 0
            self._workers[worker] = self._started(worker)

    def _started(self, worker):
        name = f"{worker}.{len(self._killed)}"
        plan = {
            "worker": worker,
            "name": name,
            "issuer": self._idp.issuer,
            "token_path": self._store.path,
            "board_path": self._board_path,
        }
        process = self._context.Process(target=run, kwargs=plan, daemon=True)
        process.start()
        return name, process

    def _judge_revocations(self):
        """Say for each family that ended whether a kill explains it, and sign in again."""
        for revocation in self._idp.revocations[self._revocations_seen :]:
            self._revocations_seen += 1
            receivers = {refresh.receiver for refresh in revocation.refreshes}
            deadline = SYSTEM_CLOCK.monotonic() + _START_SECONDS
            while not receivers <= self._killed and SYSTEM_CLOCK.monotonic() < deadline:
                self._replace_the_dead()
                self._never.wait(_LOOK_SECONDS)
            if receivers <= self._killed and not self._was_stored(revocation):
                self.figures.lost_answers += 1
            elif revocation.sender in self._killed:
                self.figures.late_requests += 1
            else:
                self.figures.unexcused.append(revocation)
            self._sign_in()

    def _was_stored(self, revocation):
        return any(
            self._board[int(refresh.receiver.split(".")[0]), 0, Seen.SAVED] == refresh.generation
            for refresh in revocation.refreshes
        )

    def _sign_in(self):
        tokens = parse_token(self._idp.sign_in())
        login = StoredLogin(key=LoginKey(issuer=self._idp.issuer, client_id=self._idp.client_id), tokens=tokens)
        with self._store.locked():
            self._store.save(login)
