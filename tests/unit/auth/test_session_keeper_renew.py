"""A person may have the token renewed at once; then a failure is news, also while the token is still valid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.errors import LoginRequired, ProviderUnavailable
from tests.fakes.stored_sign_in import StoredSignIn

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.clock import FakeClock
    from tests.fakes.scripted_provider import ScriptedProvider


@pytest.fixture
def sign_in(idp: ScriptedProvider, clock: FakeClock, tmp_path: Path) -> StoredSignIn:
    return StoredSignIn(idp, tmp_path / "tokens.json", clock=clock)


def test_a_fresh_token_is_renewed_when_that_is_asked_for(sign_in: StoredSignIn, idp: ScriptedProvider) -> None:
    provider = sign_in.opened()
    before = provider.get_token()

    provider.renew()

    assert provider.get_token() == sign_in.token()["id_token"] != before
    assert len(idp.refreshes()) == 1


def test_asking_again_and_again_renews_once_in_ten_seconds(
    sign_in: StoredSignIn, idp: ScriptedProvider, clock: FakeClock
) -> None:
    provider = sign_in.opened()

    for _ in range(20):
        provider.renew()
        clock.advance(1)

    assert len(idp.refreshes()) == 2


def test_a_provider_that_is_down_is_said_and_asked_no_more_than_this_once(
    sign_in: StoredSignIn, idp: ScriptedProvider, clock: FakeClock
) -> None:
    provider = sign_in.opened()
    present = provider.get_token()
    idp.is_down = True

    with pytest.raises(ProviderUnavailable):
        provider.renew()

    asked = len(idp.requests)
    clock.advance(60)
    assert provider.get_token() == present
    assert len(idp.requests) == asked


def test_a_sign_in_that_the_provider_has_ended_is_said_and_its_token_serves_on(sign_in: StoredSignIn) -> None:
    provider = sign_in.opened(refresh_token="dead")
    present = provider.get_token()

    with pytest.raises(LoginRequired):
        provider.renew()

    assert provider.get_token() == present
    assert not provider.identity().renews


def test_what_nobody_can_renew_is_left_as_it_is(sign_in: StoredSignIn, idp: ScriptedProvider) -> None:
    provider = sign_in.opened(refresh_token=None)

    provider.renew()

    assert idp.requests == []


def test_a_person_who_has_signed_out_elsewhere_is_told(sign_in: StoredSignIn) -> None:
    provider = sign_in.opened()
    sign_in.path.unlink()

    with pytest.raises(LoginRequired):
        provider.renew()
