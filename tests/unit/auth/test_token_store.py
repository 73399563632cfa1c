from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.token_format import StoredLogin
from micromegas_jupyter.auth.token_store import TokenStore
from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.errors import LoginRequired, TokenStoreError, Unavailable
from micromegas_jupyter.oidc.token import TokenSet

if TYPE_CHECKING:
    from pathlib import Path

LOGIN = StoredLogin(
    issuer="https://id.example.com",
    client_id="notebook",
    tokens=TokenSet(access_token=Secret("acc")),
    scope="openid api",
)


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    return TokenStore(tmp_path / "folder" / "tokens.json")


def save(store: TokenStore, login: StoredLogin = LOGIN) -> None:
    with store.locked():
        store.save(login)


def test_a_saved_sign_in_is_loaded_with_its_scope(store: TokenStore) -> None:
    save(store)

    assert store.load() == (LOGIN, store.mark())
    names = sorted(entry.name for entry in store.path.parent.iterdir())
    assert names == ["tokens.json", "tokens.json.extras.json", "tokens.json.lock"]
    assert {oct(entry.stat().st_mode & 0o777) for entry in store.path.parent.iterdir()} == {"0o600"}


def test_a_scope_of_another_sign_in_is_not_taken(store: TokenStore) -> None:
    save(store)
    save(store, replace(LOGIN, client_id="other", scope=None))

    assert store.load()[0].scope is None


def test_a_home_folder_is_expanded_and_a_relative_path_is_fixed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = TokenStore("tokens.json")
    monkeypatch.chdir("/")

    assert TokenStore("~/tokens.json").path == home / "tokens.json"
    assert relative.path == tmp_path / "tokens.json"


def test_a_removed_file_is_not_written_again(store: TokenStore) -> None:
    save(store)
    known = store.mark()
    store.remove()

    assert store.replace(LOGIN, known=known) is None
    assert store.mark() is None


def test_a_changed_file_is_not_overwritten(store: TokenStore) -> None:
    save(store)
    known = store.mark()
    save(store, replace(LOGIN, tokens=TokenSet(access_token=Secret("newer"))))

    assert store.replace(LOGIN, known=known) is None
    assert store.load()[0].tokens.access_token.reveal() == "newer"


def test_removing_takes_the_file_beside_it_along(store: TokenStore) -> None:
    save(store)

    assert store.remove() == 2
    assert [entry.name for entry in store.path.parent.iterdir()] == ["tokens.json.lock"]
    assert store.remove() == 0
    with pytest.raises(LoginRequired):
        store.load()


def test_the_lock_is_waited_for_a_bounded_time(store: TokenStore) -> None:
    other = TokenStore(store.path)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with other.locked():
            held.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(5)
    started = time.monotonic()
    with pytest.raises(Unavailable) as caught, store.locked(wait_seconds=0.2):
        pytest.fail("two hold the lock")

    assert type(caught.value) is Unavailable
    assert time.monotonic() - started < 2
    done.set()
    holder.join(5)
    with store.locked(wait_seconds=1):
        pass


def test_a_lock_that_is_a_link_or_a_folder_is_refused(store: TokenStore, tmp_path: Path) -> None:
    store.path.parent.mkdir()
    lock = store.path.with_name("tokens.json.lock")
    victim = tmp_path / "victim"
    victim.write_text("precious")

    lock.symlink_to(victim)
    with pytest.raises(TokenStoreError), store.locked():
        pytest.fail("a link was locked")
    lock.unlink()
    lock.mkdir()
    with pytest.raises(TokenStoreError), store.locked():
        pytest.fail("a folder was locked")

    assert victim.read_text() == "precious"


@pytest.mark.parametrize("name", ["tokens.json", "tokens.json.lock", "tokens.json.extras.json"])
def test_a_store_whose_files_cannot_be_written_is_known_before_the_sign_in(store: TokenStore, name: str) -> None:
    store.check_usable()
    os.mkfifo(store.path.with_name(name))

    with pytest.raises(TokenStoreError):
        store.check_usable()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{}", b'{"issuer": '])
def test_damaged_content_means_that_nobody_is_signed_in(store: TokenStore, content: bytes) -> None:
    save(store)
    store.path.write_bytes(content)

    with pytest.raises(LoginRequired):
        store.load()


def test_the_holder_of_the_lock_clears_away_what_killed_writers_left(store: TokenStore) -> None:
    save(store)
    leftover = store.path.with_name(".tokens.json.0123456789abcdef.tmp")
    leftover.write_text("half")

    with store.locked():
        assert not leftover.exists()
