"""Nothing secret is among the variables that a verbose traceback of the client half shows."""

from __future__ import annotations

import json
import os

import pytest

from micromegas_jupyter.auth import OidcAuthProvider, OidcClientCredentialsProvider, StaticTokenAuthProvider
from micromegas_jupyter.auth.tokens.keyring import KeyringTokenStore, SystemKeyring
from micromegas_jupyter.auth.tokens.store import FileTokenStore, LoginKey, StoredLogin
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Secret
from micromegas_jupyter.oidc.authorization import TokenSet
from tests.fakes.keyring_backend import MemoryKeyring
from tests.fakes.scripted_browser import ScriptedBrowser
from tests.fakes.scripted_provider import Reply, ScriptedProvider
from tests.fakes.tracebacks import verbose_traceback

HIDDEN = "hidden-text-0123456789"
DEAD = "http://127.0.0.1:1"
LOGIN = StoredLogin(
    key=LoginKey(issuer=DEAD, client_id="notebook"),
    tokens=TokenSet(access_token=Secret(f"access-{HIDDEN}"), refresh_token=Secret(f"refresh-{HIDDEN}")),
)


@pytest.mark.parametrize(
    "call",
    [
        lambda: OidcAuthProvider.begin_login(DEAD, "app", HIDDEN, flow=Flow.PASTE),
        lambda: OidcAuthProvider.login(DEAD, "app", HIDDEN),
        lambda: OidcAuthProvider("http://id.example", "app", HIDDEN),
        lambda: OidcAuthProvider(DEAD, "app", HIDDEN, token={"access_token": HIDDEN, "id_token": HIDDEN}),
        lambda: OidcAuthProvider.from_file("/nowhere/tokens.json", HIDDEN),
        lambda: OidcClientCredentialsProvider("http://id.example", "app", HIDDEN),
        lambda: OidcClientCredentialsProvider(DEAD, "app", HIDDEN).get_token(),
        lambda: StaticTokenAuthProvider(f"{HIDDEN} in two words"),
    ],
)
def test_a_secret_that_was_given_as_plain_text_is_not_shown(call):
    assert HIDDEN not in verbose_traceback(call)


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"issuer": DEAD, "client_id": "app", "token": {"access_token": HIDDEN}})[:-3],
        json.dumps({"issuer": DEAD, "client_id": "app", "token": {"access_token": HIDDEN, "refresh_token": 7}}),
        json.dumps({"issuer": DEAD, "client_id": "app", "token": {"access_token": f"{HIDDEN}ä"}}),
        json.dumps({"issuer": DEAD, "client_id": "app", "token": HIDDEN}),
        json.dumps({"issuer": DEAD, "client_id": 7, "token": {"access_token": HIDDEN}}),
        json.dumps([HIDDEN]),
        f'{{"token": "{HIDDEN}\udcff"}}',
    ],
)
def test_a_damaged_token_file_is_not_shown(content, tmp_path):
    file = tmp_path / "tokens.json"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    file.chmod(0o600)

    assert HIDDEN not in verbose_traceback(lambda: OidcAuthProvider.from_file(file))


def test_tokens_that_could_not_be_written_are_not_shown(tmp_path, monkeypatch):
    def refuse(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    store = FileTokenStore(tmp_path / "tokens.json")

    def save() -> None:
        with store.locked():
            store.save(LOGIN)

    assert HIDDEN not in verbose_traceback(save)


@pytest.mark.parametrize("writes_left", [0, 1])
def test_tokens_that_the_keyring_did_not_take_are_not_shown(writes_left, tmp_path):
    backend = MemoryKeyring()
    backend.writes_left = writes_left
    store = KeyringTokenStore(tmp_path / "tokens.keyring.json", lambda: SystemKeyring(backend), max_part_characters=100)

    def save() -> None:
        with store.locked():
            store.save(LOGIN)

    assert HIDDEN not in verbose_traceback(save)


@pytest.fixture
def online_idp() -> ScriptedProvider:
    """A provider whose ID tokens are of now."""
    return ScriptedProvider(clock=SYSTEM_CLOCK)


@pytest.mark.parametrize("text", [f"http://127.0.0.1:48080/callback?code={HIDDEN}&state=another", HIDDEN * 2000])
def test_a_pasted_text_that_does_not_fit_is_not_shown(text, online_idp):
    with online_idp as idp:
        pending = OidcAuthProvider.begin_login(idp.issuer, idp.client_id, flow=Flow.PASTE)

        shown = verbose_traceback(lambda: pending.submit(text))

        pending.cancel()
        pending.wait_closed(30)
    assert HIDDEN not in shown


@pytest.mark.parametrize(
    ("changes", "reply"),
    [
        ({}, Reply(status=400, body={"error": "invalid_grant"})),
        ({"iss": DEAD}, None),
        ({"code": f"{HIDDEN}\x07"}, None),
    ],
)
def test_a_code_that_came_back_in_vain_is_not_shown(changes, reply, online_idp):
    online_idp.callback_changes = {"code": HIDDEN, **changes}
    if reply is not None:
        online_idp.reply_once("/token", reply)
    browser = ScriptedBrowser()
    with online_idp as idp:
        pending = OidcAuthProvider.begin_login(idp.issuer, idp.client_id)
        browser.open(pending.start_url or "")

        shown = verbose_traceback(lambda: pending.result(timeout_seconds=20))

        browser.wait()
        pending.wait_closed(30)
    assert HIDDEN not in shown
