"""The end of one sign-in, of all of a profile, and of sessions at providers; what the report says of it."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from micromegas_jupyter.auth import LogoutReport, OidcAuthProvider
from micromegas_jupyter.auth.logout import Revocation, RevocationCalls, _joined, end_stored_logins
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.tokens.store import FileTokenStore
from micromegas_jupyter.config.client import ClientSettings
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import LoginRequired, TokenStoreError
from micromegas_jupyter.oidc.authorization import TokenSet
from micromegas_jupyter.wiring.client_side import logout
from tests.fakes.scripted_provider import Reply


@pytest.fixture
def connect(calls, clock):
    return lambda issuer, client_id: ProviderConnection(issuer, client_id, None, http=calls, clock=clock)


def write_tokens(idp, path, *, issuer=None, client_id="notebook"):
    idp.client_id = client_id
    token = idp.stored_token(ends_in_seconds=3600)
    path.write_text(json.dumps({"issuer": issuer or idp.issuer, "client_id": client_id, "token": token}))
    return token


def test_revokes_both_tokens_and_says_what_stays_valid(idp, calls, clock, tmp_path):
    path = tmp_path / "t.json"
    token = write_tokens(idp, path)
    provider = OidcAuthProvider.from_file(path, http=calls, clock=clock)

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
    assert provider.logout() == LogoutReport(issuer=idp.issuer, was_signed_in=False)

    write_tokens(idp, path, client_id="other")
    before = path.read_text()
    provider.logout()  # leaves the sign-in of another application alone
    assert path.read_text() == before


class TestStoredSignIns:
    """`end_stored_logins`."""

    @pytest.fixture
    def end(self, idp, connect, clock):
        options = {"clock": clock, "issuer": idp.issuer, "client_id": "notebook"}
        return lambda paths: end_stored_logins(map(FileTokenStore, paths), connect, **options)

    def test_are_removed_and_revoked(self, idp, end, tmp_path):
        paths = [tmp_path / "a.json", tmp_path / "b.json"]
        tokens = [write_tokens(idp, paths[0]), write_tokens(idp, paths[1], client_id="other")]
        left_at_first_call = []
        handle = idp.handle
        idp.handle = lambda seen: (left_at_first_call.extend(tmp_path.glob("*.json")), handle(seen))[1]

        report = end(paths)

        assert (report.was_signed_in, report.files_removed, report.refresh_token_revoked) == (True, 2, True)
        revoked = {seen.form["token"] for seen in idp.seen("/revoke")}
        assert revoked >= {token["refresh_token"] for token in tokens}
        assert left_at_first_call == [], "a provider was called before all sign-ins had ended here"

    def test_cost_a_provider_that_is_down_one_call(self, idp, end, tmp_path):
        paths = [tmp_path / f"{name}.json" for name in "abc"]
        for path in paths:
            write_tokens(idp, path)
        idp.is_down = True

        report = end(paths)

        assert (report.files_removed, report.provider_answered) == (3, False)
        assert len(idp.requests) == 1

    def test_at_another_provider_are_reported_beside(self, idp, end, tmp_path):
        paths = [tmp_path / "a.json", tmp_path / "b.json"]
        write_tokens(idp, paths[0])
        write_tokens(idp, paths[1], issuer="https://other.example.com")

        report = end(paths)

        assert (report.issuer, report.files_removed, report.problem) == (idp.issuer, 1, None)
        [other] = report.others
        assert (other.issuer, other.files_removed, other.provider_answered) == ("https://other.example.com", 1, False)

    def test_behind_a_link_are_left_alone_and_the_link_is_removed(self, idp, end, tmp_path):
        write_tokens(idp, tmp_path / "elsewhere")
        (tmp_path / "a.json").symlink_to(tmp_path / "elsewhere")

        report = end([tmp_path / "a.json"])

        assert (report.files_removed, idp.requests) == (1, [])
        assert "symbolic link" in (report.problem or "")
        assert (tmp_path / "elsewhere").exists()

    def test_that_cannot_be_removed_are_an_error_after_all_others_have_ended(self, idp, end, tmp_path):
        (tmp_path / "a.json").mkdir()
        write_tokens(idp, tmp_path / "b.json")

        with pytest.raises(TokenStoreError, match=r"a\.json"):
            end([tmp_path / "a.json", tmp_path / "b.json"])

        assert not (tmp_path / "b.json").exists()
        assert len(idp.seen("/revoke")) == 2

    def test_end_in_a_folder_that_others_can_change_and_under_a_foreign_lock(self, idp, end, tmp_path, monkeypatch):
        monkeypatch.setattr("micromegas_jupyter.auth.logout.LOCK_WAIT_SECONDS", 0.1)
        write_tokens(idp, tmp_path / "a.json")
        with FileTokenStore(tmp_path / "a.json").locked():
            locked = end([tmp_path / "a.json"])
        write_tokens(idp, tmp_path / "a.json")
        tmp_path.chmod(0o777)

        opened = end([tmp_path / "a.json"])

        assert (locked.files_removed, locked.refresh_token_revoked) == (1, True)
        assert "Another program" in (locked.problem or "")
        assert (opened.files_removed, opened.refresh_token_revoked, opened.problem) == (1, True, None)


def test_all_files_of_a_profile_are_removed_and_only_the_configured_application_authenticates(
    idp, calls, clock, tmp_path
):
    write_tokens(idp, tmp_path / "tokens-work.json")
    write_tokens(idp, tmp_path / "tokens-work.0123456789ab.json", client_id="other")
    (tmp_path / "tokens-work.json.extras.json").write_text("{}")
    write_tokens(idp, tmp_path / "tokens.json")
    settings = ClientSettings(issuer=idp.issuer, client_id="notebook", profile="work", client_secret=Secret("s3cret"))

    report = logout(settings, environ={"MICROMEGAS_CONFIG_DIR": str(tmp_path)}, http=calls, clock=clock)

    assert (report.files_removed, report.refresh_token_revoked) == (3, True)
    assert [path.name for path in tmp_path.glob("*.json")] == ["tokens.json"]
    sent = {("authorization" in seen.headers, seen.form.get("client_id")) for seen in idp.seen("/revoke")}
    assert sent == {(True, None), (False, "other")}


TOKENS = TokenSet(access_token=Secret("acc"), refresh_token=Secret("ref"))


def test_an_access_token_is_revoked_where_the_provider_does(connect, idp, clock):
    idp.reply_once("/revoke", Reply(text=""))
    idp.reply_once("/revoke", Reply(text=""))

    found = RevocationCalls(clock).revoke(TOKENS, connect(idp.issuer, "notebook"))

    assert found == Revocation(revoked=frozenset({"refresh_token", "access_token"}))


@pytest.mark.parametrize(
    ("refusal", "problem"), [("unsupported_token_type", None), ("invalid_client", "invalid_client")]
)
def test_only_a_provider_that_revokes_no_access_tokens_may_refuse_one(connect, idp, clock, refusal, problem):
    idp.reply_once("/revoke", Reply(text=""))
    idp.reply_once("/revoke", Reply(status=400, body={"error": refusal}))

    found = RevocationCalls(clock).revoke(TOKENS, connect(idp.issuer, "notebook"))

    assert found == Revocation(revoked=frozenset({"refresh_token"}), problem=problem)


def test_a_provider_without_revocation_or_end_of_session_is_said_so(connect, idp, clock):
    idp.metadata_changes["revocation_endpoint"] = None
    connection, calls, opened = connect(idp.issuer, "notebook"), RevocationCalls(clock), []
    browser = SimpleNamespace(open=opened.append)

    report = calls.end_session(REPORT, connection, browser)

    assert calls.revoke(TOKENS, connection).problem == "The identity provider does not support token revocation."
    assert report.end_session_problem == "The identity provider has no page that ends a session."
    assert opened == []


NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LATER = datetime(2026, 11, 24, 12, 58, tzinfo=UTC)
REPORT = LogoutReport(
    issuer="https://id.example.com/tenant", was_signed_in=True, files_removed=2, refresh_token_revoked=True
)
BOTH = {"left_valid": ("ID token", "access token"), "valid_until": LATER, "ended_at": NOON}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"was_signed_in": False, "files_removed": 1}, "No user was signed in to id.example.com. 1 file removed."),
        (BOTH, "ID token and access token stay valid until 12:58 UTC (in 58 min): the provider cannot revoke them."),
        ({"problem": "Down.", "provider_answered": False}, "everything (Down): you are signed out here. End the"),
        ({"end_session_url": "https://id/end"}, "To end your session at id.example.com too, open https://id/end in"),
        ({"others": (replace(REPORT, issuer="https://b.example"),)}, "Signed out of b.example: refresh token revoked,"),
    ],
)
def test_a_report_says_in_one_line_what_was_done(changes, text):
    line = str(replace(REPORT, **changes))

    assert text in line
    assert "\n" not in line


def test_only_what_both_sign_ins_of_a_provider_had_revoked_counts_as_revoked():
    first = replace(REPORT, valid_until=NOON, left_valid=("ID token",))
    second = replace(REPORT, refresh_token_revoked=False, problem="no", valid_until=LATER, left_valid=("access token",))
    nobody = LogoutReport(issuer=REPORT.issuer, was_signed_in=False, files_removed=1)

    joined = _joined(first, second)

    assert (joined.refresh_token_revoked, joined.files_removed, joined.problem) == (False, 4, "no")
    assert (joined.valid_until, joined.left_valid) == (LATER, ("ID token", "access token"))
    assert _joined(first, nobody) == _joined(nobody, first) == replace(first, files_removed=3)
