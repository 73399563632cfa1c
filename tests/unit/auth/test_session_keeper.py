"""Renewal and the file as a whole provider object shows them; sockets and processes are tested elsewhere."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth import OidcAuthProvider
from micromegas_jupyter.auth.token_store import TokenStore
from micromegas_jupyter.errors import LoginRequired, ProviderMisbehaved, ProviderUnavailable
from tests.fakes.mint import rsa_key
from tests.fakes.scripted_provider import DirectCalls, Reply, ScriptedProvider

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fakes.clock import FakeClock

    Store = Callable[..., OidcAuthProvider]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


@pytest.fixture
def store(idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock, path: Path) -> Store:
    """Write a token file and take it up."""

    def write(*, ends_in_seconds: float = 3600, **changes: object) -> OidcAuthProvider:
        token = {**idp.stored_token(ends_in_seconds=ends_in_seconds), **changes}
        kept = {name: value for name, value in token.items() if value is not None}
        path.write_text(json.dumps({"issuer": idp.issuer, "client_id": "notebook", "token": kept}))
        return OidcAuthProvider.from_file(path, http=calls, clock=clock)

    return write


def stored(path: Path) -> dict[str, object]:
    return json.loads(path.read_text())["token"]


def test_a_fresh_token_is_given_without_any_request(store: Store, idp: ScriptedProvider, path: Path) -> None:
    provider = store()

    assert provider.get_token() == stored(path)["id_token"]
    assert provider.get_token(bearer="access_token") == stored(path)["access_token"]
    assert idp.requests == []


def test_an_ended_token_is_renewed_and_the_new_refresh_token_is_stored(
    store: Store, idp: ScriptedProvider, path: Path
) -> None:
    provider = store(ends_in_seconds=-10)
    before = stored(path)

    token = provider.get_token()

    after = stored(path)
    assert token == after["id_token"] != before["id_token"]
    assert after["refresh_token"] != before["refresh_token"]
    assert len(idp.refreshes()) == 1
    assert provider.get_token() == token
    assert len(idp.refreshes()) == 1


def test_a_token_is_renewed_in_its_last_minutes(store: Store, idp: ScriptedProvider, clock: FakeClock) -> None:
    provider = store()
    first = provider.get_token()
    clock.advance(3299)
    assert provider.get_token() == first
    clock.advance(1)

    assert provider.get_token() != first
    assert len(idp.refreshes()) == 1


def test_threads_that_need_a_token_at_once_renew_once(store: Store, idp: ScriptedProvider) -> None:
    provider = store(ends_in_seconds=-10)
    barrier = threading.Barrier(16)
    found: list[str] = []

    def call() -> None:
        barrier.wait(5)
        found.append(provider.get_token())

    threads = [threading.Thread(target=call) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert len(found) == 16
    assert len(set(found)) == 1
    assert len(idp.refreshes()) == 1


def test_a_second_object_takes_over_what_the_first_renewed(
    store: Store, idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock, path: Path
) -> None:
    first = store(ends_in_seconds=-10)
    second = OidcAuthProvider.from_file(path, http=calls, clock=clock)

    assert first.get_token() == second.get_token()
    assert len(idp.refreshes()) == 1


def test_a_refresh_without_a_new_refresh_token_keeps_the_old_one(
    store: Store, idp: ScriptedProvider, path: Path
) -> None:
    idp.refresh_changes["refresh_token"] = None
    provider = store(ends_in_seconds=-10)
    before = stored(path)["refresh_token"]

    provider.get_token()

    assert stored(path)["refresh_token"] == before


def test_a_refresh_without_an_id_token_serves_access_tokens_and_is_not_repeated(
    store: Store, idp: ScriptedProvider, path: Path
) -> None:
    idp.refresh_changes["id_token"] = None
    provider = store(ends_in_seconds=-10)
    before = stored(path)["id_token"]

    for _ in range(3):
        with pytest.raises(LoginRequired, match="access tokens only"):
            provider.get_token()

    assert provider.get_token(bearer="access_token") == stored(path)["access_token"]
    assert stored(path)["id_token"] == before
    assert len(idp.refreshes()) == 1


def test_a_refused_refresh_means_login_and_the_dead_token_is_never_sent_again(
    store: Store, idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock, path: Path
) -> None:
    provider = store(ends_in_seconds=-10, refresh_token="dead")

    for _ in range(3):
        with pytest.raises(LoginRequired):
            provider.get_token()
    with pytest.raises(LoginRequired):
        OidcAuthProvider.from_file(path, http=calls, clock=clock).get_token()

    assert len(idp.refreshes()) == 1


def test_a_session_without_a_refresh_token_serves_to_its_end(
    store: Store, idp: ScriptedProvider, clock: FakeClock
) -> None:
    provider = store(ends_in_seconds=60, refresh_token=None)
    first = provider.get_token()
    clock.advance(60)

    with pytest.raises(LoginRequired):
        provider.get_token()
    assert first
    assert idp.requests == []


def test_a_valid_token_serves_while_the_provider_is_down(
    store: Store, idp: ScriptedProvider, clock: FakeClock, path: Path
) -> None:
    provider = store(ends_in_seconds=120)
    idp.is_down = True

    found = {provider.get_token() for _ in range(50)}
    assert found == {stored(path)["id_token"]}
    assert len(idp.requests) == 1, "a provider that is down is asked again and again"

    clock.advance(121)
    with pytest.raises(ProviderUnavailable):
        provider.get_token()
    idp.is_down = False
    assert provider.get_token() not in found


def test_a_login_page_of_the_network_in_place_of_the_provider_costs_nothing(
    store: Store, idp: ScriptedProvider, path: Path
) -> None:
    provider = store(ends_in_seconds=-10)
    idp.reply_once("/token", Reply(text="<html>Hotel WiFi</html>", headers={"Content-Type": "text/html"}))

    with pytest.raises(ProviderMisbehaved):
        provider.get_token()

    assert path.exists()
    assert provider.get_token() == stored(path)["id_token"]


@pytest.mark.parametrize(
    "change",
    [{"sub": "mallory"}, {"iss": "https://evil.example"}, {"aud": "other"}, {"iat": 1_700_000_000}, {"azp": "other"}],
)
def test_a_refresh_that_brings_another_sign_in_ends_the_session(
    change: dict[str, object], store: Store, idp: ScriptedProvider, path: Path
) -> None:
    provider = store(ends_in_seconds=-10)
    idp.id_token_changes.update(change)

    with pytest.raises(ProviderMisbehaved):
        provider.get_token()

    assert not path.exists()
    with pytest.raises(LoginRequired):
        provider.get_token()


def test_an_unsigned_id_token_ends_the_session(store: Store, idp: ScriptedProvider, path: Path) -> None:
    provider = store(ends_in_seconds=-10)
    idp.unsigned = True

    with pytest.raises(ProviderMisbehaved):
        provider.get_token()

    assert not path.exists()


def test_a_new_refresh_token_survives_when_the_id_token_cannot_be_checked(
    store: Store, idp: ScriptedProvider, path: Path
) -> None:
    provider = store(ends_in_seconds=-10)
    provider.identity()
    provider._connection.keys()
    before = stored(path)
    idp.signing_key = rsa_key("new")
    idp.published_keys = (rsa_key("new"),)
    idp.reply_once("/keys", Reply(status=503))

    with pytest.raises(ProviderUnavailable):
        provider.get_token()

    after = stored(path)
    assert after["refresh_token"] != before["refresh_token"]
    assert after["id_token"] == before["id_token"]


def test_documents_are_fetched_before_the_refresh_token_is_spent(
    store: Store, idp: ScriptedProvider, path: Path
) -> None:
    provider = store(ends_in_seconds=-10)
    idp.reply_once("/keys", Reply(status=503))

    with pytest.raises(ProviderUnavailable):
        provider.get_token()

    assert idp.refreshes() == []


def test_a_logout_elsewhere_counts_here_and_the_file_is_not_written_again(
    store: Store, idp: ScriptedProvider, path: Path, clock: FakeClock
) -> None:
    provider = store()
    provider.get_token()
    path.unlink()
    clock.advance(3590)

    with pytest.raises(LoginRequired):
        provider.get_token()

    assert not path.exists()
    assert idp.requests == []


def test_a_logout_during_a_renewal_wins(store: Store, idp: ScriptedProvider, path: Path) -> None:
    provider = store(ends_in_seconds=-10)
    answer = idp.issue

    def log_out_meanwhile(**arguments: object) -> dict[str, object]:
        path.unlink()
        return answer(**arguments)  # type: ignore[arg-type]

    idp.issue = log_out_meanwhile  # type: ignore[method-assign]

    with pytest.raises(LoginRequired):
        provider.get_token()

    assert not path.exists()


def test_a_newer_login_elsewhere_is_used_here(store: Store, idp: ScriptedProvider, path: Path) -> None:
    provider = store(ends_in_seconds=-10)
    idp.id_token_changes["sub"] = "bob-2"
    store()

    assert provider.identity().subject == "bob-2"
    assert provider.get_token() == stored(path)["id_token"]
    assert idp.requests == []


def test_a_login_elsewhere_after_a_logout_is_used_here(store: Store, path: Path) -> None:
    provider = store()
    path.unlink()
    with pytest.raises(LoginRequired):
        provider.get_token()

    store()

    assert provider.get_token() == stored(path)["id_token"]


@pytest.mark.parametrize("change", [{"issuer": "https://evil.example"}, {"client_id": "other"}])
def test_a_login_of_another_provider_or_application_is_not_used(
    change: dict[str, str], store: Store, idp: ScriptedProvider, path: Path
) -> None:
    provider = store(ends_in_seconds=-10)
    document = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps(document))

    with pytest.raises(LoginRequired):
        provider.get_token()

    assert idp.requests == []
    assert json.loads(path.read_text()) == document


def test_tokens_that_cannot_be_stored_serve_from_memory(
    store: Store, idp: ScriptedProvider, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = store(ends_in_seconds=-10)
    before = path.read_text()

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(os, "fsync", fail)
        token = provider.get_token()

    assert path.read_text() == before
    assert provider.get_token() == token
    assert len(idp.refreshes()) == 1


def test_the_scope_that_was_granted_is_asked_for_again(store: Store, idp: ScriptedProvider) -> None:
    store(ends_in_seconds=-10, scope="openid email").get_token()

    assert idp.refreshes()[0].form["scope"] == "openid email"


def test_without_a_known_grant_no_scope_is_asked_for(store: Store, idp: ScriptedProvider) -> None:
    store(ends_in_seconds=-10, scope=None).get_token()

    assert "scope" not in idp.refreshes()[0].form


def test_without_a_refresh_token_a_token_in_its_last_minutes_serves_without_any_request(
    store: Store, idp: ScriptedProvider
) -> None:
    provider = store(ends_in_seconds=60, refresh_token=None)

    assert provider.get_token() == provider.get_token()
    assert idp.requests == []


def test_a_token_in_its_last_minutes_serves_while_another_process_renews(
    store: Store, idp: ScriptedProvider, path: Path
) -> None:
    provider = store(ends_in_seconds=60)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with TokenStore(path).locked():
            held.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(5)
    token = provider.get_token()
    done.set()
    holder.join(5)

    assert token == stored(path)["id_token"]
    assert idp.requests == []
    assert provider.get_token() != token


def test_a_refused_refresh_leaves_a_token_that_is_still_valid_in_use(
    store: Store, idp: ScriptedProvider, clock: FakeClock
) -> None:
    provider = store(ends_in_seconds=60, refresh_token="dead")

    first = provider.get_token()
    clock.advance(59)

    assert provider.get_token() == first
    clock.advance(1)
    with pytest.raises(LoginRequired):
        provider.get_token()
    assert len(idp.refreshes()) == 1


def test_a_session_in_memory_that_turns_into_another_is_dropped(
    idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock
) -> None:
    token = idp.stored_token(ends_in_seconds=-1)
    provider = OidcAuthProvider(idp.issuer, "notebook", token=token, http=calls, clock=clock)
    idp.id_token_changes["sub"] = "mallory"

    with pytest.raises(ProviderMisbehaved):
        provider.get_token()
    with pytest.raises(LoginRequired):
        provider.get_token()
    assert len(idp.refreshes()) == 1
