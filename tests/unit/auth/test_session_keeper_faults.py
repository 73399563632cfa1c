"""Renewals that fail, as a whole provider object shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth import OidcAuthProvider
from micromegas_jupyter.errors import LoginRequired, ProviderMisbehaved, ProviderUnavailable
from tests.fakes.mint import rsa_key
from tests.fakes.scripted_provider import DirectCalls, Reply, ScriptedProvider, Seen
from tests.fakes.stored_sign_in import StoredSignIn

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.clock import FakeClock


@pytest.fixture
def sign_in(idp: ScriptedProvider, clock: FakeClock, tmp_path: Path) -> StoredSignIn:
    return StoredSignIn(idp, tmp_path / "tokens.json", clock=clock)


def test_a_refused_refresh_means_login_and_the_dead_token_is_never_sent_again(
    sign_in: StoredSignIn, idp: ScriptedProvider
) -> None:
    provider = sign_in.opened(ends_in_seconds=-10, refresh_token="dead")

    for _ in range(3):
        with pytest.raises(LoginRequired):
            provider.get_token()
    with pytest.raises(LoginRequired):
        sign_in.open().get_token()

    assert len(idp.refreshes()) == 1


def test_a_valid_token_serves_while_the_provider_is_down(
    sign_in: StoredSignIn, idp: ScriptedProvider, clock: FakeClock
) -> None:
    provider = sign_in.opened(ends_in_seconds=120)
    idp.is_down = True

    found = {provider.get_token() for _ in range(50)}
    assert found == {sign_in.token()["id_token"]}
    assert len(idp.requests) == 1, "a provider that is down is asked again and again"

    clock.advance(121)
    with pytest.raises(ProviderUnavailable):
        provider.get_token()
    idp.is_down = False
    assert provider.get_token() not in found


def test_a_login_page_of_the_network_in_place_of_the_provider_costs_nothing(
    sign_in: StoredSignIn, idp: ScriptedProvider
) -> None:
    provider = sign_in.opened(ends_in_seconds=-10)
    idp.reply_once("/token", Reply(text="<html>Hotel WiFi</html>", headers={"Content-Type": "text/html"}))

    with pytest.raises(ProviderMisbehaved):
        provider.get_token()

    assert sign_in.path.exists()
    assert provider.get_token() == sign_in.token()["id_token"]


def test_a_renewal_for_another_person_is_not_used_and_not_repeated(
    sign_in: StoredSignIn, idp: ScriptedProvider
) -> None:
    provider = sign_in.opened(ends_in_seconds=-10)
    before = sign_in.token()
    idp.id_token_changes["sub"] = "mallory"

    with pytest.raises(ProviderMisbehaved):
        provider.get_token()

    idp.id_token_changes.clear()
    with pytest.raises(LoginRequired):
        provider.get_token()
    assert sign_in.token() == {name: value for name, value in before.items() if name != "refresh_token"}
    assert len(idp.refreshes()) == 1


@pytest.mark.parametrize(
    "change",
    [{"iss": "https://evil.example"}, {"aud": "other"}, {"azp": "other"}, {"exp": 1}, {"iat": 1_700_000_000}],
)
def test_a_renewal_with_an_id_token_that_is_not_acceptable_can_be_tried_again(
    change: dict[str, object], sign_in: StoredSignIn, idp: ScriptedProvider
) -> None:
    provider = sign_in.opened(ends_in_seconds=-10)
    before = sign_in.token()
    idp.id_token_changes.update(change)

    with pytest.raises(ProviderMisbehaved):
        provider.get_token()

    after = sign_in.token()
    assert (after["id_token"], after["access_token"]) == (before["id_token"], before["access_token"])
    idp.id_token_changes.clear()
    assert provider.get_token() == sign_in.token()["id_token"] != before["id_token"]


def test_an_unsigned_id_token_takes_nothing_from_a_token_that_still_serves(
    sign_in: StoredSignIn, idp: ScriptedProvider, clock: FakeClock
) -> None:
    provider = sign_in.opened(ends_in_seconds=60)
    before = sign_in.token()["id_token"]
    idp.unsigned = True

    assert provider.get_token() == before
    assert sign_in.token()["id_token"] == before
    idp.unsigned = False
    clock.advance(30)
    assert provider.get_token() == sign_in.token()["id_token"] != before


def test_a_new_refresh_token_survives_when_the_id_token_cannot_be_checked(
    sign_in: StoredSignIn, idp: ScriptedProvider
) -> None:
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


def test_documents_are_fetched_before_the_refresh_token_is_spent(sign_in: StoredSignIn, idp: ScriptedProvider) -> None:
    provider = sign_in.opened(ends_in_seconds=-10)
    idp.reply_once("/keys", Reply(status=503))

    with pytest.raises(ProviderUnavailable):
        provider.get_token()

    assert idp.refreshes() == []


def test_a_refused_refresh_leaves_a_token_that_is_still_valid_in_use(
    sign_in: StoredSignIn, idp: ScriptedProvider, clock: FakeClock
) -> None:
    provider = sign_in.opened(ends_in_seconds=60, refresh_token="dead")

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


def test_a_program_that_takes_no_lock_may_have_been_faster(sign_in: StoredSignIn, idp: ScriptedProvider) -> None:
    provider = sign_in.opened(ends_in_seconds=-10, refresh_token="spent")
    handle = idp.handle

    def renewed_meanwhile(seen: Seen) -> Reply:
        if seen.path == "/token":
            sign_in.write()
        return handle(seen)

    idp.handle = renewed_meanwhile  # type: ignore[method-assign]

    assert provider.get_token() == sign_in.token()["id_token"]
    assert "refresh_token" in sign_in.token()
