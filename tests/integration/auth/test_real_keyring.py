"""Sign-ins in a real keyring: GNOME's daemon on a session bus of the test's own."""

import gc
import os
import shutil
import subprocess
import time

import pytest
from jeepney import DBusAddress, new_method_call
from jeepney.io.blocking import open_dbus_connection

from micromegas_jupyter.auth.tokens.keyring import KeyringTokenStore, open_keyring
from micromegas_jupyter.auth.tokens.store import LoginKey, StoredLogin
from micromegas_jupyter.config.client import ClientSettings, TokenStorage
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import TokenStoreError
from micromegas_jupyter.oidc.authorization import TokenSet
from micromegas_jupyter.wiring.client_side import stored_logins, token_store
from tests.integration.executors.server_process import wait_until

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


_CONFIGURATION = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={path}</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""
_BUS = DBusAddress("/org/freedesktop/DBus", bus_name="org.freedesktop.DBus", interface="org.freedesktop.DBus")


class SessionBus:
    """A context manager; the bus starts no services by itself, the keyring's daemon is started by a method."""

    def __init__(self, folder):
        self._folder = folder
        self._processes = []
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "XDG_DATA_HOME": str(folder / "data"),
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={folder}/bus",
        }

    def __enter__(self):
        configuration = self._folder / "bus.conf"
        configuration.write_text(_CONFIGURATION.format(path=self._folder / "bus"))
        self._start("dbus-daemon", "--nofork", f"--config-file={configuration}")
        wait_until((self._folder / "bus").exists, "the bus is there")
        return self

    def __exit__(self, *_error):
        for process in reversed(self._processes):
            process.kill()
            process.wait(60)

    def start_keyring(self, *, password):
        unlock = [] if password is None else ["--unlock"]
        process = self._start("gnome-keyring-daemon", "--foreground", "--components=secrets", *unlock, takes_input=True)
        with process.stdin as words:
            words.write(password or b"")
        wait_until(self._has_keyring, "the keyring is there")

    def stop_keyring(self):
        process = self._processes.pop()
        process.terminate()
        process.wait(60)

    def _start(self, *command, takes_input=False):
        none = subprocess.DEVNULL
        stdin = subprocess.PIPE if takes_input else none
        process = subprocess.Popen(command, env=self.environ, stdin=stdin, stdout=none, stderr=none)
        self._processes.append(process)
        return process

    def _has_keyring(self):
        with open_dbus_connection(self.environ["DBUS_SESSION_BUS_ADDRESS"]) as connection:
            question = new_method_call(_BUS, "NameHasOwner", "s", ("org.freedesktop.secrets",))
            return bool(connection.send_and_get_reply(question, timeout=60).body[0])


@pytest.fixture
def bus(tmp_path_factory, monkeypatch):
    if missing := [name for name in ("dbus-daemon", "gnome-keyring-daemon") if shutil.which(name) is None]:
        pytest.skip(f"{missing} is missing: apt-get install -y dbus-daemon gnome-keyring")
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
