"""Sign-ins in a real keyring: GNOME's daemon on a session bus of the test's own."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.keyring_store import KeyringTokenStore
from micromegas_jupyter.auth.system_keyring import KeyringUnusable, usable_keyring
from micromegas_jupyter.auth.token_format import StoredLogin
from micromegas_jupyter.auth.token_store import TokenStore
from micromegas_jupyter.config.client import ClientSettings, TokenStorage
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.oidc.tokens import TokenSet
from micromegas_jupyter.wiring.sign_in_files import sign_in_store, stored_sign_ins
from tests.fakes.session_bus import SessionBus, require_programs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.integration,
    # The keyring library leaves its connection to the bus open when the keyring stays locked.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

SETTINGS = ClientSettings(issuer="https://id.example", client_id="app", storage=TokenStorage.KEYRING)
LOGIN = StoredLogin(
    issuer="https://id.example",
    client_id="app",
    scope=SETTINGS.scope,
    tokens=TokenSet(access_token=Secret("very-secret-access" * 200), refresh_token=Secret("very-secret-refresh")),
)


@pytest.fixture
def bus(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[SessionBus]:
    require_programs()
    with SessionBus(tmp_path_factory.mktemp("s")) as running:
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", running.environ["DBUS_SESSION_BUS_ADDRESS"])
        yield running
        gc.collect()


@pytest.fixture
def environ(bus: SessionBus, tmp_path: Path) -> dict[str, str]:
    return {**bus.environ, "MICROMEGAS_CONFIG_DIR": str(tmp_path)}


def test_a_sign_in_is_kept_in_the_keyring_and_found_by_the_next_program(
    bus: SessionBus, environ: dict[str, str], tmp_path: Path
) -> None:
    bus.start_keyring(password=b"pw")
    store = sign_in_store(SETTINGS, environ)
    assert isinstance(store, KeyringTokenStore)
    store.check_usable()
    with store.locked():
        store.save(LOGIN)

    assert sign_in_store(SETTINGS, environ).load()[0] == LOGIN
    assert not any("very-secret" in path.read_text() for path in tmp_path.iterdir())


def test_a_logout_leaves_nothing_in_the_keyring(bus: SessionBus, environ: dict[str, str], tmp_path: Path) -> None:
    bus.start_keyring(password=b"pw")
    store = sign_in_store(SETTINGS, environ)
    with store.locked():
        store.save(LOGIN)
        store.save(LOGIN)
    [stored] = stored_sign_ins(SETTINGS, environ)

    assert stored.remove() == 2
    assert stored.remove() == 0
    assert [path.name for path in tmp_path.iterdir()] == ["tokens.keyring.json.lock"]


def test_a_locked_keyring_that_nobody_unlocks_means_the_file_after_a_bounded_wait(
    bus: SessionBus, environ: dict[str, str]
) -> None:
    bus.start_keyring(password=b"pw")
    assert not isinstance(usable_keyring(environ), KeyringUnusable)
    bus.stop_keyring()
    bus.start_keyring(password=None)
    told: list[str] = []
    started = time.monotonic()

    store = sign_in_store(SETTINGS, environ, announce=told.append)

    assert isinstance(store, TokenStore)
    assert len(told) == 1
    assert told[0].startswith("The system's keyring cannot be used (")
    assert told[0].endswith(f"): the sign-in is kept in {store.label}.")
    assert time.monotonic() - started < 45


def test_a_session_bus_without_a_keyring_means_the_file(bus: SessionBus, environ: dict[str, str]) -> None:
    told: list[str] = []

    store = sign_in_store(SETTINGS, environ, announce=told.append)

    assert isinstance(store, TokenStore)
    assert len(told) == 1
