"""Runs many programs that share one token file through many expiries, kills some of them, and counts what happens.

What must hold is for the test to say; the programs are `chaos_worker`'s.
"""

import multiprocessing
import random
import signal
import threading
from dataclasses import dataclass, field
from datetime import timedelta

from micromegas_jupyter.auth.tokens.store import FileTokenStore, LoginKey, StoredLogin, parse_token
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import MicromegasError
from tests.integration.auth.chaos_worker import THREAD_COUNT, Phase, Plan, Seen, read_id_token, run

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
    kills: dict[str, int] = field(default_factory=dict)
    lost_answers: int = 0
    """Families that ended because a program was killed between the provider's answer and the write."""
    late_requests: int = 0
    """Families that ended because the request of a program that was killed meanwhile came after another's."""
    unexcused: list = field(default_factory=list)
    logouts_seen: int = 0
    failures_seen: int = 0
    ended_tokens_seen: int = 0
    unreadable_files: int = 0
    files_read: int = 0
    longest_recovery_seconds: float = 0.0


class ChaosRun:
    """One run; a context manager that starts the programs and ends them.

    Args:
        idp: The provider, serving.
        board: Shared with the programs and the provider's clock.
        folder: Where the token file is.
        seed: Of what is drawn.
        kills: Whether a program is killed at each expiry.
    """

    def __init__(self, idp, board, folder, *, seed, kills):
        self._idp = idp
        self._board = board
        self._board_path = folder / "board"
        self._store = FileTokenStore(folder / "tokens.json")
        self._random = random.Random(seed)
        self._kills = kills
        self._phases = []
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.integration.auth.chaos_worker"])
        self._workers = []
        self._killed = set()
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
            self._count_kill(kill.name)
        elif self._kills:
            self._never.wait(self._random.uniform(0, 0.03))
            self._workers[self._random.randrange(WORKER_COUNT)][1].kill()
            self._count_kill("ANY_TIME")
        self._wait_until_settled(after=before, deadline_seconds=RECOVERY_SECONDS)
        self.figures.expiries += 1
        self.figures.longest_recovery_seconds = max(
            self.figures.longest_recovery_seconds, SYSTEM_CLOCK.monotonic() - began
        )

    def count(self):
        """Return what happened so far."""
        found = self.figures
        found.refreshes = len(self._idp.refreshes_given)
        found.repeated_refreshes = sum(refresh.was_repeated for refresh in self._idp.refreshes_given)
        found.calls = self._total(Seen.CALLS)
        found.logouts_seen = self._total(Seen.LOGOUTS)
        found.failures_seen = self._total(Seen.FAILURES)
        found.ended_tokens_seen = self._total(Seen.ENDED)
        return found

    def _total(self, what):
        return sum(self._board.get(worker, thread, what) for worker, thread in _SLOTS)

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
        match self._random.randrange(3):
            case 0:
                moments = [-draw(1, 230)]
            case 1:
                moments = [draw(0, 1000)]
            case _:
                moments = [-310 + step * draw(20, 40) for step in range(9)]
                moments = [*sorted(moments), draw(0, 10)]
        for seconds in moments:
            self._board.move_to(ends_at + timedelta(seconds=seconds))
            if len(moments) > 1:
                self._never.wait(draw(0, 0.01))

    def _count_kill(self, phase):
        self.figures.kills[phase] = self.figures.kills.get(phase, 0) + 1

    def _wait_until_settled(self, *, after, deadline_seconds):
        """Wait until all threads have the tokens that the file holds, and those are newer than `after`."""
        deadline = SYSTEM_CLOCK.monotonic() + deadline_seconds
        while True:
            self._replace_the_dead()
            self._judge_revocations()
            generation, ends_at = self._kept()
            seen = {self._board.get(worker, thread, Seen.GENERATION) for worker, thread in _SLOTS}
            if generation > after and ends_at > self._board.now and seen == {generation} and self._nobody_dies():
                return
            left = deadline - SYSTEM_CLOCK.monotonic()
            assert left > 0, self._story(generation, ends_at, seen)
            self._never.wait(_LOOK_SECONDS)

    def _story(self, generation, ends_at, seen):
        """Return what stood still, for whoever has to find out why."""
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
        assert login.tokens.id_token is not None
        return read_id_token(login.tokens.id_token.reveal())

    def _replace_the_dead(self):
        for worker, (name, process) in enumerate(self._workers):
            if process.is_alive():
                continue
            assert process.exitcode == -signal.SIGKILL, f"a program ended by itself with {process.exitcode}"
            self._killed.add(name)
            for thread in range(THREAD_COUNT):
                self._board.set(worker, thread, Seen.GENERATION, 0)
            self._workers[worker] = self._started(worker)

    def _started(self, worker):
        name = f"{worker}.{len(self._killed)}"
        plan = Plan(
            worker=worker,
            name=name,
            issuer=self._idp.issuer,
            token_path=str(self._store.path),
            board_path=str(self._board_path),
        )
        process = self._context.Process(target=run, args=(plan,), daemon=True)
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
            self._board.get(int(refresh.receiver.split(".")[0]), 0, Seen.SAVED) == refresh.generation
            for refresh in revocation.refreshes
        )

    def _sign_in(self):
        tokens = parse_token(self._idp.sign_in())
        login = StoredLogin(key=LoginKey(issuer=self._idp.issuer, client_id=self._idp.client_id), tokens=tokens)
        with self._store.locked():
            self._store.save(login)
