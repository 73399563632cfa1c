"""Sign-ins in a real keyring: GNOME's daemon on a session bus of the test's own."""

from __future__ import annotations

import gc
import time

import pytest

from micromegas_jupyter.auth.tokens.keyring import KeyringTokenStore, open_keyring
from micromegas_jupyter.auth.tokens.store import LoginKey, StoredLogin
from micromegas_jupyter.config.client import ClientSettings, TokenStorage
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import TokenStoreError
from micromegas_jupyter.oidc.authorization import TokenSet
from micromegas_jupyter.wiring.client_side import stored_logins, token_store
from tests.integration.auth.session_bus import SessionBus, require_programs

pytestmark = [
    pytest.mark.integration,
    # The keyring library leaves its connection to the bus open when the keyring stays locked.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

SETTINGS = ClientSettings(issuer="https://id.example", client_id="app", storage=TokenStorage.KEYRING)
LOGIN = StoredLogin(
    key=LoginKey(issuer="https://id.example", client_id="app", scope=SETTINGS.scope),
    tokens=TokenSet(access_token=Secret("very-secret-access" * 200), refresh_token=Secret("very-secret-refresh")),
)


@pytest.fixture
def bus(tmp_path_factory, monkeypatch):
    require_programs()
    with SessionBus(tmp_path_factory.mktemp("s")) as running:
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", running.environ["DBUS_SESSION_BUS_ADDRESS"])
        yield running
        gc.collect()


@pytest.fixture
def environ(bus, tmp_path):
    return {**bus.environ, "MICROMEGAS_CONFIG_DIR": str(tmp_path)}


def test_a_sign_in_is_kept_in_the_keyring_and_found_by_the_next_program(bus, environ, tmp_path):
    bus.start_keyring(password=b"pw")
    store = token_store(SETTINGS, environ)
    assert isinstance(store, KeyringTokenStore)
    store.check_usable()
    with store.locked():
        store.save(LOGIN)

    assert token_store(SETTINGS, environ).load()[0] == LOGIN
    assert not any("very-secret" in path.read_text() for path in tmp_path.iterdir())


def test_a_logout_leaves_nothing_in_the_keyring(bus, environ, tmp_path):
    bus.start_keyring(password=b"pw")
    store = token_store(SETTINGS, environ)
    with store.locked():
        store.save(LOGIN)
        store.save(LOGIN)
    [stored] = stored_logins(SETTINGS, environ)

    assert stored.remove() == 2
    assert stored.remove() == 0
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.keyring.json.lock"]


def test_a_locked_keyring_that_nobody_unlocks_is_an_error_after_a_bounded_wait(bus, environ):
    bus.start_keyring(password=b"pw")
    open_keyring(environ)
    bus.stop_keyring()
    bus.start_keyring(password=None)
    started = time.monotonic()

    with pytest.raises(TokenStoreError, match="cannot be used"):
        token_store(SETTINGS, environ).check_usable()

    assert time.monotonic() - started < 45


def test_a_session_bus_without_a_keyring_is_an_error_that_names_the_file_storage(bus, environ, tmp_path):
    with pytest.raises(TokenStoreError) as caught:
        token_store(SETTINGS, environ).check_usable()

    assert "MICROMEGAS_TOKEN_STORAGE=file" in caught.value.remedy
    assert not (tmp_path / "tokens.json").exists()
