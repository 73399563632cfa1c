"""A sign-in in a keyring: what is stored where, and which keyrings are used at all."""

import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from unittest.mock import Mock

import pytest

from micromegas_jupyter.auth.tokens import keyring as system_keyring
from micromegas_jupyter.auth.tokens.keyring import KeyringTokenStore, SystemKeyring, open_keyring, session_bus_address
from micromegas_jupyter.auth.tokens.store import LoginKey, StoredLogin
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import LoginRequired, TokenStoreError
from micromegas_jupyter.oidc.authorization import TokenSet
from tests.fakes.keyring_backend import LockedKeyring, MemoryKeyring

KEY = LoginKey(
    issuer="https://id.example.com",
    client_id="notebook",
    audience="lake",
    scope="openid api",
    resource="https://lake.example.com",
)
LOGIN = StoredLogin(
    key=KEY, tokens=TokenSet(access_token=Secret("the-access-token"), refresh_token=Secret("the-refresh-token"))
)
NEWER = replace(LOGIN, tokens=TokenSet(access_token=Secret("newer"), refresh_token=Secret("newer-refresh")))
LONG = replace(LOGIN, tokens=TokenSet(access_token=Secret("x" * 10_000)))
OTHER_KEYS = [
    replace(KEY, issuer="https://other.example.com"),
    replace(KEY, client_id="other"),
    replace(KEY, audience=None),
    replace(KEY, scope="openid other"),
    replace(KEY, resource="https://other.example.com"),
]
MEMORY = {"PYTHON_KEYRING_BACKEND": "tests.fakes.keyring_backend.MemoryKeyring"}
LOCKED = {"PYTHON_KEYRING_BACKEND": "tests.fakes.keyring_backend.LockedKeyring"}


@pytest.fixture
def backend():
    return MemoryKeyring()


@pytest.fixture
def store(backend, tmp_path):
    return open_store(tmp_path / "folder" / "tokens.keyring.json", backend, max_part_characters=1000)


def open_store(path, backend, **options):
    return KeyringTokenStore(path, lambda: SystemKeyring(backend), **options)


def save(store, login=LOGIN):
    with store.locked():
        store.save(login)


def test_a_saved_sign_in_is_one_entry_and_no_token_is_in_any_file(store, backend):
    save(store)
    save(store)

    assert store.load() == (LOGIN, store.mark())
    assert len(backend.kept) == 1
    texts = {path.name: path.read_text() for path in store.path.parent.iterdir()}
    assert sorted(texts) == ["tokens.keyring.json", "tokens.keyring.json.lock"]
    assert not any("token" in text for text in texts.values())
    assert {oct(path.stat().st_mode & 0o777) for path in store.path.parent.iterdir()} == {"0o600"}


def test_a_long_sign_in_is_stored_in_parts_and_a_shorter_one_leaves_none_behind(store, backend):
    save(store, LONG)
    long_count = len(backend.kept)
    assert store.load()[0] == LONG

    save(store)

    assert max(len(text) for text in backend.kept.values()) <= 1000
    assert len(backend.kept) < long_count
    assert store.load()[0] == LOGIN


@pytest.mark.parametrize("writes", [1, 2, 5])
def test_a_writer_that_stops_between_parts_leaves_no_mixture(store, backend, writes):
    save(store, LONG)
    backend.writes_left = writes

    with pytest.raises(TokenStoreError):
        save(store, replace(LOGIN, tokens=TokenSet(access_token=Secret("y" * 10_000))))

    with pytest.raises(LoginRequired):
        store.load()


@pytest.mark.parametrize("text", [None, "", "{", "[]", "01", "01" + "0" * 16 + "{}", "٢x", "1x", "99" + "0" * 16])
def test_a_missing_or_damaged_entry_means_that_nobody_is_signed_in(store, backend, text):
    save(store)
    [(name, _)] = backend.kept.items()
    backend.kept = {} if text is None else {name: text}

    with pytest.raises(LoginRequired, match="does not contain"):
        store.load()


def test_a_keyring_that_denies_access_to_the_entry_is_rejected_before_the_sign_in(store, backend, monkeypatch):
    save(store)
    [entry] = backend.kept
    store.check_usable()

    def get_password(*asked):
        if asked == entry:
            raise RuntimeError("access denied")

    monkeypatch.setattr(backend, "get_password", get_password)
    with pytest.raises(TokenStoreError):
        store.check_usable()


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"{}", b"[]", b'{"issuer": "i"}', b'{"issuer": "i", "client_id": "c"}']
)
def test_a_damaged_file_means_that_nobody_is_signed_in_and_a_new_sign_in_mends_it(store, content):
    save(store)
    store.path.write_bytes(content)

    with pytest.raises(LoginRequired):
        store.load()
    save(store, NEWER)
    assert store.load()[0] == NEWER


@pytest.mark.parametrize("other", OTHER_KEYS, ids=["issuer", "application", "audience", "scope", "resource"])
def test_an_entry_that_does_not_fit_its_file_means_that_nobody_is_signed_in(store, backend, other):
    elsewhere = MemoryKeyring()
    save(open_store(store.path, elsewhere), replace(LOGIN, key=other))
    save(store)
    backend.kept = elsewhere.kept

    with pytest.raises(LoginRequired, match="does not contain"):
        store.load()


def test_without_a_usable_keyring_the_sign_in_ends_and_the_error_says_what_is_left(store, backend):
    save(store)
    elsewhere = KeyringTokenStore(store.path, Mock(side_effect=TokenStoreError("There is no session bus.")))

    with pytest.raises(TokenStoreError, match="were not removed"):
        elsewhere.remove()

    assert elsewhere.remove() == 0
    assert store.mark() is None
    assert store.remove() == 1
    assert backend.kept == {}


@pytest.fixture
def run_folder(monkeypatch, tmp_path):
    """An empty folder in place of the one where the person's own bus may be."""
    monkeypatch.setattr(system_keyring, "RUN_FOLDER", tmp_path / "run")
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    folder = tmp_path / "run" / str(os.getuid())
    folder.mkdir(parents=True)
    return folder


@pytest.mark.usefixtures("run_folder")
class TestOpening:
    """Which keyring is used, and why none is."""

    @pytest.fixture
    def locked(self):
        LockedKeyring.release.clear()
        yield
        LockedKeyring.release.set()
        deadline = time.monotonic() + 60
        while True:  # no other call is made until one that was given up has ended
            try:
                open_keyring(MEMORY)
            except TokenStoreError:
                assert time.monotonic() < deadline
            else:
                return

    @pytest.mark.usefixtures("locked")
    def test_a_locked_keyring_is_given_up_in_time_and_not_asked_again_meanwhile(self):
        started = time.monotonic()

        with pytest.raises(TokenStoreError, match="perhaps it waits to be unlocked"):
            open_keyring(LOCKED, unlock_seconds=0.1)
        with pytest.raises(TokenStoreError, match="does not answer"):
            SystemKeyring(MemoryKeyring()).read("name")

        assert time.monotonic() - started < 9

    @pytest.mark.parametrize(
        "name",
        [
            "keyring.backends.fail.Keyring",
            "keyring.backends.null.Keyring",
            "keyring.backends.chainer.ChainerBackend",
            "keyring.backends.kwallet.DBusKeyring",
            "keyrings.alt.file.PlaintextKeyring",
            "no_such_module.Keyring",
            "keyring.backends.SecretService.NoSuch",
        ],
    )
    def test_a_keyring_that_is_missing_or_stores_badly_or_starts_a_bus_is_refused(self, name):
        with pytest.raises(TokenStoreError) as caught:
            open_keyring({"PYTHON_KEYRING_BACKEND": name, "DBUS_SESSION_BUS_ADDRESS": "unix:path=/nowhere"})

        assert "MICROMEGAS_TOKEN_STORAGE=file" in caught.value.remedy

    @pytest.mark.parametrize("address", ["autolaunch:", "unix:path=/nowhere;autolaunch:", "tcp:host=localhost,port=1"])
    def test_an_address_that_may_start_a_bus_is_not_used(self, address):
        assert session_bus_address({"DBUS_SESSION_BUS_ADDRESS": address}) is None

    @pytest.mark.parametrize("is_own", [True, False])
    def test_the_bus_that_systemd_runs_for_the_person_is_known_and_no_other(self, run_folder, monkeypatch, is_own):
        person = os.getuid() + (not is_own)
        path = run_folder.with_name(str(person)) / "bus"
        path.parent.mkdir(exist_ok=True)
        monkeypatch.setattr(os, "getuid", lambda: person)
        with socket.socket(socket.AF_UNIX) as bus:
            bus.bind(str(path))

            assert session_bus_address({}) == (f"unix:path={path}" if is_own else None)

    def test_no_program_is_started_and_no_library_loaded_that_would(self):
        code = (
            "import sys, psutil\n"
            "from pathlib import Path\n"
            "from micromegas_jupyter.auth.tokens import keyring\n"
            "keyring.RUN_FOLDER = Path('/nowhere')\n"
            "started = []\n"
            "sys.addaudithook(lambda event, _: started.append(event) if event in "
            "{'subprocess.Popen', 'os.fork', 'os.posix_spawn', 'os.exec', 'os.system'} else None)\n"
            "try:\n"
            "    keyring.open_keyring()\n"
            "except Exception as error:\n"
            "    reason = error.what\n"
            "loaded = sorted({'dbus', 'gi', 'keyring.backends.kwallet'} & set(sys.modules))\n"
            "print(reason, psutil.Process().children(recursive=True), started, loaded, sep='|')\n"
        )
        environ = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}

        done = subprocess.run(
            [sys.executable, "-c", code], env=environ, check=True, capture_output=True, text=True, timeout=60
        )

        reason, *found = done.stdout.strip().split("|")
        assert reason == "The system's keyring cannot be used: no session bus is running for this session."
        assert found == ["[]", "[]", "[]"]
