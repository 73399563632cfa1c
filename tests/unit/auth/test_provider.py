"""`OidcAuthProvider` as Python code uses it, who it says is signed in, and what verbose tracebacks show."""

import copy
import json
import os
import pickle
import threading
from functools import partial
from pathlib import Path
from unittest.mock import Mock
from urllib.parse import parse_qsl, urlsplit

import pytest
from joserfc.jwk import RSAKey

from micromegas_jupyter.auth import (
    AuthProvider,
    OidcAuthProvider,
    OidcClientCredentialsProvider,
    StaticTokenAuthProvider,
)
from micromegas_jupyter.auth.provider import discard_tokens
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.tokens.keyring import KeyringTokenStore, SystemKeyring
from micromegas_jupyter.auth.tokens.store import FileTokenStore, LoginKey, StoredLogin, parse_token
from micromegas_jupyter.config.client import Bearer, Flow
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Secret
from micromegas_jupyter.errors import InternalError, LoginFailed, LoginRequired, TokenStoreError, UsageError
from micromegas_jupyter.oidc.authorization import TokenSet
from micromegas_jupyter.oidc.private_key import PrivateKey
from tests.fakes.keyring_backend import MemoryKeyring
from tests.fakes.mint import mint_raw
from tests.fakes.scripted_browser import ScriptedBrowser
from tests.fakes.scripted_provider import Reply, ScriptedProvider, Seen
from tests.fakes.tracebacks import verbose_traceback


@pytest.fixture
def token(idp):
    return idp.stored_token(ends_in_seconds=3600)


@pytest.fixture
def make(idp, calls, clock):
    return partial(OidcAuthProvider, idp.issuer, "notebook", http=calls, clock=clock)


def test_upstreams_arguments_stand_in_upstreams_order(idp, make, token, tmp_path):
    provider = make("s3same", str(tmp_path / "t.json"), token, "api", "openid api")

    assert provider.get_token() == token["id_token"]
    assert (provider.issuer, provider.client_id, provider.audience) == (idp.issuer, "notebook", "api")
    assert (provider.scope, provider.token_file) == ("openid api", tmp_path / "t.json")
    assert isinstance(provider, AuthProvider)
    assert not (tmp_path / "t.json").exists()


def test_audience_and_scope_survive_a_restart(make, token, tmp_path):
    make(None, tmp_path / "t.json", token, "api", "openid api").save()

    again = OidcAuthProvider.from_file(tmp_path / "t.json")

    assert (again.audience, again.scope) == ("api", "openid api")


def test_no_secret_is_shown_pickled_or_stored(idp, make, token, tmp_path):
    provider = make(Secret("s3same"), tmp_path / "t.json", token)
    provider.save()

    assert repr(provider) == f"OidcAuthProvider(issuer={idp.issuer!r}, client_id='notebook', token=***)"
    assert "s3same" not in (tmp_path / "t.json").read_text()
    for use in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError):
            use(provider)
    assert not [value for value in vars(provider).values() if isinstance(value, str) and "s3same" in value]


@pytest.mark.parametrize("make", [OidcAuthProvider, OidcAuthProvider.begin_login, OidcAuthProvider.login])
def test_store_and_token_file_and_secret_and_private_key_exclude_each_other(make, idp, calls, tmp_path):
    key = PrivateKey(key=RSAKey.generate_key(2048), algorithm="RS256")

    with pytest.raises(UsageError, match="one place"):
        make(idp.issuer, "notebook", token_file=tmp_path / "a", store=FileTokenStore(tmp_path / "b"), http=calls)
    with pytest.raises(UsageError, match="private key"):
        make(idp.issuer, "notebook", "s3same", private_key=key, http=calls)
    assert idp.requests == []


def test_a_misspelled_option_of_a_sign_in_is_rejected(idp, calls):
    with pytest.raises(TypeError, match="tokenfile"):
        OidcAuthProvider.begin_login(idp.issuer, idp.client_id, flow=Flow.PASTE, http=calls, tokenfile="tokens.json")


def pasted(idp, pending):
    """Sign the person in at the provider and paste where that ended."""
    asked = dict(parse_qsl(urlsplit(pending.start_url or "").query))
    pending.submit(
        idp.handle(Seen(method="GET", path="/authorize", query=asked, form={}, headers={})).headers["Location"]
    )


def begin_paste(idp, http, clock, path):
    return OidcAuthProvider.begin_login(
        idp.issuer, "notebook", token_file=path, flow=Flow.PASTE, http=http, clock=clock
    )


def test_a_subclass_signs_in_as_itself(idp, calls, clock, tmp_path):
    class OwnProvider(OidcAuthProvider):
        """A user's own."""

    pending = OwnProvider.begin_login(
        idp.issuer, "notebook", token_file=tmp_path / "t.json", flow=Flow.PASTE, http=calls, clock=clock
    )
    pasted(idp, pending)

    assert type(pending.result(30)) is OwnProvider


def test_a_sign_in_that_is_cancelled_while_the_provider_answers_does_not_come_back(idp, calls, clock, tmp_path):
    pending = begin_paste(idp, calls, clock, tmp_path / "t.json")
    issue = idp.issue
    idp.issue = lambda **options: (pending.cancel(), issue(**options))[1]

    pasted(idp, pending)

    with pytest.raises(LoginFailed, match="canceled"):
        pending.result(30)
    assert pending.wait_closed(30)
    assert not (tmp_path / "t.json").exists()
    assert "refresh_token" in [request.form["token_type_hint"] for request in idp.seen("/revoke")]


def test_a_sign_in_that_is_cancelled_while_it_waits_for_the_lock_is_not_kept(idp, calls, clock, tmp_path):
    store, lock_wanted = FileTokenStore(tmp_path / "t.json"), threading.Event()
    locked = store.locked
    store.locked = lambda **options: (lock_wanted.set(), locked(**options))[1]
    pending = OidcAuthProvider.begin_login(
        idp.issuer, "notebook", store=store, flow=Flow.PASTE, http=calls, clock=clock
    )

    with FileTokenStore(store.path).locked():
        pasted(idp, pending)
        assert lock_wanted.wait(30)
        pending.cancel()

    with pytest.raises(LoginFailed, match="canceled"):
        pending.result(30)
    assert pending.wait_closed(30)
    assert store.mark() is None


def test_a_sign_out_by_another_program_counts_for_a_sign_in_that_was_begun_before(  # noqa: PLR0917
    idp, calls, clock, make, token, tmp_path
):
    path = tmp_path / "t.json"
    make(token_file=path, token=token).save()
    pending = begin_paste(idp, calls, clock, path)
    FileTokenStore(path).remove()

    pasted(idp, pending)

    with pytest.raises(LoginFailed, match="You signed out in the meantime"):
        pending.result(30)
    assert pending.wait_closed(30)
    assert not path.exists()
    assert idp.seen("/revoke")


def test_a_defect_ends_the_sign_in_as_a_defect(idp, calls, clock, tmp_path, caplog):
    pending = begin_paste(idp, calls, clock, tmp_path / "t.json")
    calls.post_form = lambda *_arguments, **_options: 1 // 0

    pasted(idp, pending)

    with pytest.raises(InternalError):
        pending.result(30)
    assert pending.wait_closed(30)
    assert "A sign-in failed unexpectedly." in caplog.text


@pytest.mark.parametrize(
    ("mark", "hints"),
    [
        ({"return_value": None}, ["refresh_token", "access_token"]),
        ({"return_value": "stored"}, []),
        ({"side_effect": TokenStoreError("The token file cannot be looked at.")}, []),
    ],
    ids=["nothing is stored", "a sign-in is stored", "it cannot be known"],
)
def test_tokens_that_were_not_kept_are_revoked_only_where_nothing_is_stored(mark, hints, idp, calls, clock):
    store = Mock(mark=Mock(**mark))
    connection = ProviderConnection(idp.issuer, "app", None, http=calls, clock=clock)

    discard_tokens(parse_token(idp.stored_token(ends_in_seconds=60)), store, connection)

    assert [request.form["token_type_hint"] for request in idp.seen("/revoke")] == hints


def by_access_token(idp, clock, **changes):
    now = int(clock.now().timestamp())
    claims = {"sub": "alice-1", "name": "Alice Example", "email": "alice@example.com", "exp": now, **changes}
    opaque_or_jwt = mint_raw(json.dumps({name: value for name, value in claims.items() if value is not None}).encode())
    token = {"access_token": opaque_or_jwt, "refresh_token": "r", "expires_at": now + 3600}
    return OidcAuthProvider(idp.issuer, "notebook", token=token, bearer=Bearer.ACCESS_TOKEN, clock=clock)


def test_an_id_token_or_without_one_an_access_token_that_can_be_read_says_who_it_is(idp, make, token, clock):
    for provider in (make(token=token), by_access_token(idp, clock)):
        identity = provider.identity()

        assert (identity.subject, identity.name, identity.email) == ("alice-1", "Alice Example", "alice@example.com")
        assert (identity.issuer, identity.renews) == (idp.issuer, True)
        assert identity.expires_at == clock.now().replace(hour=13)
    for subject in (None, 7, "\x00"):
        with pytest.raises(LoginRequired) as caught:
            by_access_token(idp, clock, sub=subject).identity()
        assert "openid" in caught.value.remedy


def test_tokens_that_cannot_be_read_mean_login_and_one_that_is_opaque_says_nothing_of_its_person(idp):
    for token in ({}, {"access_token": 1}, {"access_token": "a", "id_token": "opaque"}):
        with pytest.raises(LoginRequired):
            OidcAuthProvider(idp.issuer, "notebook", token=token)
    with pytest.raises(LoginRequired):
        OidcAuthProvider(idp.issuer, "notebook", token={"access_token": "opaque"}).identity()


def test_saving_without_a_file_uses_upstreams_default(make, token):
    make(token=token).save()

    assert (Path.home() / ".micromegas" / "tokens.json").stat().st_mode & 0o777 == 0o600


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
        json.dumps([HIDDEN]),
        f'{{"token": "{HIDDEN}\udcff"}}',
    ],
)
def test_a_damaged_token_file_is_not_shown(content, tmp_path):
    file = tmp_path / "tokens.json"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    file.chmod(0o600)

    assert HIDDEN not in verbose_traceback(lambda: OidcAuthProvider.from_file(file))


@pytest.mark.parametrize("writes_left", [None, 0, 1])
def test_tokens_that_could_not_be_stored_are_not_shown(writes_left, tmp_path, monkeypatch):
    backend = MemoryKeyring()
    backend.writes_left = writes_left
    store = KeyringTokenStore(tmp_path / "tokens.keyring.json", lambda: SystemKeyring(backend), max_part_characters=100)
    if writes_left is None:
        store = FileTokenStore(tmp_path / "tokens.json")
        monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(28, "No space left on device")))

    def save():
        with store.locked():
            store.save(LOGIN)

    assert HIDDEN not in verbose_traceback(save)


@pytest.mark.parametrize(
    ("changes", "reply"),
    [
        ({}, Reply(status=400, body={"error": "invalid_grant"})),
        ({"iss": DEAD}, None),
        ({"code": f"{HIDDEN}\x07"}, None),
    ],
)
def test_a_code_that_came_back_in_vain_is_not_shown(changes, reply):
    browser = ScriptedBrowser()
    with ScriptedProvider(clock=SYSTEM_CLOCK) as idp:
        idp.callback_changes = {"code": HIDDEN, **changes}
        if reply is not None:
            idp.reply_once("/token", reply)
        pending = OidcAuthProvider.begin_login(idp.issuer, idp.client_id)
        browser.open(pending.start_url or "")

        shown = verbose_traceback(lambda: pending.result(timeout_seconds=20))

        browser.wait()
        pending.wait_closed(30)
    assert HIDDEN not in shown
