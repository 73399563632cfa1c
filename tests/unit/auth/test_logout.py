"""Tests of `auth.logout`: the end of one session."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth import LogoutReport, OidcAuthProvider
from micromegas_jupyter.auth.logout import end_login
from micromegas_jupyter.errors import LoginRequired
from tests.fakes.scripted_provider import DirectCalls, Reply, ScriptedProvider
from tests.unit.auth.applications import Applications, Browser

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.clock import FakeClock


@pytest.fixture
def path(idp: ScriptedProvider, tmp_path: Path) -> Path:
    place = tmp_path / "t.json"
    token = idp.stored_token(ends_in_seconds=3600)
    place.write_text(json.dumps({"issuer": idp.issuer, "client_id": "notebook", "token": token}))
    return place


@pytest.fixture
def provider(path: Path, calls: DirectCalls, clock: FakeClock) -> OidcAuthProvider:
    return OidcAuthProvider.from_file(path, http=calls, clock=clock)


def test_a_logout_revokes_the_refresh_token_and_says_what_stays_valid(
    provider: OidcAuthProvider, idp: ScriptedProvider, clock: FakeClock, path: Path
) -> None:
    token = json.loads(path.read_text())["token"]

    report = provider.logout()

    assert report == LogoutReport(
        issuer=idp.issuer,
        was_signed_in=True,
        files_removed=1,
        refresh_token_revoked=True,
        access_token_revoked=False,
        valid_until=clock.now().replace(hour=13),
        left_valid=("ID token", "access token"),
        ended_at=clock.now(),
    )
    sent = [(request.form["token_type_hint"], request.form["token"]) for request in idp.seen("/revoke")]
    assert sent == [("refresh_token", token["refresh_token"]), ("access_token", token["access_token"])]
    assert not path.exists()
    with pytest.raises(LoginRequired):
        provider.get_token()


def test_a_logout_elsewhere_is_a_logout_here(
    provider: OidcAuthProvider, path: Path, calls: DirectCalls, clock: FakeClock
) -> None:
    provider.get_token()

    OidcAuthProvider.from_file(path, http=calls, clock=clock).logout()

    with pytest.raises(LoginRequired):
        provider.get_token()


def test_the_newest_tokens_of_the_file_are_revoked(
    provider: OidcAuthProvider, idp: ScriptedProvider, path: Path
) -> None:
    document = json.loads(path.read_text())
    document["token"]["refresh_token"] = "newest"
    path.write_text(json.dumps(document))

    provider.logout()

    assert idp.seen("/revoke")[0].form["token"] == "newest"


def test_the_local_sign_in_ends_even_when_the_provider_is_down(
    provider: OidcAuthProvider, idp: ScriptedProvider, path: Path
) -> None:
    idp.is_down = True

    report = provider.logout()

    assert (report.files_removed, report.refresh_token_revoked, report.provider_answered) == (1, False, False)
    assert report.problem == "The identity provider 127.0.0.1 answered with status 503."
    assert not path.exists()


def test_a_refused_revocation_is_reported(provider: OidcAuthProvider, idp: ScriptedProvider) -> None:
    idp.reply_once("/revoke", Reply(status=400, body={"error": "invalid_client"}))

    report = provider.logout()

    assert (report.refresh_token_revoked, report.problem) == (False, "invalid_client")
    assert len(idp.seen("/revoke")) == 1


def test_tokens_that_have_ended_stay_valid_for_nobody(provider: OidcAuthProvider, clock: FakeClock) -> None:
    clock.advance(7200)

    assert provider.logout().valid_until is None


def test_a_second_logout_finds_nobody(provider: OidcAuthProvider, idp: ScriptedProvider) -> None:
    provider.logout()

    assert provider.logout() == LogoutReport(issuer=idp.issuer, was_signed_in=False)


def test_a_logout_leaves_the_sign_in_of_another_application_alone(
    provider: OidcAuthProvider, path: Path, idp: ScriptedProvider
) -> None:
    document = {**json.loads(path.read_text()), "client_id": "other"}
    path.write_text(json.dumps(document))

    provider.logout()

    assert json.loads(path.read_text()) == document
    assert "newest" not in [request.form["token"] for request in idp.seen("/revoke")]


def test_a_damaged_file_is_removed(provider: OidcAuthProvider, path: Path) -> None:
    path.write_text("{")

    report = provider.logout()

    assert report.files_removed == 1
    assert not path.exists()


def test_a_sign_in_in_memory_is_ended_in_memory(idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock) -> None:
    token = idp.stored_token(ends_in_seconds=3600)
    provider = OidcAuthProvider(idp.issuer, "notebook", token=token, http=calls, clock=clock)

    report = provider.logout()

    assert (report.was_signed_in, report.files_removed, report.refresh_token_revoked) == (True, 0, True)
    with pytest.raises(LoginRequired):
        provider.get_token()


def test_a_session_in_memory_can_end_the_session_at_the_provider(
    provider: OidcAuthProvider, idp: ScriptedProvider, applications: Applications, clock: FakeClock
) -> None:
    idp.metadata_changes["end_session_endpoint"] = f"{idp.base}/end"
    browser = Browser()
    connection = applications.connect(idp.issuer, "notebook")

    report = end_login(provider._manager, connection, clock=clock, browser=browser)

    assert report.end_session_url == f"{idp.base}/end?client_id=notebook"
