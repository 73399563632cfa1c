from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth import Identity, OidcAuthProvider
from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.errors import LoginRequired
from tests.fakes.stored_sign_in import StoredSignIn

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.clock import FakeClock
    from tests.fakes.scripted_provider import DirectCalls, ScriptedProvider


def test_the_identity_is_what_the_id_token_says(idp: ScriptedProvider, clock: FakeClock, tmp_path: Path) -> None:
    identity = StoredSignIn(idp, tmp_path / "t.json", clock=clock).opened().identity()

    assert identity == Identity(
        subject="alice-1",
        name="Alice Example",
        email="alice@example.com",
        issuer=idp.issuer,
        expires_at=clock.now().replace(hour=13),
        renews=True,
    )
    assert idp.requests == []


def test_a_provider_in_memory_renews_in_memory(
    idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock, home: Path
) -> None:
    token = idp.stored_token(ends_in_seconds=-1)
    provider = OidcAuthProvider(idp.issuer, "notebook", token=token, http=calls, clock=clock)

    first = provider.get_token()
    clock.advance(3600)
    second = provider.get_token()

    assert len({token["id_token"], first, second}) == 3
    assert list(home.iterdir()) == []


def test_tokens_that_were_handed_in_are_stored_when_they_are_renewed(
    idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock, tmp_path: Path
) -> None:
    token = idp.stored_token(ends_in_seconds=-1)
    provider = OidcAuthProvider(
        idp.issuer, "notebook", token_file=tmp_path / "t.json", token=token, http=calls, clock=clock
    )

    renewed = provider.get_token()

    assert json.loads((tmp_path / "t.json").read_text())["token"]["id_token"] == renewed


def test_saving_without_a_file_uses_upstreams_default(idp: ScriptedProvider, clock: FakeClock, home: Path) -> None:
    provider = OidcAuthProvider(idp.issuer, "notebook", token=idp.stored_token(ends_in_seconds=3600), clock=clock)

    provider.save()

    assert (home / ".micromegas" / "tokens.json").stat().st_mode & 0o777 == 0o600
    assert provider.token_file == home / ".micromegas" / "tokens.json"


def test_nothing_to_save_means_login(idp: ScriptedProvider, clock: FakeClock, tmp_path: Path) -> None:
    provider = OidcAuthProvider(idp.issuer, "notebook", token_file=tmp_path / "t.json", clock=clock)

    with pytest.raises(LoginRequired):
        provider.save()
    assert not (tmp_path / "t.json").exists()


def test_an_unknown_bearer_is_an_error_of_the_caller(idp: ScriptedProvider, clock: FakeClock) -> None:
    provider = OidcAuthProvider(idp.issuer, "notebook", token=idp.stored_token(ends_in_seconds=3600), clock=clock)

    with pytest.raises(ValueError, match="refresh_token"):
        provider.get_token(bearer="refresh_token")  # type: ignore[arg-type]


def without_id_token(idp: ScriptedProvider, access_token: str = "opaque") -> dict[str, object]:
    token = idp.stored_token(ends_in_seconds=3600)
    del token["id_token"]
    return {**token, "access_token": access_token}


def test_the_bearer_is_the_one_that_the_provider_was_made_for(idp: ScriptedProvider, clock: FakeClock) -> None:
    token = idp.stored_token(ends_in_seconds=3600)

    provider = OidcAuthProvider(idp.issuer, "notebook", token=token, bearer=Bearer.ACCESS_TOKEN, clock=clock)

    assert provider.get_token() == token["access_token"]
    assert provider.get_token(bearer="id_token") == token["id_token"]


def test_without_an_id_token_the_access_token_is_still_given(idp: ScriptedProvider, clock: FakeClock) -> None:
    token = without_id_token(idp)

    provider = OidcAuthProvider(idp.issuer, "notebook", token=token, bearer=Bearer.ACCESS_TOKEN, clock=clock)

    assert provider.get_token() == "opaque"
    with pytest.raises(LoginRequired, match="does not say who"):
        provider.identity()


def test_a_store_is_followed_as_a_token_file_is(
    idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock, tmp_path: Path
) -> None:
    stored = StoredSignIn(idp, tmp_path / "t.json", clock=clock)
    stored.write()
    store = stored.store()

    provider = OidcAuthProvider(idp.issuer, "notebook", store=store, http=calls, clock=clock)

    assert provider.get_token() == stored.token()["id_token"]
    assert provider.store is store
    assert provider.token_file == tmp_path / "t.json"


def test_a_token_that_a_server_refused_is_renewed(idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock) -> None:
    provider = OidcAuthProvider(
        idp.issuer, "notebook", token=idp.stored_token(ends_in_seconds=3600), http=calls, clock=clock
    )
    refused = provider.get_token()
    clock.advance(60)

    provider.invalidate(refused)

    assert provider.get_token() != refused
    assert len(idp.refreshes()) == 1


def test_a_renewal_is_due_before_the_token_ends(idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock) -> None:
    provider = OidcAuthProvider(
        idp.issuer, "notebook", token=idp.stored_token(ends_in_seconds=3600), http=calls, clock=clock
    )

    due_at = provider.renewal_due_at()

    assert due_at is not None
    assert 3300 <= (due_at - clock.now()).total_seconds() < 3600


def test_a_clock_that_nobody_has_compared_counts_as_right(idp: ScriptedProvider, clock: FakeClock) -> None:
    provider = OidcAuthProvider(idp.issuer, "notebook", token=idp.stored_token(ends_in_seconds=3600), clock=clock)

    assert provider.clock_offset_seconds == 0


class NotedBrowser:
    """Implements `seams.Browser`; shows nothing and notes what it was to show."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    def open(self, url: str) -> bool:
        self.opened.append(url)
        return True


@pytest.mark.parametrize(("end_session", "expected"), [(True, 1), (False, 0)])
def test_the_session_at_the_provider_ends_when_that_is_asked_for(
    end_session: bool, expected: int, idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock
) -> None:
    idp.metadata_changes["end_session_endpoint"] = f"{idp.base}/logout"
    browser = NotedBrowser()
    token = idp.stored_token(ends_in_seconds=3600)
    provider = OidcAuthProvider(idp.issuer, "notebook", token=token, http=calls, clock=clock)

    report = provider.logout(end_session=end_session, browser=browser)

    assert report.refresh_token_revoked
    assert len([url for url in browser.opened if url.startswith(f"{idp.base}/logout")]) == expected
    with pytest.raises(LoginRequired):
        provider.get_token()
