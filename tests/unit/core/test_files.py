"""Private files, who may change a file, and temporary folders."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.core.files import (
    FileProblem,
    FileTooLarge,
    NoSuchFile,
    Reader,
    TemporaryFolder,
    check_replaceable,
    close_to_others,
    ensure_private_folder,
    find_foreign_writer,
    is_mounted_read_only,
    is_readable_by_others,
    mark_of,
    read_private_file,
    read_shared_file,
    remove_abandoned,
    remove_file,
    remove_temporaries,
    write_private_file,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READERS = [read_private_file, read_shared_file]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


@pytest.mark.parametrize("read", READERS)
def test_a_file_as_large_as_the_limit_is_read_and_one_byte_more_is_not(path, read):
    assert read(path, max_bytes=7)[0] == b"content"  # type: ignore[operator]
    with pytest.raises(FileTooLarge):
        read(path, max_bytes=6)  # type: ignore[operator]


@pytest.mark.parametrize("read", READERS)
def test_a_missing_file_is_told_from_one_that_cannot_be_used(path, read):
    with pytest.raises(NoSuchFile):
        read(path.with_name("missing"))  # type: ignore[operator]
    with pytest.raises(FileProblem) as caught:
        read(path.parent)  # type: ignore[operator]
    assert not isinstance(caught.value, NoSuchFile)


@pytest.mark.parametrize("read", READERS)
def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(FileProblem, match="regular"):
        read(tmp_path / "pipe")  # type: ignore[operator]


def test_a_shared_file_may_be_a_link_and_stays_as_open_as_it_is(path):
    path.chmod(0o644)
    link = path.with_name("link")
    link.symlink_to(path)

    content, found = read_shared_file(link)

    assert content == b"content"
    assert stat.S_IMODE(found.st_mode) == stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_mark_is_that_of_the_link_or_of_what_it_points_to(path):
    link = path.with_name("link")
    link.symlink_to(path)

    assert mark_of(link, follows_links=True) == mark_of(path)
    assert mark_of(link) != mark_of(path)
    assert mark_of(path.with_name("missing"), follows_links=True) is None


def test_a_private_file_is_closed_to_others_unless_the_reader_leaves_it(path):
    path.chmod(0o640)

    read_private_file(path, closes=False)
    left = stat.S_IMODE(path.stat().st_mode)
    read_private_file(path)

    assert (left, stat.S_IMODE(path.stat().st_mode)) == (0o640, 0o600)


@pytest.mark.parametrize(("keeps_rights", "expected"), [(True, 0o640), (False, 0o600)])
def test_a_file_that_is_replaced_keeps_its_mode_only_when_that_is_asked_for(path, keeps_rights, expected):
    path.chmod(0o640)

    write_private_file(path, b"new", keeps_rights=keeps_rights)

    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", expected)


def test_a_new_file_is_private_also_when_rights_are_kept(tmp_path):
    write_private_file(tmp_path / "new", b"new", keeps_rights=True)

    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to another group")
def test_a_file_that_is_replaced_keeps_its_group(path):
    os.chown(path, -1, 12345)

    write_private_file(path, b"new", keeps_rights=True)

    assert (path.stat().st_uid, path.stat().st_gid) == (0, 12345)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to another group")
def test_where_a_group_cannot_be_kept_nothing_is_written(path, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    os.chown(path, -1, 12345)
    monkeypatch.setattr(os, "fchown", refuse)

    with pytest.raises(FileProblem, match="group"):
        write_private_file(path, b"new", keeps_rights=True)
    assert [each.name for each in path.parent.iterdir()] == ["file"]
    assert path.read_bytes() == b"content"


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("umask")
def test_files_and_folders_are_private_under_every_umask(tmp_path):
    path = tmp_path / "a" / "b" / "file"

    ensure_private_folder(path.parent)
    write_private_file(path, b"content")

    assert (mode_of(path), mode_of(path.parent), mode_of(tmp_path / "a")) == (0o600, 0o700, 0o700)


def test_a_file_that_was_open_to_others_is_closed_by_writing_and_by_reading(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o644)

    assert read_private_file(path)[0] == b"old"
    assert mode_of(path) == 0o600
    path.chmod(0o666)
    write_private_file(path, b"new")
    assert mode_of(path) == 0o600


def test_each_change_gives_another_mark(tmp_path):
    path = tmp_path / "file"
    marks = [write_private_file(path, b"same") for _ in range(3)]

    assert len(set(marks)) == 3
    assert mark_of(tmp_path / "missing") is None


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(10_000_000_000)

    with pytest.raises(FileTooLarge):
        read_private_file(path)


def make_link(path: Path) -> None:
    target = path.with_name("target")
    target.write_bytes(b"precious")
    path.symlink_to(target)


def make_dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


ODD_PLACES = [make_link, make_dangling_link, os.mkfifo, os.mkdir]


@pytest.mark.parametrize("make", ODD_PLACES, ids=["link", "dangling link", "pipe", "folder"])
def test_what_is_not_a_regular_file_is_neither_read_nor_replaced(make, tmp_path):
    path = tmp_path / "file"
    make(path)  # type: ignore[operator]

    for use in (read_private_file, check_replaceable, lambda place: write_private_file(place, b"new")):
        with pytest.raises(FileProblem):
            use(path)  # type: ignore[operator]

    assert not [entry for entry in tmp_path.iterdir() if entry.name.endswith(".tmp")]
    if make is make_link:
        assert (tmp_path / "target").read_bytes() == b"precious"


def test_a_file_of_another_user_is_not_used(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)

    with pytest.raises(FileProblem):
        read_private_file(path)
    with pytest.raises(FileProblem):
        write_private_file(path, b"new")
    assert path.read_bytes() == b"content"


@pytest.mark.parametrize("step", ["write", "fsync"])
def test_a_write_that_fails_leaves_the_old_file_whole(step, tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_private_file(path, b"old")

    def fail(*_arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(FileProblem, match="No space left"):
        write_private_file(path, b"new")

    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path):
    for name in ("file", ".file.0123.tmp", ".other.0123.tmp", "file.lock"):
        (tmp_path / name).write_bytes(b"")

    remove_temporaries(tmp_path / "file")

    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".other.0123.tmp", "file", "file.lock"]


def test_removing_a_link_leaves_what_it_points_to(tmp_path):
    make_link(tmp_path / "file")

    remove_file(tmp_path / "file")

    assert [entry.name for entry in tmp_path.iterdir()] == ["target"]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(FileProblem):
        ensure_private_folder(tmp_path / "file" / "folder")
    with pytest.raises(FileProblem):
        ensure_private_folder(tmp_path / "file")


def test_a_file_is_closed_to_others_without_being_read_or_replaced(tmp_path):
    path = tmp_path / "t.lock"
    path.write_text("x")
    path.chmod(0o666)
    inode = path.stat().st_ino

    close_to_others(path)
    close_to_others(tmp_path / "missing")

    found = path.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_ino, path.read_text()) == (0o600, inode, "x")
    assert not (tmp_path / "missing").exists()


def test_a_link_is_not_followed_to_be_closed_to_others(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("x")
    victim.chmod(0o644)
    (tmp_path / "t.lock").symlink_to(victim)

    with pytest.raises(FileProblem, match="symbolic link"):
        close_to_others(tmp_path / "t.lock")

    assert stat.S_IMODE(victim.stat().st_mode) == 0o644


ALICE = Reader(user_id=1000, group_id=1000)

ALICE_AMONG_USERS = Reader(user_id=1000, group_id=100)

ROOT = Reader(user_id=0, group_id=0)

FILE, FOLDER = stat.S_IFREG, stat.S_IFDIR


def found(mode: int, *, kind: int = FILE, user: int = 1000, group: int = 1000) -> os.stat_result:
    return os.stat_result((kind | mode, 1, 1, 1, user, group, 0, 0, 0, 0))


@pytest.mark.parametrize("kind", [FILE, FOLDER])
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755, 0o777 & ~0o022])
def test_what_only_its_owner_can_change_is_believed(kind, mode):
    assert find_foreign_writer(found(mode, kind=kind), reader=ALICE) is None
    assert find_foreign_writer(found(mode, kind=kind, user=0, group=0), reader=ALICE) is None


@pytest.mark.parametrize("reader", [ALICE, ROOT])
def test_what_belongs_to_somebody_else_is_not_believed_even_by_root(reader):
    assert find_foreign_writer(found(0o600, user=1001), reader=reader) == "belongs to another user"


@pytest.mark.parametrize("user", [0, 1000])
@pytest.mark.parametrize("kind", [FILE, FOLDER])
def test_what_everybody_can_change_is_not_believed(kind, user):
    writer = find_foreign_writer(found(0o666, kind=kind, user=user), reader=ALICE)

    assert writer == "can be changed by everybody on this machine"


def test_a_group_that_is_the_readers_alone_may_write():
    assert find_foreign_writer(found(0o664), reader=ALICE) is None


@pytest.mark.parametrize(("reader", "group"), [(ALICE, 100), (ALICE_AMONG_USERS, 100), (ALICE_AMONG_USERS, 1000)])
def test_any_other_group_may_not(reader, group):
    assert find_foreign_writer(found(0o664, group=group), reader=reader) == "can be changed by its group"


def test_nobody_replaces_what_another_has_put_into_a_sticky_folder():
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
def test_others_read_what_its_mode_lets_them(mode, user, group, is_readable):
    file = found(mode, user=user, group=group)

    assert is_readable_by_others(file, reader=ALICE, is_mounted_read_only=False) is is_readable


def test_a_group_that_reads_what_is_roots_reads_along_with_root():
    assert is_readable_by_others(found(0o640, user=0, group=100), reader=ROOT, is_mounted_read_only=False)


def test_who_reads_what_an_orchestrator_mounts_is_the_orchestrators_choice():
    assert not is_readable_by_others(found(0o444, user=0, group=0), reader=ALICE, is_mounted_read_only=True)
    assert is_readable_by_others(found(0o444), reader=ALICE, is_mounted_read_only=True)


def test_without_owners_and_modes_nothing_is_found(monkeypatch):
    monkeypatch.setattr("micromegas_jupyter.core.files.current_reader", lambda: None)

    assert find_foreign_writer(found(0o666, user=1001)) is None
    assert not is_readable_by_others(found(0o666), is_mounted_read_only=False)


def test_a_mount_that_cannot_be_looked_at_counts_as_writable(tmp_path):
    assert not is_mounted_read_only(tmp_path / "missing")  # type: ignore[operator]


PREFIX = "of-a-test-"

NAME = f"{PREFIX}abcdefgh"

CHILD = """
import sys
from micromegas_jupyter.core.files import TemporaryFolder
folder = TemporaryFolder(sys.argv[1], parent=sys.argv[2])
(folder.path / "rows").write_bytes(b"of somebody")
(folder.path / "inside").mkdir()
(folder.path / "inside" / "rows").write_bytes(b"of somebody")
print(folder.path.name, flush=True)
sys.stdin.read()
"""


@contextmanager
def child(parent: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Run a process that has a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, PREFIX, str(parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, parent / process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_stays(tmp_path):
    with child(tmp_path) as (killed, left), child(tmp_path) as (_, kept), TemporaryClosed(tmp_path) as own:
        killed.kill()
        killed.wait()

        removed = remove_abandoned(PREFIX, parent=str(tmp_path))

        assert removed == 1
        assert not left.exists()
        assert {found.name for found in kept.iterdir()} == {"rows", "inside"}
        assert own.is_dir()


class TemporaryClosed:
    """A folder of this process, closed at the end."""

    def __init__(self, parent: Path) -> None:
        self._folder = TemporaryFolder(PREFIX, parent=str(parent))

    def __enter__(self) -> Path:
        return self._folder.path

    def __exit__(self, *_error: object) -> None:
        self._folder.close()


def test_a_folder_is_its_users_alone_and_goes_when_it_is_closed(tmp_path):
    folder = TemporaryFolder(PREFIX, parent=str(tmp_path))
    (folder.path / "rows").write_bytes(b"of somebody")
    mode = folder.path.stat().st_mode & 0o777

    folder.close()
    folder.close()

    assert mode == 0o700
    assert not folder.path.exists()


def test_what_only_looks_like_a_folder_of_the_dead_stays(tmp_path):
    place, elsewhere = tmp_path / "place", tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "kept").touch()
    place.mkdir()
    (place / NAME).symlink_to(elsewhere)
    (place / f"{PREFIX}open____").mkdir(mode=0o755)
    (place / f"{PREFIX}longer_than_made").mkdir(mode=0o700)
    (place / f"another-{NAME}").mkdir(mode=0o700)
    (place / f"{PREFIX}afile___").touch(mode=0o700)
    before = sorted(place.iterdir())

    assert remove_abandoned(PREFIX, parent=str(place)) == 0

    assert sorted(place.iterdir()) == before
    assert (elsewhere / "kept").exists()


def test_another_users_folder_stays(tmp_path, monkeypatch):
    (tmp_path / NAME).mkdir(mode=0o700)
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)

    assert remove_abandoned(PREFIX, parent=str(tmp_path)) == 0

    assert (tmp_path / NAME).is_dir()
    monkeypatch.undo()
    assert remove_abandoned(PREFIX, parent=str(tmp_path)) == 1


def test_a_link_inside_a_folder_of_the_dead_leads_nowhere(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    (tmp_path / NAME).mkdir(mode=0o700)
    (tmp_path / NAME / "link").symlink_to(kept)
    (tmp_path / NAME / "inside").mkdir()
    (tmp_path / NAME / "inside" / "link").symlink_to(kept)

    assert remove_abandoned(PREFIX, parent=str(tmp_path)) == 1

    assert not (tmp_path / NAME).exists()
    assert (kept / "file").exists()


def test_whoever_looks_while_folders_are_made_takes_none(tmp_path):
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            remove_abandoned(PREFIX, parent=str(tmp_path))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        folders = [TemporaryFolder(PREFIX, parent=str(tmp_path)) for _ in range(200)]
    finally:
        is_over.set()
        looking.join()

    remove_abandoned(PREFIX, parent=str(tmp_path))

    assert all(folder.path.is_dir() for folder in folders)
    for folder in folders:
        folder.close()
