"""A process that is suspended (Ctrl-Z) while it holds the refresh lock; run as a program, this module is one.

`refresh FILE` renews a token, `hold FILE` holds the lock as versions without leases do.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from micromegas_jupyter.auth import OidcAuthProvider
from micromegas_jupyter.auth.tokens.store import FileTokenStore
from micromegas_jupyter.core import files
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import MicromegasError, Unavailable
from tests.fakes.rotating_provider import RotatingProvider
from tests.fakes.stored_sign_in import StoredSignIn

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
DEADLINE_SECONDS = 60


def refresh(path):
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        print(OidcAuthProvider.from_file(path).get_token(), flush=True)
    except MicromegasError as error:
        print(type(error).__name__, flush=True)


def hold(path):
    with FileLock(f"{path}.lock", mode=0o600):
        print("ready", flush=True)
        sys.stdin.readline()


@contextmanager
def program(task, path):
    """Run this module; whatever happens, it is continued and ended."""
    command = [sys.executable, "-m", __name__, task, str(path)]
    started = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert started.stdout.readline() == "ready\n"
        yield started
    finally:
        started.kill()
        started.communicate(timeout=DEADLINE_SECONDS)


def suspend(process):
    process.send_signal(signal.SIGSTOP)
    # Only the process's state tells that it is stopped, without reaping it.
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


class PausingProvider(RotatingProvider):
    """Holds back the first reply to `path` until `go_on`; a refresh token that comes twice ends the sign-in."""

    def __init__(self, path, **options):
        super().__init__(clock=SYSTEM_CLOCK, **options)
        self.path = path
        self.asked, self.go_on = threading.Event(), threading.Event()

    def handle(self, seen):
        reply = super().handle(seen)
        if seen.path == self.path and not self.asked.is_set():
            self.asked.set()
            assert self.go_on.wait(DEADLINE_SECONDS)
        return reply


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tokens.json"


@pytest.fixture
def brief(monkeypatch):
    """Shorter times for waiters in this process."""
    monkeypatch.setattr(files, "BROKEN_AFTER_SECONDS", 1.0)
    monkeypatch.setattr(files, "UNRECORDED_BROKEN_AFTER_SECONDS", 1.0)


def expired(idp, path):
    """Store a sign-in whose tokens have expired."""
    stored = StoredSignIn(idp, path, clock=SYSTEM_CLOCK)
    tokens = idp.sign_in()
    path.write_text(json.dumps({
        "issuer": idp.issuer, "client_id": "notebook",
        "token": {**tokens, "expires_at": 1_000, "id_token": idp.stored_token(ends_in_seconds=-10)["id_token"]},
    }))  # fmt: skip
    path.chmod(0o600)
    return stored


def begin(process):
    process.stdin.write("\n")
    process.stdin.flush()


def finish(process):
    """Continue a process and return what it printed."""
    process.send_signal(signal.SIGCONT)
    return process.communicate(timeout=DEADLINE_SECONDS)[0].strip()


@pytest.mark.parametrize("after_seconds", [0.3, pytest.param(10.0, marks=pytest.mark.long)])
def test_the_lock_of_a_suspended_process_is_taken_over_in_time(path, monkeypatch, after_seconds):
    monkeypatch.setattr(files, "BROKEN_AFTER_SECONDS", after_seconds)
    with PausingProvider("/keys") as idp, program("refresh", path) as other:
        expired(idp, path)
        begin(other)
        assert idp.asked.wait(DEADLINE_SECONDS)
        suspend(other)
        idp.go_on.set()

        started = time.monotonic()
        token = OidcAuthProvider.from_file(path).get_token()
        seconds = time.monotonic() - started
        late = finish(other)

    assert after_seconds <= seconds < after_seconds + 15
    assert late == token  # it noticed that before it sent the refresh token
    assert idp.revocations == []
    assert len(idp.refreshes_given) == 1


@pytest.mark.usefixtures("brief")
def test_a_late_holder_stores_nothing_over_the_tokens_of_its_successor(path):
    with PausingProvider("/token", grace_seconds=600) as idp, program("refresh", path) as other:
        expired(idp, path)
        begin(other)
        assert idp.asked.wait(DEADLINE_SECONDS)
        suspend(other)
        idp.go_on.set()
        token = OidcAuthProvider.from_file(path).get_token()
        before = path.read_text()
        late = finish(other)

    assert late == token
    assert path.read_text() == before
    assert len(idp.refreshes_given) == 2


# In the long version, the suspended process is continued after its own deadline for the provider's response.
@pytest.mark.parametrize("after_seconds", [0.3, pytest.param(11.0, marks=pytest.mark.long)])
def test_a_refresh_token_that_a_suspended_process_may_have_spent_is_not_sent_again(path, monkeypatch, after_seconds):
    monkeypatch.setattr(files, "BROKEN_AFTER_SECONDS", after_seconds)
    with PausingProvider("/token") as idp:
        idp.asked.set()
        stored = expired(idp, path)
        OidcAuthProvider.from_file(path).get_token()  # shows that this provider replaces refresh tokens
        idp.asked.clear()
        age(path, stored)
        with program("refresh", path) as other:
            begin(other)
            assert idp.asked.wait(DEADLINE_SECONDS)
            suspend(other)
            idp.go_on.set()
            waiting = OidcAuthProvider.from_file(path)
            for _ in range(2):
                with pytest.raises(Unavailable, match=f"Process {other.pid} is suspended"):
                    waiting.get_token()
            late = finish(other)

        assert late == waiting.get_token()
    assert idp.revocations == []


def age(path, stored):
    """Have the stored tokens expired."""
    document = json.loads(path.read_text())
    document["token"].update(expires_at=1_000, id_token=stored.idp.stored_token(ends_in_seconds=-10)["id_token"])
    path.write_text(json.dumps(document))


@pytest.mark.usefixtures("brief")
def test_a_new_sign_in_is_stored_although_a_process_is_suspended_in_its_renewal(path):
    with PausingProvider("/token") as idp:
        idp.asked.set()
        stored = expired(idp, path)
        OidcAuthProvider.from_file(path).get_token()
        idp.asked.clear()
        age(path, stored)
        with program("refresh", path) as other:
            begin(other)
            assert idp.asked.wait(DEADLINE_SECONDS)
            suspend(other)
            idp.go_on.set()
            signed_in = OidcAuthProvider(idp.issuer, "notebook", token_file=path, token=idp.sign_in())
            signed_in.save()
            before = path.read_text()
            late = finish(other)

    assert path.read_text() == before
    assert late == signed_in.get_token()


@pytest.mark.usefixtures("brief")
def test_only_one_of_many_waiters_takes_a_lock_over(path):
    with PausingProvider("/keys") as idp, program("refresh", path) as other:
        expired(idp, path)
        begin(other)
        assert idp.asked.wait(DEADLINE_SECONDS)
        suspend(other)
        idp.go_on.set()
        found = []
        waiters = [
            threading.Thread(target=lambda: found.append(OidcAuthProvider.from_file(path).get_token()))
            for _ in range(8)
        ]
        for waiter in waiters:
            waiter.start()
        for waiter in waiters:
            waiter.join(DEADLINE_SECONDS)
        late = finish(other)

    assert found == [late] * 8
    assert len(idp.refreshes_given) == 1
    assert idp.revocations == []


@pytest.mark.usefixtures("brief")
def test_the_lock_of_a_suspended_program_without_leases_is_taken_over_later(path):
    with PausingProvider("") as idp, program("hold", path) as other:
        expired(idp, path)
        suspend(other)

        assert OidcAuthProvider.from_file(path).get_token()
        begin(other)
        finish(other)

    assert other.returncode == 0


@pytest.mark.usefixtures("brief")
def test_a_program_without_leases_gets_the_lock_after_it_was_taken_over(path):
    store = FileTokenStore(path)
    with PausingProvider("/keys") as idp, program("refresh", path) as other:
        expired(idp, path)
        begin(other)
        assert idp.asked.wait(DEADLINE_SECONDS)
        suspend(other)
        idp.go_on.set()
        with store.locked(), pytest.raises(TimeoutError):
            FileLock(f"{path}.lock", mode=0o600).acquire(timeout=0.2)
        with FileLock(f"{path}.lock", mode=0o600).acquire(timeout=5), pytest.raises(Unavailable):
            store.locked(wait_seconds=0.2).__enter__()


def test_the_lock_of_a_killed_process_is_free(path):
    with PausingProvider("/keys") as idp, program("refresh", path) as other:
        expired(idp, path)
        begin(other)
        assert idp.asked.wait(DEADLINE_SECONDS)
        other.kill()
        idp.go_on.set()

        started = time.monotonic()
        assert OidcAuthProvider.from_file(path).get_token()

    assert time.monotonic() - started < 9


def test_a_slow_holder_keeps_its_lock(path, monkeypatch):
    monkeypatch.setattr(files, "BROKEN_AFTER_SECONDS", 1.0)
    monkeypatch.setattr(files, "_RECORD_SECONDS", 0.02)
    with PausingProvider("/token") as idp:
        expired(idp, path)
        found = []
        slow, waiting = (
            threading.Thread(target=lambda: found.append(OidcAuthProvider.from_file(path).get_token()))
            for _ in range(2)
        )
        slow.start()
        assert idp.asked.wait(DEADLINE_SECONDS)
        waiting.start()
        waiting.join(1)  # it could end only if it took the lock over
        assert waiting.is_alive()
        idp.go_on.set()
        slow.join(DEADLINE_SECONDS)
        waiting.join(DEADLINE_SECONDS)

    assert len(set(found)) == 1
    assert len(idp.refreshes_given) == 1


if __name__ == "__main__":
    {"refresh": refresh, "hold": hold}[sys.argv[1]](sys.argv[2])
