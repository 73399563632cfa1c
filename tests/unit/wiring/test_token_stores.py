"""Which file or keyring entry stores which sign-in."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.tokens.keyring import KeyringTokenStore
from micromegas_jupyter.auth.tokens.store import LoginKey, StoredLogin
from micromegas_jupyter.config.client import ClientSettings, TokenStorage
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import LoginRequired, TokenStoreError
from micromegas_jupyter.oidc.authorization import TokenSet
from micromegas_jupyter.wiring.client_side import stored_logins, token_file, token_store
from tests.fakes.keyring_backend import MemoryKeyring

if TYPE_CHECKING:
    from pathlib import Path


SETTINGS = ClientSettings(issuer="https://id.example", client_id="app", audience="lake")

OTHER_SETTINGS = [
    replace(SETTINGS, issuer="https://other.example"),
    replace(SETTINGS, client_id="other"),
    replace(SETTINGS, audience=None),
    replace(SETTINGS, scope="openid api"),
    replace(SETTINGS, resource="https://lake.example"),
]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"MICROMEGAS_CONFIG_DIR": str(tmp_path)}


def sign_in(settings: ClientSettings, environ: dict[str, str], *, token: str = "acc") -> Path:
    assert settings.issuer is not None
    assert settings.client_id is not None
    store = token_store(settings, environ)
    login = StoredLogin(
        key=LoginKey(
            issuer=settings.issuer,
            client_id=settings.client_id,
            audience=settings.audience,
            scope=settings.scope,
            resource=settings.resource,
        ),
        tokens=TokenSet(access_token=Secret(token)),
    )
    with store.locked():
        store.save(login)
    return token_file(settings, environ)


def test_the_token_file_of_a_profile_is_upstreams(environ, tmp_path):
    assert token_file(replace(SETTINGS, profile="work"), environ) == tmp_path / "tokens-work.json"


@pytest.mark.parametrize("other", OTHER_SETTINGS)
def test_a_sign_in_that_differs_in_anything_has_a_file_of_its_own(environ, tmp_path, other):
    first = sign_in(SETTINGS, environ, token="first")

    second = sign_in(other, environ, token="second")

    assert (first, second.parent) == (tmp_path / "tokens.json", tmp_path)
    assert second.name.startswith("tokens.")
    assert token_store(SETTINGS, environ).load()[0].tokens.access_token.reveal() == "first"
    assert token_store(other, environ).load()[0].tokens.access_token.reveal() == "second"


@pytest.mark.parametrize(("issuer", "client_id"), [("https://other.example", "app"), ("https://id.example", "other")])
def test_a_file_of_another_provider_or_application_is_left_alone(environ, tmp_path, issuer, client_id):
    content = json.dumps({"issuer": issuer, "client_id": client_id, "audience": "lake", "token": {}})
    (tmp_path / "tokens.json").write_text(content)

    sign_in(SETTINGS, environ)

    assert (tmp_path / "tokens.json").read_text() == content


def test_a_damaged_file_keeps_its_name_so_that_its_reader_can_say_so(environ, tmp_path):
    (tmp_path / "tokens.json").write_text("not json")

    assert token_file(SETTINGS, environ) == tmp_path / "tokens.json"


def test_a_sign_in_beside_is_still_found_when_the_profiles_own_has_ended(environ):
    own = sign_in(SETTINGS, environ)
    beside = sign_in(OTHER_SETTINGS[0], environ)
    own.unlink()

    assert token_file(OTHER_SETTINGS[0], environ) == beside
    assert token_file(OTHER_SETTINGS[1], environ) == own


def test_two_first_sign_ins_at_once_do_not_overwrite_each_other(environ):
    mine, others = token_store(SETTINGS, environ), token_store(OTHER_SETTINGS[0], environ)
    sign_in(SETTINGS, environ)

    login = StoredLogin(
        key=LoginKey(issuer="https://other.example", client_id="app"), tokens=TokenSet(access_token=Secret("other"))
    )
    with pytest.raises(TokenStoreError, match="a different sign-in"), others.locked():
        others.save(login)

    assert mine.load()[0].tokens.access_token.reveal() == "acc"


def test_all_sign_ins_of_a_profile_are_found_and_none_of_another(environ, tmp_path):
    work = replace(SETTINGS, profile="work")
    (tmp_path / "tokens-work.notes.json").write_text("{}")
    sign_in(replace(SETTINGS, profile="workshop"), environ)
    sign_in(SETTINGS, environ)
    sign_in(work, environ)
    sign_in(replace(work, client_id="other"), environ)

    labels = [store.label for store in stored_logins(work, environ)]

    assert len(labels) == 2
    assert all("tokens-work." in label for label in labels)


def test_a_file_beside_that_upstreams_logout_left_is_found(environ):
    sign_in(SETTINGS, environ).unlink()

    [store] = stored_logins(SETTINGS, environ)

    assert store.remove() == 1


IN_KEYRING = replace(SETTINGS, storage=TokenStorage.KEYRING)


@pytest.fixture
def memory_keyring(monkeypatch: pytest.MonkeyPatch) -> MemoryKeyring:
    backend = MemoryKeyring()
    monkeypatch.setattr("keyring.core._keyring_backend", backend)
    return backend


@pytest.mark.usefixtures("memory_keyring")
def test_a_keyring_that_can_be_used_is_used_in_silence(environ, tmp_path):
    sign_in(IN_KEYRING, environ)

    assert isinstance(token_store(IN_KEYRING, environ), KeyringTokenStore)
    assert (tmp_path / "tokens.keyring.json").exists()
    assert not (tmp_path / "tokens.json").exists()


@pytest.mark.usefixtures("memory_keyring")
@pytest.mark.parametrize("other", OTHER_SETTINGS)
def test_a_sign_in_in_the_keyring_never_answers_for_settings_that_differ(environ, other):
    sign_in(IN_KEYRING, environ, token="first")
    other = replace(other, storage=TokenStorage.KEYRING)

    with pytest.raises(LoginRequired):
        token_store(other, environ).load()
    sign_in(other, environ, token="second")
    assert token_store(IN_KEYRING, environ).load()[0].tokens.access_token.reveal() == "first"
    assert token_store(other, environ).load()[0].tokens.access_token.reveal() == "second"


def test_a_keyring_that_cannot_be_used_is_an_error_and_no_file_stands_in(environ, monkeypatch):
    environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.null.Keyring"
    monkeypatch.setattr("keyring.core._keyring_backend", None)

    store = token_store(IN_KEYRING, environ)

    assert isinstance(store, KeyringTokenStore)
    with pytest.raises(TokenStoreError) as caught:
        store.check_usable()
    assert "MICROMEGAS_TOKEN_STORAGE=file" in caught.value.remedy


def test_files_and_keyring_of_a_profile_are_all_found(environ, memory_keyring):
    sign_in(SETTINGS, environ)
    sign_in(IN_KEYRING, environ)
    sign_in(replace(IN_KEYRING, client_id="other"), environ)

    removed = [store.remove() for store in stored_logins(SETTINGS, environ)]

    assert removed == [2, 2, 2]
    assert memory_keyring.kept == {}


def test_what_a_logout_without_the_keyring_left_behind_is_removed_by_the_next(environ, tmp_path, memory_keyring):
    sign_in(IN_KEYRING, environ)
    (tmp_path / "tokens.keyring.json").unlink()

    [store] = stored_logins(IN_KEYRING, environ)

    assert store.remove() == 1
    assert memory_keyring.kept == {}
