"""The token file: its text, its key, its lock, and who may read it."""

import errno
import json
import os
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from unittest.mock import Mock

import pytest

from micromegas_jupyter.auth.tokens.keyring import KeyringTokenStore, SystemKeyring
from micromegas_jupyter.auth.tokens.store import (
    FileTokenStore,
    LoginKey,
    StoredLogin,
    build_key,
    build_token_file,
    parse_token,
    parse_token_file,
)
from micromegas_jupyter.core.files import read_private_file
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import LoginRequired, TokenStoreError, Unavailable
from micromegas_jupyter.oidc.authorization import TokenSet
from tests.fakes.keyring_backend import MemoryKeyring

FORMATTED = StoredLogin(
    key=LoginKey(issuer="https://id.example.com", client_id="notebook", audience="api"),
    tokens=TokenSet(
        access_token=Secret("acc"),
        id_token=Secret("idt"),
        refresh_token=Secret("ref"),
        obtained_at=datetime(2026, 11, 24, 12, 0, tzinfo=UTC),
        expires_at=datetime(2026, 11, 24, 13, 0, tzinfo=UTC),
        scope="openid",
    ),
)


def test_the_file_has_upstreams_names_and_whole_seconds():
    text = build_token_file(FORMATTED)

    assert json.loads(text) == {
        "issuer": "https://id.example.com",
        "client_id": "notebook",
        "token": {
            "access_token": "acc",
            "token_type": "Bearer",
            "id_token": "idt",
            "refresh_token": "ref",
            "scope": "openid",
            "expires_at": 1795525200,
            "expires_in": 3600,
        },
        "audience": "api",
    }
    assert text.startswith('{\n  "issuer"')


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"issuer": "a", "client_id": "b"}',
        '{"issuer": "a", "client_id": "b", "token": []}',
        '{"issuer": "a", "client_id": "b", "token": {}}',
        '{"issuer": 1, "client_id": "b", "token": {"access_token": "x"}}',
        '{"issuer": "a", "client_id": "b", "token": {"access_token": 1}}',
        '{"issuer": "a", "client_id": "b", "token": {"access_token": "x", "refresh_token": "a\\nb"}}',
        '{"issuer": "a", "issuer": "c", "client_id": "b", "token": {"access_token": "x"}}',
        "[" * 100_000,
    ],
)
def test_damaged_text_means_that_nobody_is_signed_in(text):
    with pytest.raises(LoginRequired):
        parse_token_file(text)


@pytest.mark.parametrize("value", ["soon", True, -1, 1e30, None, [], "NaN"])
def test_a_time_that_cannot_be_read_is_unknown(value):
    assert parse_token({"access_token": "acc", "expires_at": value, "expires_in": 5}).expires_at is None


KEY = LoginKey(issuer="https://id.example.com", client_id="notebook", audience="lake", scope="openid api")


@pytest.mark.parametrize(
    "change",
    [
        *({"issuer": "https://id.example.com/"}, {"client_id": "other"}, {"resource": "https://lake.example.com"}),
        *({"audience": audience} for audience in ("pond", None)),
        *({"scope": scope} for scope in ("openid", "openid api more")),
    ],
)
def test_a_sign_in_never_answers_for_one_that_differs_in_anything(change):
    other = replace(KEY, **change)

    assert not KEY.satisfies(other)
    assert not other.satisfies(KEY)
    assert other.digest != KEY.digest


def test_a_digest_never_changes_and_the_order_of_a_scope_says_nothing():
    reordered = replace(KEY, scope="api openid")

    assert KEY.digest == reordered.digest == "f350cd45a98a"
    assert KEY.satisfies(reordered)


def test_a_stored_sign_in_of_which_only_the_resource_is_known_answers_for_that_resource_only():
    stored = replace(KEY, scope=None, resource="https://lake.example.com")

    assert stored.satisfies(replace(KEY, resource="https://lake.example.com"))
    assert not stored.satisfies(KEY)


BACKEND = MemoryKeyring()
LOGIN = StoredLogin(
    key=LoginKey(
        issuer="https://id.example.com", client_id="notebook", scope="openid api", resource="https://lake.example.com"
    ),
    tokens=TokenSet(access_token=Secret("acc")),
)


@pytest.fixture
def store(tmp_path):
    return FileTokenStore(tmp_path / "folder" / "tokens.json")


def save(store, login=LOGIN):
    with store.locked():
        store.save(login)


def test_a_saved_sign_in_is_loaded_with_scope_and_resource(store):
    save(store)

    assert store.load() == (LOGIN, store.mark())
    names = sorted(entry.name for entry in store.path.parent.iterdir())
    assert names == ["tokens.json", "tokens.json.lock"]
    assert {oct(entry.stat().st_mode & 0o777) for entry in store.path.parent.iterdir()} == {"0o600"}


def write_as_previous_version(store, login=LOGIN, **changes):
    """Write the token file without scope and resource, which then were in a file next to it."""
    bare = replace(login, key=replace(login.key, scope=None, resource=None))
    save(store, bare)
    extras = store.path.with_name("tokens.json.extras.json")
    extras.write_text(json.dumps(build_key(replace(login.key, **changes))))
    extras.chmod(0o600)
    return extras


def test_the_previous_versions_extra_file_is_read_and_removed_at_the_next_save(store):
    extras = write_as_previous_version(store)

    assert store.stored_key() == LOGIN.key
    migrated = store.load()[0]
    assert migrated == LOGIN
    save(store, migrated)

    assert not extras.exists()
    assert store.load()[0] == LOGIN


@pytest.mark.parametrize(
    "change", [{"issuer": "https://other.example.com"}, {"client_id": "other"}, {"audience": "other"}]
)
def test_an_extra_file_of_another_sign_in_or_a_damaged_one_is_ignored(store, change):
    extras = write_as_previous_version(store, **change)
    bare = replace(LOGIN.key, scope=None, resource=None)

    assert store.load()[0].key == bare
    for text in ("", "{", "[]", "[" * 100_000):
        extras.write_text(text)
        assert store.load()[0].key == bare


def test_a_sign_in_that_is_migrated_while_it_is_read_keeps_scope_and_resource(store, monkeypatch):
    write_as_previous_version(store)
    find = store._with_old_extras

    def migrate_first(key):
        monkeypatch.undo()
        save(store)  # another program's, which removes the extra file
        return find(key)

    monkeypatch.setattr(store, "_with_old_extras", migrate_first)

    assert store.load() == (LOGIN, store.mark())


def test_the_token_files_own_fields_win_over_an_old_extra_file(store):
    extras = write_as_previous_version(store, scope="openid old")
    whole = build_token_file(LOGIN)
    store.path.write_text(whole)

    assert store.load()[0] == LOGIN
    assert extras.exists()


def test_removing_takes_an_old_extra_file_along(store):
    write_as_previous_version(store)

    assert store.remove() == 2
    assert [entry.name for entry in store.path.parent.iterdir()] == ["tokens.json.lock"]
    assert store.remove() == 0
    with pytest.raises(LoginRequired):
        store.load()


def test_a_lock_that_is_a_link_or_a_folder_is_refused(store, tmp_path):
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


def test_a_lock_that_the_file_system_refuses_is_an_error_of_the_store(store, monkeypatch):
    failing = Mock(side_effect=OSError(errno.EIO, "Input/output error"))
    monkeypatch.setattr("fcntl.flock", failing)

    with pytest.raises(TokenStoreError, match=r"tokens\.json\.lock cannot be used"), store.locked():
        pytest.fail("nothing was locked")
    assert failing.called


def test_a_store_of_one_key_removes_a_link_and_leaves_what_it_leads_to(store, tmp_path):
    save(store)
    victim = store.path.rename(tmp_path / "victim")
    store.path.symlink_to(victim)

    assert FileTokenStore(store.path, key=LOGIN.key).remove() == 1

    assert not store.path.is_symlink()
    assert victim.exists()


@pytest.mark.parametrize("name", ["tokens.json", "tokens.json.lock"])
def test_a_store_whose_files_cannot_be_written_is_known_before_the_sign_in(store, name):
    store.check_usable()
    os.mkfifo(store.path.with_name(name))

    with pytest.raises(TokenStoreError):
        store.check_usable()


def test_files_of_another_person_are_refused(store, monkeypatch):
    save(store)
    owner = store.path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)

    with pytest.raises(TokenStoreError, match="belongs to another user"):
        store.load()
    with pytest.raises(TokenStoreError, match="belongs to another user"), store.locked():
        pytest.fail("another's lock was taken")
    with pytest.raises(TokenStoreError, match="belongs to another user"):
        store.save(LOGIN)


def test_a_file_that_another_program_is_still_writing_is_read_once_it_is_whole(store, monkeypatch):
    save(store)
    whole = store.path.read_bytes()
    store.path.write_bytes(whole[:20])
    read_contents = []

    def read_while_the_other_writes_on(path):
        content, mark = read_private_file(path)
        if path == store.path:
            read_contents.append(content)
            store.path.write_bytes(whole)
        return content, mark

    monkeypatch.setattr("micromegas_jupyter.auth.tokens.store.read_private_file", read_while_the_other_writes_on)

    assert store.load()[0] == LOGIN
    assert read_contents == [whole[:20], whole]


@pytest.mark.parametrize(
    "open_store", [FileTokenStore, partial(KeyringTokenStore, open_keyring=lambda: SystemKeyring(BACKEND))]
)
def test_a_store_of_one_key_neither_reads_nor_replaces_nor_removes_anothers_sign_in(open_store, store):
    save(open_store(store.path))
    key = replace(LOGIN.key, audience="other")
    other = open_store(store.path, key=key)

    with pytest.raises(LoginRequired, match="different identity provider"):
        other.load()
    with pytest.raises(TokenStoreError, match="a different sign-in"):
        save(other, replace(LOGIN, key=key))
    assert other.remove() == 0
    assert open_store(store.path, key=LOGIN.key).load()[0] == LOGIN


def test_the_lock_is_waited_for_a_bounded_time(store):
    started = time.monotonic()
    with FileTokenStore(store.path).locked(), pytest.raises(Unavailable) as caught, store.locked(wait_seconds=0.2):
        pytest.fail("two hold the lock")

    assert type(caught.value) is Unavailable
    assert time.monotonic() - started < 9
    with store.locked(wait_seconds=1):
        pass


def test_a_folder_that_everybody_can_change_is_refused_and_left_as_it_is(tmp_path):
    tmp_path.chmod(0o777)

    with pytest.raises(TokenStoreError, match="can be changed by any user") as caught:
        FileTokenStore(tmp_path / "tokens.json").check_usable()

    assert "MICROMEGAS_CONFIG_DIR" in caught.value.remedy
    assert tmp_path.stat().st_mode & 0o777 == 0o777
    FileTokenStore(tmp_path / "mine" / "tokens.json").check_usable()
    tmp_path.chmod(0o1777)
    FileTokenStore(tmp_path / "tokens.json").check_usable()
