"""A token that the server refused is renewed however fresh it looks, and not again and again."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

import pytest

from tests.fakes.stored_sign_in import StoredSignIn

if TYPE_CHECKING:
    from pathlib import Path

    from micromegas_jupyter.auth.tokens.manager import Session
    from tests.fakes.clock import FakeClock
    from tests.fakes.scripted_provider import Reply, ScriptedProvider, Seen


@pytest.fixture
def sign_in(idp: ScriptedProvider, clock: FakeClock, tmp_path: Path) -> StoredSignIn:
    return StoredSignIn(idp, tmp_path / "tokens.json", clock=clock)


def test_a_refused_token_is_renewed_although_it_looks_fresh(sign_in: StoredSignIn, idp: ScriptedProvider) -> None:
    provider = sign_in.opened()
    refused = provider.get_token()

    provider.invalidate(refused)

    renewed = provider.get_token()
    assert renewed == sign_in.token()["id_token"] != refused
    assert provider.get_token() == renewed
    assert len(idp.refreshes()) == 1


def test_a_refused_access_token_is_renewed_too(sign_in: StoredSignIn, idp: ScriptedProvider) -> None:
    provider = sign_in.opened()
    refused = provider.get_token(bearer="access_token")

    provider.invalidate(refused)

    assert provider.get_token(bearer="access_token") == sign_in.token()["access_token"] != refused
    assert len(idp.refreshes()) == 1


def test_a_token_that_is_not_in_use_any_more_changes_nothing(
    sign_in: StoredSignIn, idp: ScriptedProvider, clock: FakeClock
) -> None:
    provider = sign_in.opened()
    old = provider.get_token()
    clock.advance(3400)
    present = provider.get_token()

    provider.invalidate(old)
    provider.invalidate("never-seen")

    assert provider.get_token() == present
    assert len(idp.refreshes()) == 1


def test_programs_that_were_refused_the_same_token_renew_it_once(sign_in: StoredSignIn, idp: ScriptedProvider) -> None:
    sign_in.write()
    programs = [sign_in.open() for _ in range(4)]
    refused = {program.get_token() for program in programs}
    for program in programs:
        program.invalidate(*refused)

    renewed = {program.get_token() for program in programs}

    assert len(renewed) == 1
    assert renewed != refused
    assert len(idp.refreshes()) == 1


def test_threads_that_were_refused_the_same_token_renew_it_once(sign_in: StoredSignIn, idp: ScriptedProvider) -> None:
    provider = sign_in.opened()
    refused = provider.get_token()
    barrier = threading.Barrier(8)
    found: list[str] = []

    def call() -> None:
        barrier.wait(30)
        provider.invalidate(refused)
        found.append(provider.get_token())

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(found) == 8
    assert set(found) == {sign_in.token()["id_token"]} != {refused}
    assert len(idp.refreshes()) == 1


def test_a_server_that_refuses_everything_causes_one_renewal_in_ten_seconds(
    sign_in: StoredSignIn, idp: ScriptedProvider, clock: FakeClock
) -> None:
    provider = sign_in.opened()

    for _ in range(60):
        provider.invalidate(provider.get_token())
        provider.get_token()
        clock.advance(1)

    assert len(idp.refreshes()) == 6


def test_a_renewal_of_a_refused_token_that_fails_leaves_the_token_in_use(
    sign_in: StoredSignIn, idp: ScriptedProvider, clock: FakeClock
) -> None:
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


def test_a_renewal_of_a_refused_token_that_is_refused_itself_leaves_the_token_in_use(
    sign_in: StoredSignIn, idp: ScriptedProvider, clock: FakeClock
) -> None:
    provider = sign_in.opened(refresh_token="dead")
    present = provider.get_token()
    provider.invalidate(present)

    assert provider.get_token() == present
    clock.advance(60)
    provider.invalidate(present)
    assert provider.get_token() == present == sign_in.token()["id_token"]
    assert len(idp.refreshes()) == 1


def test_a_refused_token_that_cannot_be_renewed_stays_in_use(sign_in: StoredSignIn, idp: ScriptedProvider) -> None:
    provider = sign_in.opened(refresh_token=None)
    present = provider.get_token()

    provider.invalidate(present)

    assert provider.get_token() == present
    assert idp.requests == []


def test_a_refusal_after_a_logout_is_not_an_error(sign_in: StoredSignIn) -> None:
    provider = sign_in.opened()
    present = provider.get_token()
    sign_in.path.unlink()

    provider.invalidate(present)

    assert provider.renewal_due_at() is None


def test_whoever_was_refused_waits_for_the_renewal_that_another_thread_has_begun(
    sign_in: StoredSignIn, idp: ScriptedProvider
) -> None:
    provider = sign_in.opened()
    refused = provider.get_token()
    began, go_on = threading.Event(), threading.Event()
    handle = idp.handle

    def slow(seen: Seen) -> Reply:
        if seen.path == "/token":
            began.set()
            assert go_on.wait(30)
        return handle(seen)

    idp.handle = slow  # type: ignore[method-assign]
    provider.invalidate(refused)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(provider.get_token())) for _ in range(2)]
    threads[0].start()
    assert began.wait(30)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(60)

    assert set(found) == {sign_in.token()["id_token"]} != {refused}
    assert len(idp.refreshes()) == 1


def test_whoever_read_the_refused_token_just_before_another_renewed_it_gets_the_new_one(
    sign_in: StoredSignIn, idp: ScriptedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = sign_in.opened()
    refused = provider.get_token()
    provider.invalidate(refused)
    kept = provider._manager
    read = kept.current

    def slowly(**options: bool) -> Session:
        session = read(**options)
        monkeypatch.setattr(kept, "current", read)
        other = threading.Thread(target=provider.get_token)
        other.start()
        other.join(60)
        return session

    monkeypatch.setattr(kept, "current", slowly)

    assert provider.get_token() == sign_in.token()["id_token"] != refused
    assert len(idp.refreshes()) == 1


def test_nothing_of_a_refused_token_is_logged_or_shown(
    sign_in: StoredSignIn, idp: ScriptedProvider, caplog: pytest.LogCaptureFixture
) -> None:
    provider = sign_in.opened()
    refused = provider.get_token()
    idp.is_down = True

    with caplog.at_level(logging.DEBUG):
        provider.invalidate(refused)
        provider.get_token()

    assert refused not in caplog.text
    assert refused not in repr(vars(provider._manager))
