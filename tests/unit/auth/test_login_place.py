from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.flows.pending import StoreWatch
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.errors import LoginFailed, TokenStoreError
from tests.fakes.stored_sign_in import StoredSignIn

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.clock import FakeClock
    from tests.fakes.scripted_provider import DirectCalls, ScriptedProvider


@pytest.fixture
def kept(idp: ScriptedProvider, clock: FakeClock, tmp_path: Path) -> StoredSignIn:
    return StoredSignIn(idp, tmp_path / "tokens.json", clock=clock)


@pytest.fixture
def connection(idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock) -> ProviderConnection:
    return ProviderConnection(idp.issuer, "notebook", None, http=calls, clock=clock)


def test_a_sign_out_since_is_seen(kept: StoredSignIn) -> None:
    kept.write()
    place = StoreWatch(kept.store())
    kept.store().remove()

    with pytest.raises(LoginFailed, match="You signed out meanwhile") as caught:
        place.check_not_emptied()

    assert type(caught.value) is LoginFailed


def test_a_place_that_was_empty_may_still_be(kept: StoredSignIn) -> None:
    StoreWatch(kept.store()).check_not_emptied()


def test_a_place_that_was_filled_since_is_no_hindrance(kept: StoredSignIn) -> None:
    place = StoreWatch(kept.store())
    kept.write()

    place.check_not_emptied()


def test_a_sign_in_that_was_replaced_since_is_no_hindrance(kept: StoredSignIn) -> None:
    kept.write()
    place = StoreWatch(kept.store())
    kept.store().remove()
    kept.write()

    place.check_not_emptied()


def test_a_sign_in_in_memory_has_no_place_to_be_emptied() -> None:
    StoreWatch(None).check_not_emptied()


def test_tokens_that_were_not_kept_are_revoked(
    kept: StoredSignIn, connection: ProviderConnection, clock: FakeClock, idp: ScriptedProvider
) -> None:
    StoreWatch(kept.store()).discard(kept.login().tokens, connection, clock=clock)

    assert [request.form["token_type_hint"] for request in idp.seen("/revoke")] == ["refresh_token", "access_token"]


def test_while_a_sign_in_is_kept_nothing_of_the_persons_is_revoked(
    kept: StoredSignIn, connection: ProviderConnection, clock: FakeClock, idp: ScriptedProvider
) -> None:
    kept.write()

    StoreWatch(kept.store()).discard(kept.login().tokens, connection, clock=clock)

    assert idp.seen("/revoke") == []


def test_where_it_cannot_be_known_whether_a_sign_in_is_kept_nothing_is_revoked(
    kept: StoredSignIn,
    connection: ProviderConnection,
    clock: FakeClock,
    idp: ScriptedProvider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = kept.store()
    place = StoreWatch(store)

    def fail() -> None:
        raise TokenStoreError("The token file cannot be looked at.")

    monkeypatch.setattr(store, "mark", fail)
    place.discard(kept.login().tokens, connection, clock=clock)

    assert idp.seen("/revoke") == []


def test_a_provider_that_cannot_be_reached_costs_a_line_in_the_log(
    connection: ProviderConnection,
    clock: FakeClock,
    idp: ScriptedProvider,
    kept: StoredSignIn,
    caplog: pytest.LogCaptureFixture,
) -> None:
    idp.is_down = True

    StoreWatch(None).discard(kept.login().tokens, connection, clock=clock)

    assert "could not be revoked" in caplog.text
