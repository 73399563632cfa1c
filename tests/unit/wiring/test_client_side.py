"""What the configuration folder holds, which provider the settings give, and what the client is made with."""

import json
import os
import stat
import sys
import types
from dataclasses import replace
from pathlib import PurePath

import pytest

from micromegas_jupyter.auth import OidcAuthProvider, StaticTokenAuthProvider
from micromegas_jupyter.auth.tokens.store import StoredLogin
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.config.client import ClientSettings, Flow, TokenStorage, WorkloadPlatform, WorkloadSetting
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import ConfigurationError, LoginRequired
from micromegas_jupyter.oidc.authorization import TokenSet
from micromegas_jupyter.wiring.client_side import (
    connect,
    load_client_settings,
    login_key,
    open_client,
    remember_flow,
    remembered_flow,
    service_account_provider,
    stored_logins,
    stored_provider,
    token_file,
    token_store,
)
from tests.fakes.keyring_backend import MemoryKeyring
from tests.fakes.scripted_provider import ScriptedProvider

CONFIGURED = ClientSettings(issuer="https://id.example", client_id="app")
FLAT = ClientSettings()
WORK = ClientSettings(profile="work")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "config"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def environ(folder):
    return {"MICROMEGAS_CONFIG_DIR": str(folder)}


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        os.mkdir,
        lambda path: path.write_bytes(b"{"),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.write_bytes(b"[]"),
        lambda path: path.write_bytes(b'{"a": 1, "a": 2}'),
        lambda path: path.write_bytes(b"x" * 300_000),
    ],
    ids=["pipe", "folder", "unfinished", "no UTF-8", "no object", "twice", "too long"],
)
def test_a_config_file_that_cannot_be_read_in_full_is_refused_without_waiting(environ, folder, make):
    make(folder / "config.json")

    with pytest.raises(ConfigurationError, match=r"config\.json"):
        load_client_settings(environ=environ)


def test_a_config_file_that_everybody_can_change_is_refused_also_behind_a_link(environ, folder, tmp_path):
    target = tmp_path / "dotfiles.json"
    target.write_text(json.dumps({"uri": "grpc+tls://lake:1"}))
    (folder / "config.json").symlink_to(target)

    assert load_client_settings(environ=environ).uri == "grpc+tls://lake:1"
    target.chmod(0o666)
    with pytest.raises(ConfigurationError, match=r"config\.json can be changed by any user") as caught:
        load_client_settings(environ=environ)
    assert "chmod go-w" in caught.value.remedy
    assert target.stat().st_mode & 0o777 == 0o666


def test_a_choice_of_flow_is_remembered_for_its_profile_replaced_and_forgotten(environ, folder):
    for settings, flow in ((WORK, Flow.PASTE), (FLAT, Flow.DEVICE), (WORK, Flow.BROWSER)):
        remember_flow(settings, flow, environ)

    assert (remembered_flow(WORK, environ), remembered_flow(FLAT, environ)) == (Flow.BROWSER, Flow.DEVICE)
    assert remembered_flow(ClientSettings(profile="other"), environ) is None
    assert stat.S_IMODE((folder / "choices.json").stat().st_mode) == 0o600
    remember_flow(WORK, None, environ)
    assert remembered_flow(WORK, environ) is None


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[]", b'{"profiles": []}', b'{"profiles": {"work": {"flow": ["paste"]}}}']
)
def test_a_damaged_memory_holds_nothing_and_the_next_choice_replaces_it(environ, folder, content):
    (folder / "choices.json").write_bytes(content)
    assert remembered_flow(WORK, environ) is None

    remember_flow(WORK, Flow.PASTE, environ)

    assert remembered_flow(WORK, environ) is Flow.PASTE


def test_a_link_is_neither_read_nor_written_through(environ, folder, tmp_path):
    target = tmp_path / "target.json"
    target.write_text('{"profiles": {"work": {"flow": "paste"}}}')
    (folder / "choices.json").symlink_to(target)

    assert remembered_flow(WORK, environ) is None
    with pytest.raises(ConfigurationError, match=r"choices\.json is a symbolic link"):
        remember_flow(WORK, Flow.DEVICE, environ)
    assert "paste" in target.read_text()


@pytest.fixture
def signed_in(folder):
    """Somebody is signed in at a provider that nobody needs to ask; returns the settings."""
    idp = ScriptedProvider()
    stored = {"issuer": idp.issuer, "client_id": idp.client_id, "token": idp.stored_token(ends_in_seconds=3600)}
    (folder / "tokens.json").write_text(json.dumps(stored))
    (folder / "tokens.json").chmod(0o600)
    return ClientSettings(issuer=idp.issuer, client_id=idp.client_id)


def test_a_stored_sign_in_wins_over_a_service_accounts_secret(signed_in, environ):
    provider = stored_provider(replace(signed_in, client_secret=Secret("s")), environ)

    assert isinstance(provider, OidcAuthProvider)
    assert provider.identity().email == "alice@example.com"


def test_an_applications_secret_is_read_when_a_token_is_due(signed_in, environ):
    provider = stored_provider(replace(signed_in, client_secret_file=PurePath("not there")), environ)

    assert provider.get_token()
    with pytest.raises(ConfigurationError, match="client_secret_file"):
        provider.renew()


@pytest.mark.parametrize(
    "settings",
    [
        {"service_account_file": PurePath("not there")},
        {"workload": WorkloadSetting(platform=WorkloadPlatform.GITHUB_ACTIONS)},
        {"as_service_account": True},
    ],
)
def test_what_names_a_program_wins_over_a_persons_sign_in(signed_in, environ, settings):
    # Neither file, platform nor secret is there: that it is asked for shows that the person's sign-in is not used.
    with pytest.raises(ConfigurationError):
        stored_provider(replace(signed_in, **settings), environ)


@pytest.mark.parametrize("settings", [FLAT, CONFIGURED, ClientSettings(client_secret=Secret("s"))])
def test_a_service_account_needs_all_its_parts(settings, environ):
    with pytest.raises(ConfigurationError) as caught:
        service_account_provider(settings, environ)

    assert caught.value.key == "MICROMEGAS_OIDC_CLIENT_SECRET"


def test_a_wrapper_modules_client_wins_over_every_setting_and_an_argument_over_it(environ, monkeypatch):
    wrapper = FlightSQLClient("grpc://127.0.0.1:1")
    module = types.ModuleType("company_lake")
    module.connect = lambda: wrapper
    monkeypatch.setitem(sys.modules, "company_lake", module)
    environ |= {"MICROMEGAS_PYTHON_MODULE_WRAPPER": "company_lake", "MICROMEGAS_OIDC_ISSUER": "https://id.example"}

    assert stored_provider(CONFIGURED, environ) is None
    for make in (lambda: connect(environ=environ), lambda: open_client(CONFIGURED, None, environ=environ)):
        with pytest.warns(FutureWarning, match="deprecated"):
            assert make() is wrapper
    del environ["MICROMEGAS_OIDC_ISSUER"]
    for arguments in ({"uri": "grpc://127.0.0.1:2"}, {"auth_provider": StaticTokenAuthProvider("a-token")}):
        with connect(**arguments, environ=environ) as connected:
            assert connected is not wrapper
    wrapper.close()


# Which file or keyring entry stores which sign-in.

SETTINGS = ClientSettings(issuer="https://id.example", client_id="app", audience="lake")
IN_KEYRING = replace(SETTINGS, storage=TokenStorage.KEYRING)
OTHER_SETTINGS = [
    replace(SETTINGS, issuer="https://other.example"),
    replace(SETTINGS, client_id="other"),
    replace(SETTINGS, audience=None),
    replace(SETTINGS, scope="openid api"),
    replace(SETTINGS, resource="https://lake.example"),
]


@pytest.fixture
def memory_keyring(monkeypatch):
    backend = MemoryKeyring()
    monkeypatch.setattr("keyring.core._keyring_backend", backend)
    return backend


def sign_in(settings, environ, *, token="acc"):
    key, store = login_key(settings), token_store(settings, environ)
    with store.locked():
        store.save(StoredLogin(key=key, tokens=TokenSet(access_token=Secret(token))))
    return token_file(settings, environ)


def token_of(settings, environ):
    return token_store(settings, environ).load()[0].tokens.access_token.reveal()


@pytest.mark.usefixtures("memory_keyring")
@pytest.mark.parametrize("storage", TokenStorage)
@pytest.mark.parametrize("other", OTHER_SETTINGS)
def test_a_sign_in_never_stands_for_settings_that_differ(environ, other, storage):
    first, other = replace(SETTINGS, storage=storage), replace(other, storage=storage)
    sign_in(first, environ, token="first")

    with pytest.raises(LoginRequired):
        token_of(other, environ)
    sign_in(other, environ, token="second")
    assert (token_of(first, environ), token_of(other, environ)) == ("first", "second")


@pytest.mark.parametrize("other", OTHER_SETTINGS[3:])
def test_a_sign_in_that_upstream_renewed_does_not_stand_for_one_that_has_its_own_file(environ, other):
    shared = sign_in(SETTINGS, environ, token="first")
    sign_in(other, environ, token="second")
    document = json.loads(shared.read_text())
    shared.write_text(json.dumps({name: document[name] for name in document if name not in {"scope", "resource"}}))

    assert (token_of(SETTINGS, environ), token_of(other, environ)) == ("first", "second")


def test_a_sign_in_beside_is_still_found_when_the_profiles_own_has_ended(environ):
    own = sign_in(SETTINGS, environ)
    beside = sign_in(OTHER_SETTINGS[0], environ)
    own.unlink()

    assert token_file(OTHER_SETTINGS[0], environ) == beside
    assert token_file(OTHER_SETTINGS[1], environ) == own


def test_all_sign_ins_of_a_profile_are_found_in_files_and_keyring_and_none_of_another(environ, folder, memory_keyring):
    work = replace(SETTINGS, profile="work")
    (folder / "tokens-work.notes.json").write_text("{}")
    for settings in (replace(SETTINGS, profile="workshop"), SETTINGS, work, replace(work, client_id="other")):
        sign_in(settings, environ)
    sign_in(replace(IN_KEYRING, profile="work"), environ)

    stores = stored_logins(work, environ)

    assert [store.remove() for store in stores] == [1, 1, 2]
    assert memory_keyring.kept == {}
    assert stored_logins(work, environ) == []
    assert token_of(SETTINGS, environ) == "acc"


def test_what_another_logout_left_behind_is_removed_by_the_next(environ, folder, memory_keyring):
    token_file = sign_in(SETTINGS, environ)
    token_file.with_name(f"{token_file.name}.extras.json").write_text("{}")  # the previous version's
    token_file.unlink()  # upstream's leaves it
    sign_in(IN_KEYRING, environ)
    (folder / "tokens.keyring.json").unlink()  # one without the keyring leaves its entry

    assert [store.remove() for store in stored_logins(IN_KEYRING, environ)] == [1, 1]
    assert memory_keyring.kept == {}
