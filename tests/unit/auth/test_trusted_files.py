from __future__ import annotations

import os
import stat

import pytest

from micromegas_jupyter.core.files import (
    Reader,
    current_reader,
    find_foreign_writer,
    is_mounted_read_only,
    is_readable_by_others,
)

ALICE = Reader(user_id=1000, group_id=1000)
ALICE_AMONG_USERS = Reader(user_id=1000, group_id=100)
ROOT = Reader(user_id=0, group_id=0)

FILE, FOLDER = stat.S_IFREG, stat.S_IFDIR


def found(mode: int, *, kind: int = FILE, user: int = 1000, group: int = 1000) -> os.stat_result:
    return os.stat_result((kind | mode, 1, 1, 1, user, group, 0, 0, 0, 0))


@pytest.mark.parametrize("kind", [FILE, FOLDER])
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755, 0o777 & ~0o022])
def test_what_only_its_owner_can_change_is_believed(kind: int, mode: int) -> None:
    assert find_foreign_writer(found(mode, kind=kind), reader=ALICE) is None
    assert find_foreign_writer(found(mode, kind=kind, user=0, group=0), reader=ALICE) is None


@pytest.mark.parametrize("reader", [ALICE, ROOT])
def test_what_belongs_to_somebody_else_is_not_believed_even_by_root(reader: Reader) -> None:
    assert find_foreign_writer(found(0o600, user=1001), reader=reader) == "belongs to another user"


@pytest.mark.parametrize("user", [0, 1000])
@pytest.mark.parametrize("kind", [FILE, FOLDER])
def test_what_everybody_can_change_is_not_believed(kind: int, user: int) -> None:
    writer = find_foreign_writer(found(0o666, kind=kind, user=user), reader=ALICE)

    assert writer == "can be changed by everybody on this machine"


def test_a_group_that_is_the_readers_alone_may_write() -> None:
    assert find_foreign_writer(found(0o664), reader=ALICE) is None


@pytest.mark.parametrize(("reader", "group"), [(ALICE, 100), (ALICE_AMONG_USERS, 100), (ALICE_AMONG_USERS, 1000)])
def test_any_other_group_may_not(reader: Reader, group: int) -> None:
    assert find_foreign_writer(found(0o664, group=group), reader=reader) == "can be changed by its group"


def test_nobody_replaces_what_another_has_put_into_a_sticky_folder() -> None:
    assert find_foreign_writer(found(0o1777, kind=FOLDER, user=0, group=0), reader=ALICE) is None
    assert find_foreign_writer(found(0o1666), reader=ALICE) is not None
    assert find_foreign_writer(found(0o1777, kind=FOLDER, user=1001), reader=ALICE) == "belongs to another user"


@pytest.mark.parametrize(
    ("mode", "user", "group", "is_readable"),
    [
        (0o600, 1000, 1000, False),
        (0o400, 0, 0, False),
        (0o640, 1000, 1000, False),
        (0o640, 1000, 100, True),
        (0o640, 0, 100, False),
        (0o644, 1000, 1000, True),
        (0o644, 0, 0, True),
        (0o604, 1000, 1000, True),
    ],
)
def test_others_read_what_its_mode_lets_them(mode: int, user: int, group: int, is_readable: bool) -> None:
    file = found(mode, user=user, group=group)

    assert is_readable_by_others(file, reader=ALICE, is_mounted_read_only=False) is is_readable


def test_a_group_that_reads_what_is_roots_reads_along_with_root() -> None:
    assert is_readable_by_others(found(0o640, user=0, group=100), reader=ROOT, is_mounted_read_only=False)


def test_who_reads_what_an_orchestrator_mounts_is_the_orchestrators_choice() -> None:
    assert not is_readable_by_others(found(0o444, user=0, group=0), reader=ALICE, is_mounted_read_only=True)
    assert is_readable_by_others(found(0o444), reader=ALICE, is_mounted_read_only=True)


def test_without_owners_and_modes_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("micromegas_jupyter.core.files.current_reader", lambda: None)

    assert find_foreign_writer(found(0o666, user=1001)) is None
    assert not is_readable_by_others(found(0o666), is_mounted_read_only=False)


def test_the_reader_is_who_the_program_acts_as(monkeypatch: pytest.MonkeyPatch) -> None:
    assert current_reader() == Reader(user_id=os.geteuid(), group_id=os.getegid())

    monkeypatch.setattr(os, "name", "nt")

    assert current_reader() is None


def test_a_mount_that_cannot_be_looked_at_counts_as_writable(tmp_path: object) -> None:
    assert not is_mounted_read_only(tmp_path / "missing")  # type: ignore[operator]
