import os
import stat
from pathlib import Path
from typing import BinaryIO

import pytest

from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.lake import files
from micromegas_jupyter.lake.files import (
    Segment,
    list_segment_files,
    list_segments,
    make_private_folder,
    publish,
    remove_old_temporaries,
    storage_errors,
)

NAME = "w-000000000000-000000000000.parquet"


def test_a_published_file_is_whole_and_private(tmp_path: Path) -> None:
    publish(tmp_path, NAME, owner_id="w", write=lambda stream: stream.write(b"rows"))

    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert (tmp_path / NAME).read_bytes() == b"rows"
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600


def test_a_file_is_not_listed_before_it_is_whole(tmp_path: Path) -> None:
    listed: list[list[Segment]] = []

    def write(stream: BinaryIO) -> None:
        stream.write(b"half")
        listed.append(list_segments(tmp_path))

    publish(tmp_path, NAME, owner_id="w", write=write)

    assert listed == [[]]
    assert list_segments(tmp_path) == [Segment("w", 0, 0)]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def write(stream: BinaryIO) -> None:
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        publish(tmp_path, NAME, owner_id="w", write=write)

    assert list(tmp_path.iterdir()) == []


def test_a_file_whose_name_cannot_be_made_durable_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_folder: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "sync_folder", fail)

    with pytest.raises(OSError, match="Input/output"):
        publish(tmp_path, NAME, owner_id="w", write=lambda stream: stream.write(b"rows"))

    assert list(tmp_path.iterdir()) == []


def test_a_link_in_the_place_of_a_temporary_file_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    folder = tmp_path / "table"
    folder.mkdir()
    (folder / ".w-000000000000-000000000000.w.tmp").symlink_to(target)

    with pytest.raises(FileExistsError):
        publish(folder, NAME, owner_id="w", write=lambda stream: stream.write(b"rows"))

    assert target.read_bytes() == b"precious"


def test_missing_folders_are_made_private(tmp_path: Path) -> None:
    make_private_folder(tmp_path / "lake" / "table")

    assert stat.S_IMODE((tmp_path / "lake").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "lake" / "table").stat().st_mode) == 0o700


def test_a_missing_folder_has_no_segments(tmp_path: Path) -> None:
    assert list_segments(tmp_path / "missing") == []
    assert list_segment_files(tmp_path / "missing") == []


def test_a_listing_tells_size_and_age(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"rows")
    (tmp_path / "README").write_bytes(b"other")
    os.utime(tmp_path / NAME, (1000, 2000))

    assert list_segment_files(tmp_path) == [(Segment("w", 0, 0), 4, 2000.0)]


def test_only_old_temporaries_are_removed(tmp_path: Path) -> None:
    for name, age in ((".a.w.tmp", 1000), (".b.w.tmp", 2000), (NAME, 1000)):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (age, age))

    assert remove_old_temporaries(tmp_path, modified_before=1500) == 1

    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.w.tmp", NAME]


def test_errors_of_the_file_system_become_unavailable_without_a_path() -> None:
    with pytest.raises(Unavailable) as caught, storage_errors("Rows could not be stored."):
        raise PermissionError(13, "Permission denied", "/secret/place")

    assert str(caught.value).startswith("Rows could not be stored. Check the free space")
    assert "/secret/place" not in str(caught.value)
