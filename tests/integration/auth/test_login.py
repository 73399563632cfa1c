"""Whole sign-ins over real sockets: a provider that checks everything, a browser that follows every redirect."""

from __future__ import annotations

import contextvars
import logging
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
import requests

from micromegas_jupyter.auth import OidcAuthProvider, PendingLogin
from micromegas_jupyter.errors import (
    ConfigurationError,
    LoginFailed,
    LoginRefused,
    LoginTimedOut,
    ProviderMisbehaved,
    ProviderUnavailable,
    TokenStoreError,
    UsageError,
)
from micromegas_jupyter.http import ProviderHttp
from tests.fakes.mint import rsa_key
from tests.fakes.raw_server import RawServer
from tests.fakes.scripted_browser import ScriptedBrowser
from tests.fakes.scripted_provider import Reply, ScriptedProvider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration


@pytest.fixture
def home(_own_home: Path) -> Path:
    """The empty home folder of this test."""
    return _own_home


@pytest.fixture
def idp() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as running:
        yield running


def sign_in(idp: ScriptedProvider, browser: ScriptedBrowser | None = None, **options: object) -> OidcAuthProvider:
    arguments = {"browser": browser or ScriptedBrowser(), "timeout_seconds": 10, **options}
    return OidcAuthProvider.login(idp.issuer, "notebook", **arguments)  # type: ignore[arg-type]


class BlindBrowser:
    """Implements `seams.Browser` on a machine without one."""

    def open(self, url: str) -> bool:
        return False


class AbsentBrowser:
    """Implements `seams.Browser`; opens a page that nobody looks at."""

    def open(self, url: str) -> bool:
        return True


def test_a_person_signs_in_and_the_sign_in_is_kept(idp: ScriptedProvider, tmp_path: Path) -> None:
    browser = ScriptedBrowser()

    provider = sign_in(idp, browser, token_file=tmp_path / "folder" / "t.json", audience="api", scope="openid lake")

    assert provider.identity().email == "alice@example.com"
    assert provider.get_token() == OidcAuthProvider.from_file(tmp_path / "folder" / "t.json").get_token()
    assert "Signed in as Alice Example." in browser.wait().last_page
    asked = idp.seen("/authorize")[0].query
    assert (asked["audience"], asked["scope"], asked["code_challenge_method"]) == ("api", "openid lake", "S256")
    assert OidcAuthProvider.from_file(tmp_path / "folder" / "t.json").scope == "openid lake"


def test_the_code_leaves_the_address_bar(idp: ScriptedProvider) -> None:
    browser = ScriptedBrowser()

    sign_in(idp, browser)

    browser.wait()
    assert browser.statuses == [302, 302, 303, 200]
    assert browser.visited[-1].endswith("/done")


def test_the_browser_is_given_an_address_without_state_or_challenge(idp: ScriptedProvider) -> None:
    browser = ScriptedBrowser()
    announced: list[str] = []

    sign_in(idp, browser, announce=announced.append)

    assert announced == [browser.visited[0]]
    assert browser.visited[0].startswith("http://127.0.0.1:")
    state = idp.seen("/authorize")[0].query["state"]
    assert state not in announced[0]
    assert "?" not in announced[0]


def test_state_nonce_and_verifier_are_new_each_time(idp: ScriptedProvider) -> None:
    for _ in range(2):
        sign_in(idp)

    first, second = (seen.query for seen in idp.seen("/authorize"))
    for name in ("state", "nonce", "code_challenge"):
        assert first[name] != second[name]
        assert len(first[name]) >= 43
    verifiers = [seen.form["code_verifier"] for seen in idp.seen("/token")]
    assert not [verifier for verifier in verifiers if verifier in (first["code_challenge"], second["code_challenge"])]


def test_without_a_token_file_nothing_is_stored(idp: ScriptedProvider, home: Path) -> None:
    sign_in(idp).get_token()

    assert list(home.iterdir()) == []


def test_a_fixed_redirect_uri_is_used_as_registered(idp: ScriptedProvider) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    sign_in(idp, redirect_uri=f"http://localhost:{port}/oauth/callback")

    assert idp.seen("/authorize")[0].query["redirect_uri"] == f"http://localhost:{port}/oauth/callback"


def test_a_client_with_a_secret_uses_pkce_as_well() -> None:
    with ScriptedProvider(client_secret="s 3same") as idp:
        provider = sign_in(idp, client_secret="s 3same")

        assert provider.get_token()
        assert "code_verifier" in idp.seen("/token")[0].form


@pytest.mark.parametrize("path", ["/", "/tenant", "/tenant/"])
def test_an_issuer_is_compared_byte_for_byte_and_its_slash_kept(path: str) -> None:
    with ScriptedProvider(issuer_path=path) as idp:
        assert sign_in(idp).identity().issuer == idp.issuer


def test_keys_that_were_rotated_just_before_signing_are_found(idp: ScriptedProvider) -> None:
    def rotate(url: str) -> str:
        if "/callback" in url:
            idp.signing_key = rsa_key("rotated")
            idp.published_keys = (*idp.published_keys, rsa_key("rotated"))
        return url

    assert sign_in(idp, ScriptedBrowser(rotate)).identity().subject == "alice-1"


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
def test_an_id_token_that_does_not_fit_ends_the_sign_in(
    change: dict[str, object], idp: ScriptedProvider, tmp_path: Path
) -> None:
    idp.id_token_changes.update(change)
    browser = ScriptedBrowser()

    with pytest.raises(ProviderMisbehaved) as caught:
        sign_in(idp, browser, token_file=tmp_path / "t.json")

    assert type(caught.value) is ProviderMisbehaved
    assert not (tmp_path / "t.json").exists()
    assert "You are not signed in" in browser.wait().last_page


def test_an_unsigned_id_token_ends_the_sign_in(idp: ScriptedProvider) -> None:
    idp.unsigned = True

    with pytest.raises(ProviderMisbehaved):
        sign_in(idp)


def test_a_signature_by_a_key_that_is_not_published_ends_the_sign_in(idp: ScriptedProvider) -> None:
    idp.signing_key = rsa_key("hidden")

    with pytest.raises(ProviderMisbehaved):
        sign_in(idp)


def test_an_answer_without_an_id_token_ends_the_sign_in(idp: ScriptedProvider) -> None:
    idp.reply_once("/token", Reply(body={"access_token": "a", "token_type": "Bearer"}))

    with pytest.raises(ProviderMisbehaved):
        sign_in(idp)


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
def test_a_callback_that_does_not_fit_ends_the_sign_in(
    change: dict[str, str | None], expected: type[Exception], idp: ScriptedProvider
) -> None:
    idp.callback_changes.update(change)
    browser = ScriptedBrowser()

    with pytest.raises(expected) as caught:
        sign_in(idp, browser)

    assert type(caught.value) is expected
    assert "You are not signed in" in browser.wait().last_page
    assert len(idp.seen("/token")) == (1 if change.get("code") else 0)


def test_a_callback_with_a_wrong_state_does_not_end_the_sign_in(idp: ScriptedProvider) -> None:
    def attack_first(url: str) -> str:
        if "/callback?" in url:
            forged = requests.get(url.partition("?")[0] + "?code=evil&state=guess", timeout=5)
            assert forged.status_code == 400
        return url

    assert sign_in(idp, ScriptedBrowser(attack_first)).identity().subject == "alice-1"
    assert len(idp.seen("/token")) == 1


def test_a_refused_code_shows_neither_code_nor_verifier(idp: ScriptedProvider) -> None:
    idp.callback_changes["code"] = "f0rged-code"
    idp.reply_once("/token", Reply(status=400, body={"error": "invalid_grant", "error_description": "f0rged-code"}))

    with pytest.raises(LoginFailed) as caught:
        sign_in(idp)

    assert "f0rged" not in str(caught.value)


def test_no_secret_of_a_sign_in_is_logged_at_any_level(
    idp: ScriptedProvider, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG, logger="micromegas_jupyter")

    provider = sign_in(idp)

    asked, redeemed = idp.seen("/authorize")[0].query, idp.seen("/token")[0].form
    secrets = [asked["state"], asked["nonce"], redeemed["code"], redeemed["code_verifier"], provider.get_token()]
    printed = capfd.readouterr()
    said = "".join(
        (printed.out, printed.err, *(record.getMessage() for record in caplog.records if "micro" in record.name))
    )
    assert not [secret for secret in secrets if secret in said]


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
def test_a_description_that_is_not_acceptable_stops_before_the_browser_opens(
    change: dict[str, object], idp: ScriptedProvider
) -> None:
    idp.metadata_changes.update(change)
    browser = ScriptedBrowser()

    with pytest.raises(ProviderMisbehaved):
        sign_in(idp, browser)

    assert browser.visited == []
    assert len(idp.requests) == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"redirect_uri": "http://example.com:1/callback"}, UsageError),
        ({"scope": "two  spaces"}, UsageError),
        ({"authorize_params": {"state": "mine"}}, UsageError),
    ],
)
def test_a_call_that_cannot_be_right_fails_before_the_browser_opens(
    options: dict[str, object], expected: type[Exception], idp: ScriptedProvider
) -> None:
    browser = ScriptedBrowser()

    with pytest.raises(expected):
        sign_in(idp, browser, **options)

    assert browser.visited == []


def test_an_issuer_over_plain_http_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError):
        OidcAuthProvider.begin_login("http://id.example.com", "notebook")


def test_a_token_file_that_cannot_be_written_is_known_before_the_browser_opens(
    idp: ScriptedProvider, tmp_path: Path
) -> None:
    (tmp_path / "t.json").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(TokenStoreError):
        sign_in(idp, token_file=tmp_path / "t.json")

    assert idp.requests == []


def test_a_login_replaces_the_sign_in_of_another_application(idp: ScriptedProvider, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"issuer": "https://other.example", "client_id": "x", "token": {}}')

    provider = sign_in(idp, token_file=tmp_path / "t.json")

    assert OidcAuthProvider.from_file(tmp_path / "t.json").get_token() == provider.get_token()


def hang(connection: socket.socket, server: RawServer) -> None:
    server.stopping.wait(20)


def test_a_provider_that_hangs_in_the_middle_is_unavailable_within_the_deadline(idp: ScriptedProvider) -> None:
    with RawServer(hang) as server:
        idp.metadata_changes["token_endpoint"] = server.url
        started = time.monotonic()

        with pytest.raises(ProviderUnavailable):
            sign_in(idp, http=ProviderHttp(timeout_seconds=0.5))

        assert time.monotonic() - started < 3


def test_nobody_coming_back_times_out_and_closes_the_listener(idp: ScriptedProvider) -> None:
    started = time.monotonic()
    announced: list[str] = []

    with pytest.raises(LoginTimedOut):
        sign_in(idp, browser=AbsentBrowser(), timeout_seconds=0.3, announce=announced.append)  # type: ignore[arg-type]

    assert time.monotonic() - started < 2
    with pytest.raises(requests.ConnectionError):
        requests.get(announced[0], timeout=5)


def test_without_a_browser_the_address_goes_to_standard_error(
    idp: ScriptedProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LoginTimedOut):
        sign_in(idp, browser=BlindBrowser(), timeout_seconds=0.2)  # type: ignore[arg-type]

    printed = capsys.readouterr()
    assert printed.out == ""
    assert "http://127.0.0.1:" in printed.err


def begin(idp: ScriptedProvider, **options: object) -> PendingLogin:
    return OidcAuthProvider.begin_login(idp.issuer, "notebook", **{"timeout_seconds": 10, **options})  # type: ignore[arg-type]


def test_a_begun_login_returns_at_once_and_goes_on_by_itself(idp: ScriptedProvider) -> None:
    pending = begin(idp)
    before = pending.done
    with pytest.raises(LoginTimedOut):
        pending.result(timeout_seconds=0)

    ScriptedBrowser().open(pending.start_url)

    assert pending.result(10).identity().subject == "alice-1"
    assert (before, pending.done) == (False, True)
    assert pending.wait_closed(5)


def test_whoever_wants_to_know_the_end_is_told_once_in_their_own_context(idp: ScriptedProvider) -> None:
    cell = contextvars.ContextVar("cell", default="none")
    told: list[tuple[bool, str]] = []
    ended = threading.Event()
    cell.set("seven")
    pending = begin(idp)

    def broken(_pending: PendingLogin) -> None:
        raise RuntimeError("a widget that is gone")

    def note(login: PendingLogin) -> None:
        told.append((login.done, cell.get()))
        ended.set()

    pending.on_done(broken)
    pending.on_done(note)
    ScriptedBrowser().open(pending.start_url)

    assert ended.wait(10)
    pending.on_done(note)
    assert told == [(True, "seven"), (True, "seven")]
    pending.wait_closed(5)


def test_a_cancelled_login_ends_at_once_and_closes_its_listener(idp: ScriptedProvider) -> None:
    pending = begin(idp)

    pending.cancel()
    pending.cancel()

    with pytest.raises(LoginFailed) as caught:
        pending.result(5)
    assert type(caught.value) is LoginFailed
    assert pending.wait_closed(5)
    with pytest.raises(requests.ConnectionError):
        requests.get(pending.start_url, timeout=5)


def test_two_sign_ins_at_once_do_not_mix(idp: ScriptedProvider) -> None:
    first, second = begin(idp), begin(idp)
    states = {}

    def swap(url: str) -> str:
        # The callback of the second sign-in is carried to the listener of the first.
        if "/callback?" in url and "swapped" not in states:
            states["swapped"] = True
            target = first.start_url.partition("/start/")[0]
            return f"{target}/callback?{url.partition('?')[2]}"
        return url

    attacker = ScriptedBrowser(swap)
    attacker.open(second.start_url)
    attacker.wait()
    ScriptedBrowser().open(first.start_url)

    assert attacker.statuses[-1] == 400
    assert first.result(10).identity().subject == "alice-1"
    assert not second.done
    second.cancel()
    for pending in (first, second):
        assert pending.wait_closed(5)


def test_a_login_that_is_waited_for_shows_nothing_secret_in_its_repr(idp: ScriptedProvider) -> None:
    pending = begin(idp)

    assert repr(pending) == f"PendingLogin(done=False, expires_at={pending.expires_at.isoformat()})"
    pending.cancel()
    assert pending.wait_closed(5)
