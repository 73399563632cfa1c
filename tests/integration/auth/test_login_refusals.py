"""Whole sign-ins that must not succeed: what comes back wrong, and what is wrong before a browser opens."""

from __future__ import annotations

import pytest
import requests

from micromegas_jupyter.errors import (
    LoginFailed,
    LoginRefused,
    ProviderMisbehaved,
    ProviderUnavailable,
    TokenStoreError,
)
from tests.fakes.scripted_browser import ScriptedBrowser
from tests.fakes.scripted_provider import Reply
from tests.integration.auth.signing_in import sign_in

pytestmark = pytest.mark.integration

ID_TOKEN_DEFECTS = {
    "wrong issuer": {"iss": "https://evil.example"},
    "wrong audience": {"aud": "other"},
    "no audience": {"aud": None},
    "no iat": {"iat": None},
    "no sub": {"sub": None},
    "no exp": {"exp": None},
    "expired": {"exp": 1_700_000_000},
    "wrong nonce": {"nonce": "other"},
    "no nonce": {"nonce": None},
    "wrong azp": {"azp": "other"},
    "wrong at_hash": {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
}


@pytest.mark.parametrize("change", ID_TOKEN_DEFECTS.values(), ids=ID_TOKEN_DEFECTS.keys())
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
    def attack_first(url: str) -> str:
        if "/callback?" in url:
            forged = requests.get(url.partition("?")[0] + "?code=evil&state=guess", timeout=30)
            assert forged.status_code == 400
        return url

    assert sign_in(idp, ScriptedBrowser(attack_first)).identity().subject == "alice-1"
    assert len(idp.seen("/token")) == 1


def test_a_refused_code_shows_neither_code_nor_verifier(idp):
    idp.callback_changes["code"] = "f0rged-code"
    idp.reply_once("/token", Reply(status=400, body={"error": "invalid_grant", "error_description": "f0rged-code"}))

    with pytest.raises(LoginFailed) as caught:
        sign_in(idp)

    assert "f0rged" not in str(caught.value)


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


def test_a_token_file_that_cannot_be_written_is_known_before_the_browser_opens(idp, tmp_path):
    (tmp_path / "t.json").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(TokenStoreError):
        sign_in(idp, token_file=tmp_path / "t.json")

    assert idp.requests == []
