from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.keyring_store import KeyringTokenStore, part_characters
from micromegas_jupyter.auth.sign_in_entry import SignInEntry
from micromegas_jupyter.auth.system_keyring import KeyringUnusable, SystemKeyring
from micromegas_jupyter.auth.token_format import StoredLogin
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.errors import LoginRequired, TokenStoreError
from micromegas_jupyter.oidc.tokens import TokenSet
from tests.fakes.keyring_backend import MemoryKeyring

if TYPE_CHECKING:
    from pathlib import Path

LOGIN = StoredLogin(
    issuer="https://id.example.com",
    client_id="notebook",
    audience="lake",
    tokens=TokenSet(access_token=Secret("the-access-token"), refresh_token=Secret("the-refresh-token")),
    scope="openid api",
    resource="https://lake.example.com",
    clock_offset_seconds=3.5,
)
NEWER = replace(LOGIN, tokens=TokenSet(access_token=Secret("newer"), refresh_token=Secret("newer-refresh")))


@pytest.fixture
def backend() -> MemoryKeyring:
    return MemoryKeyring()


@pytest.fixture
def store(backend: MemoryKeyring, tmp_path: Path) -> KeyringTokenStore:
    return KeyringTokenStore(tmp_path / "folder" / "tokens.keyring.json", SystemKeyring(backend))


def save(store: KeyringTokenStore, login: StoredLogin = LOGIN) -> None:
    with store.locked():
        store.save(login)


def test_a_saved_sign_in_is_loaded_whole(store: KeyringTokenStore) -> None:
    save(store)

    assert store.load() == (LOGIN, store.mark())


def test_no_token_is_in_any_file(store: KeyringTokenStore) -> None:
    save(store)

    texts = {path.name: path.read_text() for path in store.path.parent.iterdir()}
    assert sorted(texts) == ["tokens.keyring.json", "tokens.keyring.json.lock"]
    assert not any("token" in text.replace("token_file", "") for text in texts.values())
    assert {oct(path.stat().st_mode & 0o777) for path in store.path.parent.iterdir()} == {"0o600"}


def test_another_program_notices_a_renewal_by_the_mark(store: KeyringTokenStore, backend: MemoryKeyring) -> None:
    other = KeyringTokenStore(store.path, SystemKeyring(backend))
    save(store)
    before = other.mark()

    save(store, NEWER)

    assert other.mark() != before
    assert other.load()[0] == NEWER


def test_a_long_sign_in_is_kept_in_parts_and_a_shorter_one_leaves_none_behind(
    backend: MemoryKeyring, tmp_path: Path
) -> None:
    store = KeyringTokenStore(tmp_path / "t.keyring.json", SystemKeyring(backend), max_part_characters=100)
    long = replace(LOGIN, tokens=TokenSet(access_token=Secret("x" * 1000)))
    save(store, long)
    long_count = len(backend.kept)
    assert store.load()[0] == long

    save(store)
    save(store)

    assert max(len(text) for text in backend.kept.values()) <= 100
    assert len(backend.kept) < long_count
    assert store.load()[0] == LOGIN


def test_a_part_fits_into_the_2560_bytes_that_windows_takes() -> None:
    assert part_characters("win32") * 2 <= 2560


def test_a_sign_in_that_is_too_large_leaves_the_old_one(backend: MemoryKeyring, tmp_path: Path) -> None:
    store = KeyringTokenStore(tmp_path / "t.keyring.json", SystemKeyring(backend), max_part_characters=20)
    save(store)

    with pytest.raises(TokenStoreError, match="too large"):
        save(store, replace(LOGIN, tokens=TokenSet(access_token=Secret("x" * 2000))))

    assert store.load()[0] == LOGIN


@pytest.mark.parametrize("writes", range(5))
def test_a_writer_that_stops_half_way_leaves_the_old_sign_in(
    backend: MemoryKeyring, tmp_path: Path, writes: int
) -> None:
    store = KeyringTokenStore(tmp_path / "t.keyring.json", SystemKeyring(backend), max_part_characters=100)
    save(store)
    backend.writes_left = writes

    with pytest.raises(TokenStoreError):
        save(store, replace(LOGIN, tokens=TokenSet(access_token=Secret("x" * 1000))))

    assert store.load()[0] == LOGIN


def test_a_removed_sign_in_is_not_written_again(store: KeyringTokenStore, backend: MemoryKeyring) -> None:
    save(store)
    known = store.mark()
    store.remove()

    assert store.replace(NEWER, known=known) is None
    assert (store.mark(), backend.kept) == (None, {})


def test_a_changed_sign_in_is_not_overwritten(store: KeyringTokenStore) -> None:
    save(store)
    known = store.mark()
    save(store, NEWER)

    assert store.replace(LOGIN, known=known) is None
    assert store.load()[0] == NEWER


def test_a_known_sign_in_is_replaced(store: KeyringTokenStore) -> None:
    save(store)

    mark = store.replace(NEWER, known=store.mark())

    assert store.load() == (NEWER, mark)


def test_removing_takes_marker_and_entry(store: KeyringTokenStore) -> None:
    save(store)

    assert store.remove() == 2
    assert store.remove() == 0
    with pytest.raises(LoginRequired):
        store.load()


def test_a_marker_without_its_entry_means_that_nobody_is_signed_in(
    store: KeyringTokenStore, backend: MemoryKeyring
) -> None:
    save(store)
    backend.kept.clear()

    with pytest.raises(LoginRequired, match="does not hold"):
        store.load()


def test_an_entry_of_an_older_sign_in_does_not_answer(store: KeyringTokenStore, backend: MemoryKeyring) -> None:
    save(store)
    old = dict(backend.kept)
    save(store, NEWER)
    [(key, _)] = backend.kept.items()
    backend.kept[key] = next(iter(old.values()))

    with pytest.raises(LoginRequired):
        store.load()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"{}",
        b"[]",
        b'{"issuer": "i", "client_id": "c"}',
        b'{"issuer": "i", "client_id": "c", "version": true, "parts": 1}',
        b'{"issuer": "i", "client_id": "c", "version": 1, "parts": 65}',
    ],
)
def test_a_damaged_marker_means_that_nobody_is_signed_in_and_a_new_sign_in_mends_it(
    store: KeyringTokenStore, content: bytes
) -> None:
    save(store)
    store.path.write_bytes(content)

    with pytest.raises(LoginRequired):
        store.load()
    save(store, NEWER)
    assert store.load()[0] == NEWER


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 1}', '{"version": 1, "token_file": "{}", "extras": "{}"}'])
def test_a_damaged_entry_means_that_nobody_is_signed_in(
    store: KeyringTokenStore, backend: MemoryKeyring, text: str
) -> None:
    save(store)
    [(key, _)] = backend.kept.items()
    backend.kept[key] = text

    with pytest.raises(LoginRequired):
        store.load()


@pytest.mark.parametrize(
    "other",
    [
        replace(LOGIN, issuer="https://other.example.com"),
        replace(LOGIN, client_id="other"),
        replace(LOGIN, audience=None),
        replace(LOGIN, scope="openid other"),
        replace(LOGIN, resource="https://other.example.com"),
    ],
    ids=["issuer", "application", "audience", "scope", "resource"],
)
def test_an_entry_that_does_not_fit_its_marker_means_that_nobody_is_signed_in(
    store: KeyringTokenStore, backend: MemoryKeyring, other: StoredLogin
) -> None:
    elsewhere = MemoryKeyring()
    save(KeyringTokenStore(store.path, SystemKeyring(elsewhere)), other)
    store.path.unlink()
    save(store)
    backend.kept = elsewhere.kept

    with pytest.raises(LoginRequired, match="does not hold"):
        store.load()


def test_a_marker_that_was_changed_sends_no_tokens_elsewhere(store: KeyringTokenStore) -> None:
    save(store)
    text = store.path.read_text()
    store.path.write_text(text.replace("https://id.example.com", "https://evil.example.com"))

    with pytest.raises(LoginRequired, match="does not hold"):
        store.load()


def test_a_link_in_place_of_the_marker_is_refused(store: KeyringTokenStore, tmp_path: Path) -> None:
    store.path.parent.mkdir()
    store.path.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(TokenStoreError):
        store.check_usable()
    with pytest.raises(TokenStoreError):
        store.load()
    with pytest.raises(TokenStoreError):
        save(store)


def test_another_entrys_sign_in_is_neither_read_nor_replaced_nor_removed(
    store: KeyringTokenStore, backend: MemoryKeyring
) -> None:
    save(store)
    entry = SignInEntry(issuer="https://other.example.com", client_id="notebook")
    bound = KeyringTokenStore(store.path, SystemKeyring(backend), entry=entry)

    with pytest.raises(LoginRequired):
        bound.load()
    with pytest.raises(TokenStoreError, match="another sign-in"):
        save(bound, replace(LOGIN, issuer="https://other.example.com"))
    assert bound.remove() == 0
    assert store.load()[0] == LOGIN


def test_a_keyring_that_fails_is_an_error_without_what_was_to_be_kept(
    store: KeyringTokenStore, backend: MemoryKeyring
) -> None:
    backend.failure = ValueError("cannot keep the-refresh-token")

    with pytest.raises(TokenStoreError) as caught:
        save(store)

    assert str(caught.value).startswith("The system's keyring cannot be used: ValueError.")
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_an_unusable_keyring_says_why(store: KeyringTokenStore) -> None:
    save(store)
    elsewhere = KeyringTokenStore(store.path, KeyringUnusable(reason="no session bus is running"))

    with pytest.raises(TokenStoreError, match="no session bus is running"):
        elsewhere.load()
    with pytest.raises(TokenStoreError, match="no session bus is running"):
        elsewhere.check_usable()


def test_where_the_keyring_cannot_be_used_the_sign_in_ends_and_what_is_left_is_said(
    store: KeyringTokenStore, backend: MemoryKeyring
) -> None:
    save(store)
    elsewhere = KeyringTokenStore(store.path, KeyringUnusable(reason="no session bus is running"))

    with pytest.raises(TokenStoreError, match="were not removed"):
        elsewhere.remove()

    assert store.mark() is None
    assert store.remove() == 1
    assert backend.kept == {}


def test_whose_sign_in_it_is_is_known_without_the_keyring(store: KeyringTokenStore) -> None:
    save(store)
    elsewhere = KeyringTokenStore(store.path, KeyringUnusable(reason="no session bus is running"))

    assert elsewhere.stored_entry() == LOGIN.entry
    assert json.loads(store.path.read_text())["kept_in"] == "keyring"


def test_it_is_named_for_people(store: KeyringTokenStore) -> None:
    assert store.label == "the system's keyring"
