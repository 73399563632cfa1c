"""Whole sign-ins over real sockets: a provider that checks everything, a browser that follows every redirect."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import pytest
import requests

from micromegas_jupyter.auth import OidcAuthProvider
from micromegas_jupyter.errors import LoginTimedOut
from tests.fakes.mint import rsa_key
from tests.fakes.ports import free_port
from tests.fakes.scripted_browser import ScriptedBrowser
from tests.fakes.scripted_provider import ScriptedProvider
from tests.integration.auth.signing_in import sign_in

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


@pytest.fixture
def home(_own_home: Path) -> Path:
    """The empty home folder of this test."""
    return _own_home


class BlindBrowser:
    """Implements `seams.Browser` on a machine without one."""

    def open(self, url: str) -> bool:
        return False


class AbsentBrowser:
    """Implements `seams.Browser`; opens a page that nobody looks at."""

    def open(self, url: str) -> bool:
        return True


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


def test_keys_that_were_rotated_just_before_signing_are_found(idp):
    def rotate(url: str) -> str:
        if "/callback" in url:
            idp.signing_key = rsa_key("rotated")
            idp.published_keys = (*idp.published_keys, rsa_key("rotated"))
        return url

    assert sign_in(idp, ScriptedBrowser(rotate)).identity().subject == "alice-1"


def test_no_secret_of_a_sign_in_is_logged_at_any_level(idp, caplog, capfd):
    caplog.set_level(logging.DEBUG, logger="micromegas_jupyter")

    provider = sign_in(idp)

    asked, redeemed = idp.seen("/authorize")[0].query, idp.seen("/token")[0].form
    secrets = [asked["state"], asked["nonce"], redeemed["code"], redeemed["code_verifier"], provider.get_token()]
    printed = capfd.readouterr()
    said = "".join(
        (printed.out, printed.err, *(record.getMessage() for record in caplog.records if "micro" in record.name))
    )
    assert not [secret for secret in secrets if secret in said]


def test_a_login_replaces_the_sign_in_of_another_application(idp, tmp_path):
    (tmp_path / "t.json").write_text('{"issuer": "https://other.example", "client_id": "x", "token": {}}')

    provider = sign_in(idp, token_file=tmp_path / "t.json")

    assert OidcAuthProvider.from_file(tmp_path / "t.json").get_token() == provider.get_token()


def test_nobody_coming_back_times_out_and_closes_the_listener(idp):
    started = time.monotonic()
    announced: list[str] = []

    with pytest.raises(LoginTimedOut):
        sign_in(idp, browser=AbsentBrowser(), timeout_seconds=0.3, announce=announced.append)  # type: ignore[arg-type]

    assert time.monotonic() - started < 9
    with pytest.raises(requests.ConnectionError):
        requests.get(announced[0], timeout=30)


def test_without_a_browser_the_address_goes_to_standard_error(idp, capsys):
    with pytest.raises(LoginTimedOut):
        sign_in(idp, browser=BlindBrowser(), timeout_seconds=0.2)  # type: ignore[arg-type]

    printed = capsys.readouterr()
    assert printed.out == ""
    assert "http://127.0.0.1:" in printed.err
