"""Renewal as a whole provider object shows it; sockets and processes are tested elsewhere."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.errors import LoginRequired
from tests.fakes.stored_sign_in import FixedRandomness, StoredSignIn

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.clock import FakeClock
    from tests.fakes.scripted_provider import Reply, ScriptedProvider, Seen


@pytest.fixture
def sign_in(idp: ScriptedProvider, clock: FakeClock, tmp_path: Path) -> StoredSignIn:
    return StoredSignIn(idp, tmp_path / "tokens.json", clock=clock)


def test_a_fresh_token_is_given_without_any_request(sign_in: StoredSignIn, idp: ScriptedProvider) -> None:
    provider = sign_in.opened()

    assert provider.get_token() == sign_in.token()["id_token"]
    assert provider.get_token(bearer="access_token") == sign_in.token()["access_token"]
    assert idp.requests == []


def test_an_ended_token_is_renewed_and_the_new_refresh_token_is_stored(
    sign_in: StoredSignIn, idp: ScriptedProvider
) -> None:
    provider = sign_in.opened(ends_in_seconds=-10)
    before = sign_in.token()

    token = provider.get_token()

    after = sign_in.token()
    assert token == after["id_token"] != before["id_token"]
    assert after["refresh_token"] != before["refresh_token"]
    assert len(idp.refreshes()) == 1
    assert provider.get_token() == token
    assert len(idp.refreshes()) == 1


def test_a_token_is_renewed_in_its_last_minutes(sign_in: StoredSignIn, idp: ScriptedProvider, clock: FakeClock) -> None:
    provider = sign_in.opened()
    first = provider.get_token()
    clock.advance(3302)
    assert provider.get_token() == first
    clock.advance(1)

    assert provider.get_token() != first
    assert len(idp.refreshes()) == 1


def test_threads_that_need_a_token_at_once_renew_once(sign_in: StoredSignIn, idp: ScriptedProvider) -> None:
    provider = sign_in.opened(ends_in_seconds=-10)
    barrier = threading.Barrier(16)
    found: list[str] = []

    def call() -> None:
        barrier.wait(30)
        found.append(provider.get_token())

    threads = [threading.Thread(target=call) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(found) == 16
    assert len(set(found)) == 1
    assert len(idp.refreshes()) == 1


def test_a_second_object_takes_over_what_the_first_renewed(sign_in: StoredSignIn, idp: ScriptedProvider) -> None:
    first = sign_in.opened(ends_in_seconds=-10)
    second = sign_in.open()

    assert first.get_token() == second.get_token()
    assert len(idp.refreshes()) == 1


def test_a_refresh_without_a_new_refresh_token_keeps_the_old_one(sign_in: StoredSignIn, idp: ScriptedProvider) -> None:
    idp.refresh_changes["refresh_token"] = None
    provider = sign_in.opened(ends_in_seconds=-10)
    before = sign_in.token()["refresh_token"]

    provider.get_token()

    assert sign_in.token()["refresh_token"] == before


def test_a_refresh_without_an_id_token_serves_access_tokens_and_is_not_repeated(
    sign_in: StoredSignIn, idp: ScriptedProvider
) -> None:
    idp.refresh_changes["id_token"] = None
    provider = sign_in.opened(ends_in_seconds=-10)
    before = sign_in.token()["id_token"]

    for _ in range(3):
        with pytest.raises(LoginRequired, match="access tokens only"):
            provider.get_token()

    assert provider.get_token(bearer="access_token") == sign_in.token()["access_token"]
    assert sign_in.token()["id_token"] == before
    assert len(idp.refreshes()) == 1


def test_a_session_without_a_refresh_token_serves_to_its_end(
    sign_in: StoredSignIn, idp: ScriptedProvider, clock: FakeClock
) -> None:
    provider = sign_in.opened(ends_in_seconds=60, refresh_token=None)
    first = provider.get_token()
    clock.advance(60)

    with pytest.raises(LoginRequired):
        provider.get_token()
    assert first
    assert idp.requests == []


def test_the_scope_that_was_granted_is_asked_for_again(sign_in: StoredSignIn, idp: ScriptedProvider) -> None:
    sign_in.opened(ends_in_seconds=-10, scope="openid email").get_token()

    assert idp.refreshes()[0].form["scope"] == "openid email"


def test_without_a_known_grant_no_scope_is_asked_for(sign_in: StoredSignIn, idp: ScriptedProvider) -> None:
    sign_in.opened(ends_in_seconds=-10, scope=None).get_token()

    assert "scope" not in idp.refreshes()[0].form


def test_without_a_refresh_token_a_token_in_its_last_minutes_serves_without_any_request(
    sign_in: StoredSignIn, idp: ScriptedProvider
) -> None:
    provider = sign_in.opened(ends_in_seconds=60, refresh_token=None)

    assert provider.get_token() == provider.get_token()
    assert idp.requests == []


def test_a_token_in_its_last_minutes_serves_while_another_process_renews(
    sign_in: StoredSignIn, idp: ScriptedProvider
) -> None:
    provider = sign_in.opened(ends_in_seconds=60)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with sign_in.store().locked():
            held.set()
            done.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(30)
    token = provider.get_token()
    done.set()
    holder.join(60)

    assert token == sign_in.token()["id_token"]
    assert idp.requests == []
    assert provider.get_token() != token


def test_programs_renew_at_different_moments_of_the_last_five_minutes(sign_in: StoredSignIn) -> None:
    sign_in.write()
    end = datetime(2026, 11, 24, 13, 0, tzinfo=UTC)

    due = [sign_in.open(randomness=FixedRandomness(text)).renewal_due_at() for text in ("late", "a", "early")]

    assert [(end - moment).total_seconds() for moment in due if moment is not None] == [
        pytest.approx(297.99, abs=0.01),
        pytest.approx(252.52, abs=0.01),
        pytest.approx(242.80, abs=0.01),
    ]


def test_nothing_is_due_without_a_sign_in_or_a_way_to_renew_it(sign_in: StoredSignIn) -> None:
    provider = sign_in.opened(refresh_token=None)

    assert provider.renewal_due_at() is None
    sign_in.path.unlink()
    assert provider.renewal_due_at() is None


def test_a_provider_that_renews_without_an_id_token_is_asked_again_after_longer_and_longer_pauses(
    sign_in: StoredSignIn, idp: ScriptedProvider, clock: FakeClock
) -> None:
    idp.refresh_changes["id_token"] = None
    sign_in.write(ends_in_seconds=-1)
    asked_after: list[int] = []

    for second in range(600):
        program = sign_in.open()  # none of them remembers what the one before was told
        before = len(idp.refreshes())
        with pytest.raises(LoginRequired, match="access tokens only"):
            program.get_token()
        if len(idp.refreshes()) > before:
            asked_after.append(second)
        clock.advance(1)

    assert asked_after == [0, 30, 61, 123, 247, 495]


def test_an_id_token_that_comes_late_is_used(sign_in: StoredSignIn, idp: ScriptedProvider, clock: FakeClock) -> None:
    idp.refresh_changes["id_token"] = None
    provider = sign_in.opened(ends_in_seconds=-10)
    with pytest.raises(LoginRequired):
        provider.get_token()
    due = provider.renewal_due_at()
    idp.refresh_changes.clear()

    clock.advance(30)

    assert provider.get_token() == sign_in.token()["id_token"]
    assert due == clock.now()


def test_a_renewal_under_way_holds_up_nobody_whose_token_is_still_valid(
    sign_in: StoredSignIn, idp: ScriptedProvider
) -> None:
    provider = sign_in.opened(ends_in_seconds=60)
    present = sign_in.token()["id_token"]
    began, go_on = threading.Event(), threading.Event()
    handle = idp.handle

    def slow(seen: Seen) -> Reply:
        began.set()
        assert go_on.wait(30)
        return handle(seen)

    idp.handle = slow  # type: ignore[method-assign]
    background = threading.Thread(target=provider.get_token)
    background.start()
    assert began.wait(30)

    meanwhile = [provider.get_token() for _ in range(100)]

    assert set(meanwhile) == {present}
    assert not go_on.is_set()
    go_on.set()
    background.join(60)
    assert provider.get_token() == sign_in.token()["id_token"] != present


def test_a_change_of_the_files_mode_during_a_refresh_loses_no_token(
    sign_in: StoredSignIn, idp: ScriptedProvider
) -> None:
    provider = sign_in.opened(ends_in_seconds=-10)
    handle = idp.handle

    def closing(seen: Seen) -> Reply:
        sign_in.path.chmod(0o640)  # as another thread does that reads a file which is open to others
        return handle(seen)

    idp.handle = closing  # type: ignore[method-assign]

    assert provider.get_token() == sign_in.token()["id_token"]
    assert sign_in.token()["refresh_token"] in idp.state.refresh_tokens
    assert len(idp.refreshes()) == 1


def test_a_sign_in_by_a_program_that_takes_no_lock_is_not_overwritten_by_a_refresh(
    sign_in: StoredSignIn, idp: ScriptedProvider
) -> None:
    provider = sign_in.opened(ends_in_seconds=-10)
    handle = idp.handle

    def signing_in_elsewhere(seen: Seen) -> Reply:
        reply = handle(seen)
        if seen.path == "/token":
            sign_in.write()
        return reply

    idp.handle = signing_in_elsewhere  # type: ignore[method-assign]

    token = provider.get_token()

    assert token == sign_in.token()["id_token"]
    assert sign_in.token()["refresh_token"] != idp.refreshes()[0].form["refresh_token"]
