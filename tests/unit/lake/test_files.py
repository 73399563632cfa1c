"""Segments, the files they are in, and the writers that own them."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.errors import InternalError, Unavailable
from micromegas_jupyter.lake import files
from micromegas_jupyter.lake.files import (
    Segment,
    SegmentWriter,
    forget_writer,
    hold_writer,
    list_segments,
    list_writers,
    make_private_folder,
    parse_segment,
    publish,
    remove_old_temporaries,
    select_visible,
    storage_errors,
    try_adopt_writer,
)
from micromegas_jupyter.telemetry.tables import LOG_ENTRIES
from tests.fakes.telemetry_rows import log_batch

if TYPE_CHECKING:
    from pathlib import Path


def test_a_name_says_writer_and_range() -> None:
    segment = Segment("writer1", 32, 63)

    assert segment.file_name == "writer1-000000000032-000000000063.parquet"
    assert parse_segment("writer1-000000000032-000000000063.parquet") == segment
    assert parse_segment("writer1-000000000032-000000000063.dropped") == segment._replace(is_tombstone=True)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "part-0.parquet",
        ".writer1-000000000000-000000000000.w.tmp",
        "writer1-000000000000-000000000000.parquet.tmp",
        "wri-ter-000000000000-000000000000.parquet",
        "writer1-000000000005-000000000004.parquet",
        "writer1-0000000000000-000000000000.parquet",
        "writer1-٠٠٠٠٠٠٠٠٠٠٠٠-000000000000.parquet",
        "writer1-000000000000-000000000000.parquet\n",
    ],
)
def test_any_other_file_is_no_segment(name: str) -> None:
    assert parse_segment(name) is None


def test_a_merged_file_hides_what_it_was_made_of() -> None:
    merged = Segment("a", 0, 3)
    sources = [Segment("a", 0, 0), Segment("a", 1, 2), Segment("a", 3, 3)]
    beyond = Segment("a", 4, 4)

    assert select_visible([beyond, *sources, merged]) == [merged, beyond]


def test_merged_files_of_several_tiers_nest() -> None:
    segments = [Segment("a", 0, 15), Segment("a", 4, 7), Segment("a", 5, 5), Segment("a", 16, 19), Segment("a", 17, 17)]

    assert select_visible(segments) == [Segment("a", 0, 15), Segment("a", 16, 19)]


def test_a_tombstone_hides_rows_of_its_range_and_itself() -> None:
    rows = [Segment("a", 0, 3), Segment("a", 2, 2), Segment("a", 4, 4)]

    assert select_visible([*rows, Segment("a", 0, 3, is_tombstone=True)]) == [Segment("a", 4, 4)]


def test_covering_is_never_mutual() -> None:
    rows, tombstone = Segment("a", 0, 3), Segment("a", 0, 3, is_tombstone=True)

    assert tombstone.covers(rows)
    assert not rows.covers(tombstone)
    assert not rows.covers(rows)


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


def test_a_living_writer_is_not_adopted(tmp_path: Path) -> None:
    lock = hold_writer(tmp_path, "w")

    assert try_adopt_writer(tmp_path, "w") is None

    lock.release()


def test_a_writer_that_ended_is_adopted_by_one_only(tmp_path: Path) -> None:
    hold_writer(tmp_path, "w").release()

    first, second = try_adopt_writer(tmp_path, "w"), try_adopt_writer(tmp_path, "w")

    assert first is not None
    assert second is None
    first.release()


def test_an_id_in_use_is_refused(tmp_path: Path) -> None:
    lock = hold_writer(tmp_path, "w")

    with pytest.raises(Unavailable, match="same id"):
        hold_writer(tmp_path, "w")

    lock.release()


def test_lock_files_are_private(tmp_path: Path) -> None:
    lock = hold_writer(tmp_path / "lake", "w")

    assert stat.S_IMODE((tmp_path / "lake" / ".writers" / "w.lock").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "lake").stat().st_mode) == 0o700
    lock.release()


def test_old_writers_are_listed_until_they_are_forgotten(tmp_path: Path) -> None:
    for writer_id, age in (("old", 1000), ("new", 2000)):
        hold_writer(tmp_path, writer_id).release()
        os.utime(tmp_path / ".writers" / f"{writer_id}.lock", (age, age))

    assert list(list_writers(tmp_path, modified_before=1500)) == ["old"]

    forget_writer(tmp_path, "old")

    assert list(list_writers(tmp_path, modified_before=1500)) == []


@pytest.fixture
def writer(tmp_path: Path) -> SegmentWriter:
    return SegmentWriter(tmp_path / "log_entries", LOG_ENTRIES, writer_id="w")


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_each_append_makes_one_file_with_the_tables_schema(writer: SegmentWriter, tmp_path: Path) -> None:
    writer.append(log_batch([1]))
    writer.append(pa.Table.from_batches([log_batch([2]), log_batch([3], writer="x")]))

    folder = tmp_path / "log_entries"
    assert _names(folder) == ["w-000000000000-000000000000.parquet", "w-000000000001-000000000001.parquet"]
    second = pq.ParquetFile(folder / "w-000000000001-000000000001.parquet")
    assert second.schema_arrow.equals(LOG_ENTRIES.schema)
    assert second.metadata.row_group(0).column(0).compression == "ZSTD"
    assert second.read().column("msg").to_pylist() == ["w:2", "x:3"]


def test_rows_are_stored_in_the_order_of_time(writer: SegmentWriter, tmp_path: Path) -> None:
    writer.append(log_batch([3, 1, 2]))

    stored = pq.ParquetFile(tmp_path / "log_entries" / "w-000000000000-000000000000.parquet").read()
    assert stored.column("msg").to_pylist() == ["w:1", "w:2", "w:3"]


def test_rows_with_other_columns_are_refused(writer: SegmentWriter) -> None:
    with pytest.raises(InternalError):
        writer.append(pa.table({"msg": ["a"]}))


def test_a_number_is_not_used_again_after_a_failure(writer: SegmentWriter, tmp_path: Path) -> None:
    (tmp_path / "log_entries").write_text("a file in the folder's place")
    with pytest.raises(Unavailable):
        writer.append(log_batch([1]))
    (tmp_path / "log_entries").unlink()

    writer.append(log_batch([2]))

    assert _names(tmp_path / "log_entries") == ["w-000000000001-000000000001.parquet"]
    assert writer.settled_sequence == 2
