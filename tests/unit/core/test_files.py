"""Private files, who may change a file, and temporary folders."""

import os
import signal
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from micromegas_jupyter.core.files import (
    FileProblem,
    FileTooLarge,
    Reader,
    TemporaryFolder,
    check_replaceable,
    ensure_private_folder,
    find_foreign_writer,
    is_readable_by_others,
    new_file,
    read_private_file,
    read_shared_file,
    remove_abandoned,
    remove_temporaries,
    write_private_file,
)


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


@pytest.mark.parametrize("read", [read_private_file, read_shared_file])
def test_a_file_as_large_as_the_limit_is_read_and_one_byte_more_is_not(path, read):
    assert read(path, max_bytes=7)[0] == b"content"
    with pytest.raises(FileTooLarge):
        read(path, max_bytes=6)


@pytest.mark.parametrize(("keeps_rights", "expected"), [(True, 0o640), (False, 0o600)])
def test_a_file_that_is_replaced_keeps_its_mode_only_when_that_is_asked_for(path, keeps_rights, expected):
    path.chmod(0o640)

    write_private_file(path, b"new", keeps_rights=keeps_rights)

    assert (path.read_bytes(), mode_of(path)) == (b"new", expected)


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_files_and_folders_are_private_under_every_umask(tmp_path):
    path = tmp_path / "a" / "b" / "file"

    ensure_private_folder(path.parent)
    write_private_file(path, b"content")

    assert (mode_of(path), mode_of(path.parent), mode_of(tmp_path / "a")) == (0o600, 0o700, 0o700)


def make_link(path):
    target = path.with_name("target")
    target.write_bytes(b"precious")
    path.symlink_to(target)


def make_dangling_link(path):
    path.symlink_to(path.with_name("nowhere"))


@pytest.mark.parametrize("make", [make_link, make_dangling_link, os.mkfifo, os.mkdir])
def test_what_is_not_a_regular_file_is_neither_read_nor_replaced(make, tmp_path):
    path = tmp_path / "file"
    make(path)

    for use in (read_private_file, check_replaceable, lambda place: write_private_file(place, b"new")):
        with pytest.raises(FileProblem):
            use(path)

    assert not [entry for entry in tmp_path.iterdir() if entry.name.endswith(".tmp")]
    if make is make_link:
        assert (tmp_path / "target").read_bytes() == b"precious"


def test_a_file_of_another_user_is_not_used(path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)

    with pytest.raises(FileProblem):
        read_private_file(path)
    with pytest.raises(FileProblem):
        write_private_file(path, b"new")
    assert path.read_bytes() == b"content"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_whole(step, path, tmp_path, monkeypatch):
    def fail(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(FileProblem, match="No space left"):
        write_private_file(path, b"new")

    assert path.read_bytes() == b"content"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path):
    for name in ("file", ".file.0123.tmp", ".other.0123.tmp", "file.lock"):
        (tmp_path / name).write_bytes(b"")

    remove_temporaries(tmp_path / "file")

    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".other.0123.tmp", "file", "file.lock"]


WRITER = """import os, signal, sys
from pathlib import Path
from micromegas_jupyter.core.files import new_file
with new_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no unnamed files")
def test_nothing_is_left_of_a_new_file_whose_writer_is_killed(tmp_path):
    killed = subprocess.run([sys.executable, "-c", WRITER, tmp_path / "rows.csv"], check=False, timeout=60)

    assert killed.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("has_unnamed", [True, False])
def test_a_new_file_is_complete_and_replaces_no_other(tmp_path, monkeypatch, has_unnamed):
    if not has_unnamed:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    path = tmp_path / "rows.csv"
    with new_file(path) as file:
        file.write(b"rows")
        assert not path.exists()

    with pytest.raises(FileExistsError), new_file(path) as file:
        file.write(b"others")
    with pytest.raises(ZeroDivisionError), new_file(tmp_path / "failed") as file:
        raise ZeroDivisionError

    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("rows.csv", b"rows")]


ALICE = Reader(user_id=1000, group_id=1000)
ALICE_AMONG_USERS = Reader(user_id=1000, group_id=100)
ROOT = Reader(user_id=0, group_id=0)
FILE, FOLDER = stat.S_IFREG, stat.S_IFDIR


def found(mode, *, kind=FILE, user=1000, group=1000):
    return os.stat_result((kind | mode, 1, 1, 1, user, group, 0, 0, 0, 0))


EVERYBODY = "can be changed by any user of this machine"
GROUP = "can be changed by its group"
ANOTHER = "belongs to another user"


@pytest.mark.parametrize(
    ("file", "reader", "writer"),
    [
        *((found(mode, kind=kind), ALICE, None) for mode in (0o600, 0o755) for kind in (FILE, FOLDER)),
        (found(0o644, user=0, group=0), ALICE, None),
        *((found(0o600, user=1001), reader, ANOTHER) for reader in (ALICE, ROOT)),
        *((found(0o666, kind=kind, user=user), ALICE, EVERYBODY) for kind in (FILE, FOLDER) for user in (0, 1000)),
        (found(0o664), ALICE, None),  # a group that is the reader's alone
        (found(0o664, group=100), ALICE, GROUP),
        (found(0o664, group=100), ALICE_AMONG_USERS, GROUP),
        (found(0o664, group=1000), ALICE_AMONG_USERS, GROUP),
        # In a sticky folder nobody replaces what another has put there.
        (found(0o1777, kind=FOLDER, user=0, group=0), ALICE, None),
        (found(0o1777, kind=FOLDER, user=1001), ALICE, ANOTHER),
        (found(0o1666), ALICE, EVERYBODY),
    ],
    ids=lambda value: f"{value.st_mode:o}-{value.st_uid}-{value.st_gid}" if isinstance(value, os.stat_result) else None,
)
def test_who_else_could_change_a_file_is_found(file, reader, writer):
    assert find_foreign_writer(file, reader=reader) == writer


@pytest.mark.parametrize(
    ("mode", "owner", "reader", "is_read_only", "is_readable"),
    [
        (0o600, (1000, 1000), ALICE, False, False), (0o400, (0, 0), ALICE, False, False),
        (0o640, (1000, 1000), ALICE, False, False), (0o640, (0, 100), ALICE, False, False),
        (0o640, (1000, 100), ALICE, False, True), (0o644, (1000, 1000), ALICE, False, True),
        (0o644, (0, 0), ALICE, False, True), (0o604, (1000, 1000), ALICE, False, True),
        (0o640, (0, 100), ROOT, False, True), (0o444, (0, 0), ALICE, True, False),
        (0o444, (1000, 1000), ALICE, True, True),
    ],
)  # fmt: skip
def test_others_read_what_its_mode_and_the_mount_let_them(mode, owner, reader, is_read_only, is_readable):
    file = found(mode, user=owner[0], group=owner[1])

    assert is_readable_by_others(file, reader=reader, is_mounted_read_only=is_read_only) is is_readable


PREFIX = "of-a-test-"
NAME = f"{PREFIX}abcdefgh"

CHILD = """
import sys
from micromegas_jupyter.core.files import TemporaryFolder
folder = TemporaryFolder(sys.argv[1], parent=sys.argv[2])
(folder.path / "inside").mkdir()
(folder.path / "inside" / "rows").write_bytes(b"of somebody")
print(folder.path.name, flush=True)
sys.stdin.read()
"""


@contextmanager
def child(parent):
    """Run a process that has a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, PREFIX, str(parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process, parent / process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_stays(tmp_path):
    with child(tmp_path) as (killed, left), child(tmp_path) as (_, kept):
        own = TemporaryFolder(PREFIX, parent=str(tmp_path))
        killed.kill()
        killed.wait()

        assert remove_abandoned(PREFIX, parent=str(tmp_path)) == 1

        assert not left.exists()
        assert (kept / "inside" / "rows").exists()
        assert own.path.is_dir()
        own.close()


def test_a_folder_is_its_users_alone_and_goes_when_it_is_closed(tmp_path):
    folder = TemporaryFolder(PREFIX, parent=str(tmp_path))
    (folder.path / "rows").write_bytes(b"of somebody")
    mode = mode_of(folder.path)

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

    def look():
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
