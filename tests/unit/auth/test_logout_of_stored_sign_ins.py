"""Tests of `auth.logout`: the end of all stored sign-ins, and of their sessions at the providers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.logout import end_stored_logins
from micromegas_jupyter.auth.tokens.store import FileTokenStore
from micromegas_jupyter.errors import TokenStoreError
from tests.unit.auth.applications import Applications, Browser

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from micromegas_jupyter.auth import LogoutReport
    from tests.fakes.clock import FakeClock
    from tests.fakes.scripted_provider import DirectCalls, ScriptedProvider


def keep(
    idp: ScriptedProvider, path: Path, *, issuer: str | None = None, client_id: str = "notebook"
) -> FileTokenStore:
    idp.client_id = client_id
    token = idp.stored_token(ends_in_seconds=3600)
    document = {"issuer": issuer or idp.issuer, "client_id": client_id, "token": token}
    path.write_text(json.dumps(document))
    return FileTokenStore(path)


def end(
    stores: Iterable[FileTokenStore], applications: Applications, idp: ScriptedProvider, clock: FakeClock
) -> LogoutReport:
    return end_stored_logins(stores, applications.connect, issuer=idp.issuer, client_id="notebook", clock=clock)


def test_every_sign_in_is_removed_and_revoked(
    idp: ScriptedProvider, applications: Applications, clock: FakeClock, tmp_path: Path
) -> None:
    stores = [keep(idp, tmp_path / "a.json"), keep(idp, tmp_path / "b.json", client_id="other")]
    tokens = [store.load()[0].tokens.refresh_token for store in stores]

    report = end(stores, applications, idp, clock)

    assert (report.was_signed_in, report.files_removed, report.refresh_token_revoked) == (True, 2, True)
    revoked = [seen.form["token"] for seen in idp.seen("/revoke") if seen.form["token_type_hint"] == "refresh_token"]
    assert revoked == [token.reveal() for token in tokens if token is not None]
    assert not list(tmp_path.glob("*.json"))


def test_all_sign_ins_have_ended_here_before_a_provider_is_called(
    idp: ScriptedProvider, applications: Applications, clock: FakeClock, tmp_path: Path
) -> None:
    stores = [keep(idp, tmp_path / "a.json"), keep(idp, tmp_path / "b.json")]
    left_at_first_call: list[Path] = []
    handle = idp.handle
    idp.handle = lambda seen: (left_at_first_call.extend(tmp_path.glob("*.json")), handle(seen))[1]  # type: ignore[method-assign]

    end(stores, applications, idp, clock)

    assert idp.requests
    assert left_at_first_call == []


def test_a_provider_that_is_down_is_asked_once(
    idp: ScriptedProvider, applications: Applications, clock: FakeClock, tmp_path: Path
) -> None:
    stores = [keep(idp, tmp_path / f"{name}.json") for name in "abc"]
    idp.is_down = True

    report = end(stores, applications, idp, clock)

    assert (report.files_removed, report.provider_answered) == (3, False)
    assert len(idp.requests) == 1


def test_a_sign_in_at_another_provider_is_reported_beside(
    idp: ScriptedProvider, applications: Applications, clock: FakeClock, tmp_path: Path
) -> None:
    stores = [keep(idp, tmp_path / "a.json"), keep(idp, tmp_path / "b.json", issuer="https://other.example.com")]

    report = end(stores, applications, idp, clock)

    assert (report.issuer, report.files_removed, report.problem) == (idp.issuer, 1, None)
    [other] = report.others
    assert (other.issuer, other.files_removed, other.provider_answered) == ("https://other.example.com", 1, False)


def test_the_configured_applications_secret_is_used_for_it_alone(
    idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock, tmp_path: Path
) -> None:
    stores = [keep(idp, tmp_path / "a.json"), keep(idp, tmp_path / "b.json", client_id="other")]

    end(stores, Applications(calls, clock, secrets={"notebook": "s3cret"}), idp, clock)

    sent = {("authorization" in seen.headers, seen.form.get("client_id")) for seen in idp.seen("/revoke")}
    assert sent == {(True, None), (False, "other")}


def test_an_issuer_that_no_token_may_be_sent_to_is_not_called(
    idp: ScriptedProvider, applications: Applications, clock: FakeClock, tmp_path: Path
) -> None:
    store = keep(idp, tmp_path / "a.json", issuer="http://id.example.com")

    report = end([store], applications, idp, clock)

    assert report.others[0].problem is not None
    assert idp.requests == []
    assert not (tmp_path / "a.json").exists()


def test_a_damaged_sign_in_is_removed_without_a_request(
    idp: ScriptedProvider, applications: Applications, clock: FakeClock, tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_text("{")

    report = end([FileTokenStore(tmp_path / "a.json")], applications, idp, clock)

    assert (report.was_signed_in, report.files_removed, idp.requests) == (True, 1, [])


def test_a_link_is_removed_and_what_it_points_to_is_not(
    idp: ScriptedProvider, applications: Applications, clock: FakeClock, tmp_path: Path
) -> None:
    keep(idp, tmp_path / "elsewhere")
    (tmp_path / "a.json").symlink_to(tmp_path / "elsewhere")

    report = end([FileTokenStore(tmp_path / "a.json")], applications, idp, clock)

    assert (report.files_removed, idp.requests) == (1, [])
    assert "symbolic link" in (report.problem or "")
    assert (tmp_path / "elsewhere").exists()


def test_a_sign_in_that_cannot_be_removed_is_an_error_after_all_others_have_ended(
    idp: ScriptedProvider, applications: Applications, clock: FakeClock, tmp_path: Path
) -> None:
    (tmp_path / "a.json").mkdir()
    stores = [FileTokenStore(tmp_path / "a.json"), keep(idp, tmp_path / "b.json")]

    with pytest.raises(TokenStoreError, match=r"a\.json"):
        end(stores, applications, idp, clock)

    assert not (tmp_path / "b.json").exists()
    assert len(idp.seen("/revoke")) == 2


def test_a_profile_without_a_provider_reports_the_sign_in_that_was_there(
    idp: ScriptedProvider, applications: Applications, clock: FakeClock, tmp_path: Path
) -> None:
    store = keep(idp, tmp_path / "a.json")

    report = end_stored_logins([store], applications.connect, issuer=None, client_id=None, clock=clock)

    assert (report.issuer, report.refresh_token_revoked) == (idp.issuer, True)


def test_nobody_signed_in_anywhere_is_said_so(applications: Applications, clock: FakeClock) -> None:
    report = end_stored_logins([], applications.connect, issuer=None, client_id=None, clock=clock)

    assert str(report) == "Nobody was signed in."
    assert applications.connected == []


def test_a_sign_in_in_a_folder_that_others_can_change_ends_like_any_other(
    idp: ScriptedProvider, applications: Applications, clock: FakeClock, tmp_path: Path
) -> None:
    store = keep(idp, tmp_path / "a.json")
    tmp_path.chmod(0o777)

    report = end([store], applications, idp, clock)

    assert (report.files_removed, report.refresh_token_revoked, report.problem) == (1, True, None)


def test_a_second_program_that_holds_the_lock_does_not_keep_the_sign_in(
    idp: ScriptedProvider, applications: Applications, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = keep(idp, tmp_path / "a.json")
    monkeypatch.setattr("micromegas_jupyter.auth.logout.LOCK_WAIT_SECONDS", 0.1)

    with FileTokenStore(store.path).locked():
        report = end([store], applications, idp, clock)

    assert (report.files_removed, report.refresh_token_revoked) == (1, True)
    assert "Another program" in (report.problem or "")


def test_ending_the_session_at_the_provider_puts_no_token_into_the_address(
    idp: ScriptedProvider, applications: Applications, clock: FakeClock, tmp_path: Path
) -> None:
    idp.metadata_changes["end_session_endpoint"] = f"{idp.base}/end"
    browser = Browser()
    store = keep(idp, tmp_path / "a.json")

    report = end_stored_logins(
        [store], applications.connect, issuer=idp.issuer, client_id="notebook", clock=clock, browser=browser
    )

    assert browser.opened == [f"{idp.base}/end?client_id=notebook"]
    assert (report.end_session_opened, report.refresh_token_revoked) == (True, True)


def test_the_session_at_the_provider_is_ended_even_when_nobody_is_signed_in_here(
    idp: ScriptedProvider, applications: Applications, clock: FakeClock
) -> None:
    idp.metadata_changes["end_session_endpoint"] = f"{idp.base}/end"
    browser = Browser()

    end_stored_logins([], applications.connect, issuer=idp.issuer, client_id="notebook", clock=clock, browser=browser)

    assert browser.opened == [f"{idp.base}/end?client_id=notebook"]


def test_the_session_of_each_provider_is_ended(
    idp: ScriptedProvider, applications: Applications, clock: FakeClock, tmp_path: Path
) -> None:
    idp.metadata_changes["end_session_endpoint"] = None
    stores = [keep(idp, tmp_path / "a.json"), keep(idp, tmp_path / "b.json", issuer="https://other.example.com")]

    report = end_stored_logins(
        stores, applications.connect, issuer=idp.issuer, client_id="notebook", clock=clock, browser=Browser()
    )

    assert report.end_session_problem == "The identity provider has no page that ends a session."
    assert report.others[0].end_session_problem == "The identity provider is another one."
