"""Whole sign-ins over real sockets: a provider that checks everything, a browser that follows every redirect."""

import contextvars
import logging
import threading
import time
from types import SimpleNamespace

import pytest
import requests

from micromegas_jupyter.auth import OidcAuthProvider
from micromegas_jupyter.errors import LoginFailed, LoginRefused, LoginTimedOut, ProviderMisbehaved, ProviderUnavailable
from tests.fakes.ports import free_port
from tests.fakes.scripted_browser import ScriptedBrowser
from tests.fakes.scripted_provider import ScriptedProvider

pytestmark = pytest.mark.integration


def sign_in(idp, browser=None, **options):
    arguments = {"browser": browser or ScriptedBrowser(), "timeout_seconds": 10, **options}
    return OidcAuthProvider.login(idp.issuer, "notebook", **arguments)


def test_a_person_signs_in_and_the_sign_in_is_kept(idp, tmp_path):
    browser = ScriptedBrowser()

    provider = sign_in(idp, browser, token_file=tmp_path / "folder" / "t.json", audience="api", scope="openid lake")

    assert provider.identity().email == "alice@example.com"
    assert provider.get_token() == OidcAuthProvider.from_file(tmp_path / "folder" / "t.json").get_token()
    assert "Signed in as Alice Example." in browser.wait().last_page
    asked = idp.seen("/authorize")[0].query
    assert (asked["audience"], asked["scope"], asked["code_challenge_method"]) == ("api", "openid lake", "S256")
    assert OidcAuthProvider.from_file(tmp_path / "folder" / "t.json").scope == "openid lake"


def test_the_code_leaves_the_address_bar(idp):
    browser = ScriptedBrowser()

    sign_in(idp, browser)

    browser.wait()
    assert browser.statuses == [302, 302, 303, 200]
    assert browser.visited[-1].endswith("/done")


def test_state_nonce_and_verifier_are_new_each_time(idp):
    for _ in range(2):
        sign_in(idp)

    first, second = (seen.query for seen in idp.seen("/authorize"))
    for name in ("state", "nonce", "code_challenge"):
        assert first[name] != second[name]
        assert len(first[name]) >= 43
    verifiers = [seen.form["code_verifier"] for seen in idp.seen("/token")]
    assert not [verifier for verifier in verifiers if verifier in (first["code_challenge"], second["code_challenge"])]


def test_a_fixed_redirect_uri_is_used_as_registered(idp):
    port = free_port()

    sign_in(idp, redirect_uri=f"http://localhost:{port}/oauth/callback")

    assert idp.seen("/authorize")[0].query["redirect_uri"] == f"http://localhost:{port}/oauth/callback"


@pytest.mark.parametrize("path", ["/", "/tenant", "/tenant/"])
def test_an_issuer_is_compared_byte_for_byte_and_its_slash_kept(path):
    with ScriptedProvider(issuer_path=path) as idp:
        assert sign_in(idp).identity().issuer == idp.issuer


def test_no_secret_of_a_sign_in_is_logged_at_any_level(idp, caplog, capfd):
    caplog.set_level(logging.DEBUG, logger="micromegas_jupyter")

    provider = sign_in(idp)

    asked, redeemed = idp.seen("/authorize")[0].query, idp.seen("/token")[0].form
    secrets = [asked["state"], asked["nonce"], redeemed["code"], redeemed["code_verifier"], provider.get_token()]
    said = "".join((*capfd.readouterr(), *(entry.getMessage() for entry in caplog.records if "micro" in entry.name)))
    assert not [secret for secret in secrets if secret in said]


def test_a_login_replaces_the_sign_in_of_another_application(idp, tmp_path):
    (tmp_path / "t.json").write_text('{"issuer": "https://other.example", "client_id": "x", "token": {}}')

    provider = sign_in(idp, token_file=tmp_path / "t.json")

    assert OidcAuthProvider.from_file(tmp_path / "t.json").get_token() == provider.get_token()


def test_nobody_coming_back_times_out_and_closes_the_listener(idp):
    started = time.monotonic()
    announced = []

    with pytest.raises(LoginTimedOut):
        sign_in(idp, browser=SimpleNamespace(open=lambda _url: True), timeout_seconds=0.3, announce=announced.append)

    assert time.monotonic() - started < 9
    with pytest.raises(requests.ConnectionError):
        requests.get(announced[0], timeout=30)


def test_without_a_browser_the_address_goes_to_standard_error(idp, capsys):
    with pytest.raises(LoginTimedOut):
        sign_in(idp, browser=SimpleNamespace(open=lambda _url: False), timeout_seconds=0.2)

    printed = capsys.readouterr()
    assert printed.out == ""
    assert "http://127.0.0.1:" in printed.err


def begin(idp, **options):
    return OidcAuthProvider.begin_login(idp.issuer, "notebook", **{"timeout_seconds": 10, **options})


def test_whoever_wants_to_know_the_end_is_told_once_in_their_own_context(idp):
    cell = contextvars.ContextVar("cell", default="none")
    told = []
    ended = threading.Event()
    cell.set("seven")
    pending = begin(idp)

    def broken(_pending):
        raise RuntimeError("a widget that is gone")

    def note(login):
        told.append((login.done, cell.get()))
        ended.set()

    pending.on_done(broken)
    pending.on_done(note)
    ScriptedBrowser().open(pending.start_url)

    assert ended.wait(30)
    pending.on_done(note)
    assert told == [(True, "seven"), (True, "seven")]
    pending.wait_closed(30)


def test_a_cancelled_login_ends_at_once_and_closes_its_listener(idp):
    pending = begin(idp)

    pending.cancel()
    pending.cancel()

    with pytest.raises(LoginFailed) as caught:
        pending.result(30)
    assert type(caught.value) is LoginFailed
    assert pending.wait_closed(30)
    with pytest.raises(requests.ConnectionError):
        requests.get(pending.start_url, timeout=30)


WRONG = {"iss": "https://evil.example", "aud": "other", "exp": 1_700_000_000, "azp": "other", "nonce": "other"}


@pytest.mark.parametrize(
    "change",
    [
        *({name: value} for name, value in {**WRONG, "at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}.items()),
        *({name: None} for name in ("aud", "iat", "sub", "exp", "nonce")),
    ],
)
def test_an_id_token_that_does_not_fit_ends_the_sign_in(change, idp, tmp_path):
    idp.id_token_changes.update(change)
    browser = ScriptedBrowser()

    with pytest.raises(ProviderMisbehaved) as caught:
        sign_in(idp, browser, token_file=tmp_path / "t.json")

    assert type(caught.value) is ProviderMisbehaved
    assert not (tmp_path / "t.json").exists()
    assert "You are not signed in" in browser.wait().last_page


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"iss": "https://evil.example"}, ProviderMisbehaved),
        ({"iss": None}, ProviderMisbehaved),
        ({"code": None}, ProviderMisbehaved),
        ({"code": None, "error": "access_denied"}, LoginRefused),
        ({"code": None, "error": "temporarily_unavailable"}, ProviderUnavailable),
        ({"code": "forged"}, LoginFailed),
    ],
)
def test_a_callback_that_does_not_fit_ends_the_sign_in(change, expected, idp):
    idp.callback_changes.update(change)
    browser = ScriptedBrowser()

    with pytest.raises(expected) as caught:
        sign_in(idp, browser)

    assert type(caught.value) is expected
    assert "You are not signed in" in browser.wait().last_page
    assert len(idp.seen("/token")) == (1 if change.get("code") else 0)


def test_a_callback_with_a_wrong_state_does_not_end_the_sign_in(idp):
    def attack_first(url):
        if "/callback?" in url:
            forged = requests.get(url.partition("?")[0] + "?code=evil&state=guess", timeout=30)
            assert forged.status_code == 400
        return url

    assert sign_in(idp, ScriptedBrowser(attack_first)).identity().subject == "alice-1"
    assert len(idp.seen("/token")) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "https://evil.example"},
        {"authorization_endpoint": "http://id.example.com/authorize"},
        {"token_endpoint": "http://id.example.com/token"},
        {"jwks_uri": None},
        {"authorization_endpoint": None},
        {"code_challenge_methods_supported": ["plain"]},
    ],
)
def test_a_description_that_is_not_acceptable_stops_before_the_browser_opens(change, idp):
    idp.metadata_changes.update(change)
    browser = ScriptedBrowser()

    with pytest.raises(ProviderMisbehaved):
        sign_in(idp, browser)

    assert browser.visited == []
    assert len(idp.requests) == 1
