"""How a sign-in is kept valid: refreshes, their failures, and what other programs do to the store meanwhile."""

import gc
import logging
import os
import threading
import weakref
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from micromegas_jupyter.auth.tokens import source as source_module
from micromegas_jupyter.auth.tokens.source import BackgroundRenewal, TokenSource
from micromegas_jupyter.errors import InternalError, LoginRequired, ProviderMisbehaved, ProviderUnavailable
from tests.fakes.clock import FakeClock
from tests.fakes.mint import rsa_key
from tests.fakes.scripted_provider import Reply, ScriptedProvider
from tests.fakes.stored_sign_in import StoredSignIn


@pytest.fixture
def sign_in(idp, clock, tmp_path):
    return StoredSignIn(idp, tmp_path / "tokens.json", clock=clock)


def before_answer(idp, act):
    """Have `act` called when the provider has dealt with a refresh, and before the program gets the answer."""
    handle = idp.handle

    def handled(seen):
        reply = handle(seen)
        if seen.path == "/token":
            act()
        return reply

    idp.handle = handled


@pytest.fixture
def slow(idp):
    """Two events: a refresh has begun, and it may end."""
    began, go_on = threading.Event(), threading.Event()
    before_answer(idp, lambda: (began.set(), go_on.wait(30)))
    yield began, go_on
    go_on.set()


def in_thread(call):
    thread = threading.Thread(target=call)
    thread.start()
    return thread


def test_a_token_in_its_last_minutes_serves_while_another_process_renews(sign_in, idp, monkeypatch):
    monkeypatch.setattr(source_module, "LOCK_WAIT_SECONDS", 600)  # for whoever has to wait
    provider = sign_in.opened(ends_in_seconds=60)
    with sign_in.store().locked():
        found = []
        in_thread(lambda: found.append(provider.get_token())).join(60)

    assert found == [sign_in.token()["id_token"]]
    assert idp.requests == []
    assert provider.get_token() not in found


def test_a_renewal_under_way_holds_up_nobody_whose_token_is_still_valid(sign_in, slow):
    provider = sign_in.opened(ends_in_seconds=60)
    present, (began, go_on) = sign_in.token()["id_token"], slow
    background = in_thread(provider.get_token)
    assert began.wait(30)

    meanwhile = {provider.get_token() for _ in range(100)}

    assert meanwhile == {present}
    go_on.set()
    background.join(60)
    assert provider.get_token() == sign_in.token()["id_token"] != present


def test_whoever_was_refused_waits_for_the_renewal_that_another_thread_has_begun(sign_in, idp, slow):
    provider = sign_in.opened()
    refused, (began, go_on) = provider.get_token(), slow
    provider.invalidate(refused)
    found = []
    threads = [in_thread(lambda: found.append(provider.get_token()))]
    assert began.wait(30)
    threads.append(in_thread(lambda: found.append(provider.get_token())))
    go_on.set()
    for thread in threads:
        thread.join(60)

    assert set(found) == {sign_in.token()["id_token"]} != {refused}
    assert len(idp.refreshes()) == 1


@pytest.mark.parametrize("changes", [{}, {"refresh_token": "spent"}])
def test_a_sign_in_by_a_program_that_takes_no_lock_is_not_overwritten_by_a_refresh(changes, sign_in, idp):
    provider = sign_in.opened(ends_in_seconds=-10, **changes)
    before_answer(idp, sign_in.write)

    token = provider.get_token()

    assert token == sign_in.token()["id_token"]
    assert sign_in.token()["refresh_token"] != idp.refreshes()[0].form["refresh_token"]


@pytest.mark.parametrize("touch", [Path.exists, lambda path: path.chmod(0o640), os.utime], ids=["", "mode", "time"])
def test_a_refresh_loses_no_token_also_when_the_files_mode_or_time_changes_meanwhile(touch, sign_in, idp):
    provider = sign_in.opened(ends_in_seconds=-10)
    before = sign_in.token()["id_token"]
    before_answer(idp, lambda: touch(sign_in.path))

    token = provider.get_token()

    assert token == provider.get_token() == sign_in.token()["id_token"] != before
    assert sign_in.token()["refresh_token"] != idp.refreshes()[0].form["refresh_token"]
    assert len(idp.refreshes()) == 1


def lose_lock(sign_in):
    """Do what another program does to the lock of a suspended one, as far as that notices."""
    sign_in.path.with_name("tokens.json.lock").unlink()


def test_tokens_of_a_successor_are_not_overwritten_after_the_lock_was_lost(sign_in, idp):
    provider = sign_in.opened(ends_in_seconds=-10)
    before_answer(idp, lambda: (lose_lock(sign_in), sign_in.write()))

    token = provider.get_token()

    assert token == sign_in.token()["id_token"]
    assert sign_in.token()["refresh_token"] != idp.refreshes()[0].form["refresh_token"]


def test_a_logout_after_the_lock_was_lost_wins(sign_in, idp):
    provider = sign_in.opened(ends_in_seconds=-10)
    before_answer(idp, lambda: (lose_lock(sign_in), sign_in.path.unlink()))

    with pytest.raises(LoginRequired):
        provider.get_token()

    assert not sign_in.path.exists()


def test_new_tokens_are_kept_if_the_successor_only_found_out_that_the_old_ones_were_spent(sign_in, idp):
    provider = sign_in.opened(ends_in_seconds=-10)
    found = sign_in.token()

    def take_over():
        lose_lock(sign_in)
        sign_in.write(ends_in_seconds=-10, **{**found, "refresh_token": None})

    before_answer(idp, take_over)

    token = provider.get_token()

    assert token == sign_in.token()["id_token"] != found["id_token"]
    assert sign_in.token()["refresh_token"] not in {None, found["refresh_token"]}


def test_a_lock_that_is_lost_before_the_refresh_token_is_sent_costs_no_refresh(sign_in, idp):
    provider = sign_in.opened(ends_in_seconds=-10)
    handle, has_lost = idp.handle, []

    def handled(seen):
        if not has_lost:
            has_lost.append(True)
            lose_lock(sign_in)
            sign_in.write()
        return handle(seen)

    idp.handle = handled

    assert provider.get_token() == sign_in.token()["id_token"]
    assert idp.refreshes() == []


def test_tokens_of_a_successor_serve_if_the_provider_went_down_after_the_lock_was_lost(sign_in, idp):
    provider = sign_in.opened(ends_in_seconds=-10)
    idp.reply_once("/token", Reply(status=503, body={}))
    before_answer(idp, lambda: (lose_lock(sign_in), sign_in.write()))

    assert provider.get_token() == sign_in.token()["id_token"]


def test_a_logout_removes_a_damaged_sign_in(sign_in):
    provider = sign_in.opened()
    sign_in.path.write_text("{")

    assert provider.logout().files_removed == 1

    assert not sign_in.path.exists()


def test_a_logout_during_a_renewal_wins(sign_in, idp):
    provider = sign_in.opened(ends_in_seconds=-10)
    before_answer(idp, sign_in.path.unlink)

    with pytest.raises(LoginRequired):
        provider.get_token()

    assert not sign_in.path.exists()


@pytest.mark.parametrize(("ended_for_seconds", "pause_seconds"), [(0, 30), (60, 60), (3600, 3600)])
def test_a_refresh_without_an_id_token_serves_access_tokens_and_is_repeated_after_a_growing_pause(
    ended_for_seconds, pause_seconds, sign_in, idp, clock
):
    idp.refresh_changes["id_token"] = None
    provider = sign_in.opened(ends_in_seconds=-ended_for_seconds)
    before = sign_in.token()["id_token"]

    for _ in range(3):
        with pytest.raises(LoginRequired, match="only refreshes access tokens"):
            provider.get_token()

    assert provider.get_token(bearer="access_token") == sign_in.token()["access_token"]
    assert sign_in.token()["id_token"] == before
    assert len(idp.refreshes()) == 1
    assert provider.renewal_due_at() == clock.now() + timedelta(seconds=pause_seconds)
    idp.refresh_changes.clear()
    clock.advance(pause_seconds)
    assert provider.get_token() != before


def test_a_valid_token_serves_while_the_provider_is_down(sign_in, idp, clock):
    provider = sign_in.opened(ends_in_seconds=120)
    idp.is_down = True

    found = {provider.get_token() for _ in range(50)}
    assert found == {sign_in.token()["id_token"]}
    clock.advance(29.9)
    provider.get_token()
    assert len(idp.requests) == 1, "a provider that is down is asked again and again"
    clock.advance(0.1)
    provider.get_token()
    assert len(idp.requests) == 2

    clock.advance(91)
    with pytest.raises(ProviderUnavailable):
        provider.get_token()
    idp.is_down = False
    assert provider.get_token() not in found


@pytest.mark.parametrize("subject", ["mallory", "aaron"])
def test_a_renewal_for_another_person_is_not_used_and_not_repeated(sign_in, idp, subject):
    provider = sign_in.opened(ends_in_seconds=-10)
    before = sign_in.token()
    idp.id_token_changes["sub"] = subject

    with pytest.raises(ProviderMisbehaved):
        provider.get_token()

    idp.id_token_changes.clear()
    with pytest.raises(LoginRequired):
        provider.get_token()
    assert sign_in.token() == {name: value for name, value in before.items() if name != "refresh_token"}
    assert len(idp.refreshes()) == 1


def test_a_new_refresh_token_survives_when_the_id_token_cannot_be_checked(sign_in, idp):
    provider = sign_in.opened(ends_in_seconds=-10)
    provider.identity()
    provider._connection.keys()
    before = sign_in.token()
    idp.signing_key = rsa_key("new")
    idp.published_keys = (rsa_key("new"),)
    idp.reply_once("/keys", Reply(status=503))

    with pytest.raises(ProviderUnavailable):
        provider.get_token()

    after = sign_in.token()
    assert after["refresh_token"] != before["refresh_token"]
    assert after["id_token"] == before["id_token"]


def test_a_refused_refresh_leaves_a_token_that_is_still_valid_in_use(sign_in, idp, clock):
    provider = sign_in.opened(ends_in_seconds=60, refresh_token="dead")

    first = provider.get_token()
    clock.advance(59)

    assert provider.get_token() == first
    clock.advance(1)
    for program in (provider, sign_in.open()):
        with pytest.raises(LoginRequired):
            program.get_token()
    assert len(idp.refreshes()) == 1


def test_a_token_that_is_not_in_use_any_more_changes_nothing(sign_in, idp, clock):
    provider = sign_in.opened()
    old = provider.get_token()
    clock.advance(3400)
    present = provider.get_token()

    provider.invalidate(old)
    provider.invalidate("never-seen")

    assert provider.get_token() == present
    assert len(idp.refreshes()) == 1


@pytest.mark.parametrize("ask", [lambda found: found.renew(), lambda found: found.invalidate(found.get_token())])
def test_a_server_that_refuses_everything_or_a_program_that_asks_causes_one_renewal_in_ten_seconds(
    ask, sign_in, idp, clock
):
    provider = sign_in.opened()

    for _ in range(60):
        ask(provider)
        provider.get_token()
        clock.advance(1)

    assert len(idp.refreshes()) == 6


def test_a_renewal_of_a_refused_token_that_fails_leaves_the_token_in_use(sign_in, idp, clock):
    provider = sign_in.opened()
    present = provider.get_token()
    idp.is_down = True
    provider.invalidate(present)

    found = {provider.get_token() for _ in range(20)}

    assert found == {present}
    assert len(idp.requests) == 1
    idp.is_down = False
    clock.advance(10)
    assert provider.get_token() != present


def test_tokens_that_cannot_be_stored_serve_from_memory(sign_in, idp, monkeypatch):
    provider = sign_in.opened(ends_in_seconds=-10)
    before = sign_in.path.read_text()

    with monkeypatch.context() as full_disk:
        full_disk.setattr(os, "fsync", Mock(side_effect=OSError(28, "No space left on device")))
        token = provider.get_token()

    assert sign_in.path.read_text() == before
    assert provider.get_token() == token
    assert len(idp.refreshes()) == 1


def test_a_sign_in_for_another_scope_or_audience_is_not_used(sign_in, idp):
    with sign_in.store().locked():
        sign_in.store().save(sign_in.login(audience="lake", scope="openid lake"))

    for wanted in ({"audience": "other"}, {"scope": "openid"}, {}):
        with pytest.raises(LoginRequired, match="different"):
            sign_in.open(**wanted).get_token()
    assert sign_in.open(audience="lake", scope="lake openid").get_token() == sign_in.token()["id_token"]
    assert idp.requests == []


DEADLINE_SECONDS = 60


@pytest.fixture(autouse=True)
def _long_stop_wait(monkeypatch):
    """Stopping waits as long as a busy machine needs; nothing here hangs for ever."""
    monkeypatch.setattr("micromegas_jupyter.auth.tokens.source.STOP_WAIT_SECONDS", DEADLINE_SECONDS)


class Renewable:
    """A provider whose token is renewed for an hour at a time, unless `failures` come first."""

    def __init__(self, clock, *, due_in_seconds=3300):
        self.clock = clock
        self.due_at = None if due_in_seconds is None else clock.now() + timedelta(seconds=due_in_seconds)
        self.failures = []
        self.asked_at = []

    def get_token(self):
        self.asked_at.append(self.clock.monotonic())
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        if self.due_at is not None and self.due_at <= self.clock.now():
            self.due_at = self.clock.now() + timedelta(seconds=3300)
        return "token"

    def renewal_due_at(self):
        return self.due_at


def renew(provider, *, count):
    """Let a background renewal work for so many waits, which move the clock; returns the waits and what changed."""
    seconds, changes, done = [], [], threading.Event()

    def wait(pause_seconds):
        seconds.append(pause_seconds)
        provider.clock.advance(pause_seconds)
        if len(seconds) == count:
            done.set()
        return done.is_set()

    renewal = BackgroundRenewal(provider, clock=provider.clock, on_change=changes.append, wait=wait)
    renewal.start()
    assert done.wait(DEADLINE_SECONDS)
    renewal.stop()
    return seconds, [type(change) for change in changes]


def test_a_token_is_renewed_when_it_is_due_and_not_before(clock):
    provider = Renewable(clock, due_in_seconds=150)
    began = clock.monotonic()

    renew(provider, count=4)

    assert [asked_at - began for asked_at in provider.asked_at] == [150]


def test_failures_are_followed_by_longer_and_longer_pauses_and_each_change_is_told_once(clock):
    provider = Renewable(clock, due_in_seconds=0)
    provider.failures = [*[ProviderUnavailable("down")] * 5, LoginRequired("ended")]

    seconds, changes = renew(provider, count=7)

    assert seconds == [5, 10, 20, 40, 60, 60, 60]
    assert changes == [ProviderUnavailable, LoginRequired, type(None)]


def test_each_new_token_is_told_and_an_old_one_that_serves_on_from_the_second_attempt_on(clock):
    provider = Renewable(clock, due_in_seconds=150)

    assert renew(provider, count=100)[1] == [type(None)] * 2
    provider.get_token = lambda: "old"
    provider.due_at = clock.now() + timedelta(seconds=50)
    assert renew(provider, count=2) == ([50, 5], [])  # until it is due, and after the first attempt
    assert renew(provider, count=4)[1] == [ProviderUnavailable]


def test_a_defect_of_the_provider_does_not_end_the_thread(clock, caplog):
    provider = Renewable(clock, due_in_seconds=0)
    provider.failures = [ZeroDivisionError("secret-token")]

    with caplog.at_level(logging.DEBUG):
        _, changes = renew(provider, count=3)

    assert changes == [InternalError, type(None)]
    assert "secret-token" not in caplog.text


def test_the_thread_ends_when_it_is_stopped_and_when_the_provider_is_forgotten(clock):
    stopped = BackgroundRenewal(Renewable(clock), clock=clock)
    stopped.start()
    stopped.stop()
    assert not stopped._thread.is_alive()

    provider = Renewable(clock)
    forgotten = weakref.ref(provider)
    renewal = BackgroundRenewal(provider, clock=clock)
    renewal.start()

    del provider
    gc.collect()
    renewal._thread.join(DEADLINE_SECONDS)

    assert forgotten() is None
    assert not renewal._thread.is_alive()


class Source(TokenSource):
    """Holds no token and obtains what `obtain` returns."""

    def __init__(self, clock, obtain):
        super().__init__(clock)
        self.obtain = obtain

    def _held(self, _bearer):
        return None

    def _obtain(self, _bearer, *, is_optional):
        assert not is_optional
        return self.obtain()


def test_a_caller_that_waits_for_a_renewal_that_fails_gets_a_copy_of_its_error(clock):
    failure = ProviderUnavailable("down")

    def down():
        raise failure

    source = Source(clock, down)
    held = source._renewing

    def acquire(timeout):
        source._renewing = held
        with pytest.raises(ProviderUnavailable):
            source.get_token()
        source.obtain = lambda: 1 // 0
        return held.acquire(timeout=timeout)

    source._renewing = SimpleNamespace(acquire=acquire)

    with pytest.raises(ProviderUnavailable) as caught:
        source.get_token()

    assert (type(caught.value), caught.value.what) == (ProviderUnavailable, "down")
    assert caught.value is not failure


def test_forty_waiters_of_a_renewal_that_fails_get_one_error_each(clock):
    starting = threading.Barrier(41)
    errors = []

    def down():
        raise ProviderUnavailable("down")

    source = Source(clock, down)

    def wait():
        starting.wait(DEADLINE_SECONDS)
        try:
            source.get_token()
        except ProviderUnavailable as error:
            error.remedy += "!"  # as callers do that know more
            errors.append(error)

    with source._renewing:
        threads = [threading.Thread(target=wait) for _ in range(40)]
        for thread in threads:
            thread.start()
        starting.wait(DEADLINE_SECONDS)
    for thread in threads:
        thread.join(DEADLINE_SECONDS)

    assert len({id(error) for error in errors}) == 40
    assert {str(error).count("!") for error in errors} == {1}


def test_a_renewal_is_due_by_this_machines_clock_when_the_providers_is_ahead(clock, tmp_path):
    ahead = FakeClock(clock.now() + timedelta(hours=5))
    sign_in = StoredSignIn(ScriptedProvider(clock=ahead), tmp_path / "t.json", clock=clock, idp_clock=ahead)
    provider = sign_in.opened(ends_in_seconds=60 - 5 * 3600)

    provider.get_token()

    due_in = provider.renewal_due_at() - clock.now()
    assert due_in.total_seconds() == pytest.approx(3300, abs=1)
