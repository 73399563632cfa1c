"""Segments, the files they are in, and the writers that own them."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.lake import files
from micromegas_jupyter.lake.files import (
    Segment,
    SegmentWriter,
    hold_writer,
    list_segments,
    parse_segment,
    publish,
    select_visible,
    storage_errors,
    try_adopt_writer,
)
from micromegas_jupyter.telemetry import LOG_ENTRIES
from tests.fakes.telemetry_rows import log_batch

if TYPE_CHECKING:
    from pathlib import Path


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


def test_a_tombstone_hides_rows_of_its_range_and_itself() -> None:
    rows = [Segment("a", 0, 3), Segment("a", 2, 2), Segment("a", 4, 4)]

    assert select_visible([*rows, Segment("a", 0, 3, is_tombstone=True)]) == [Segment("a", 4, 4)]


NAME = "w-000000000000-000000000000.parquet"


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


def test_errors_of_the_file_system_become_unavailable_without_a_path() -> None:
    with pytest.raises(Unavailable) as caught, storage_errors("Rows could not be stored."):
        raise PermissionError(13, "Permission denied", "/secret/place")

    assert str(caught.value).startswith("Rows could not be stored. Check the free space")
    assert "/secret/place" not in str(caught.value)


def test_a_writer_that_ended_is_adopted_by_one_only(tmp_path: Path) -> None:
    hold_writer(tmp_path, "w").release()

    first, second = try_adopt_writer(tmp_path, "w"), try_adopt_writer(tmp_path, "w")

    assert first is not None
    assert second is None
    first.release()


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


def test_a_number_is_not_used_again_after_a_failure(writer: SegmentWriter, tmp_path: Path) -> None:
    (tmp_path / "log_entries").write_text("a file in the folder's place")
    with pytest.raises(Unavailable):
        writer.append(log_batch([1]))
    (tmp_path / "log_entries").unlink()

    writer.append(log_batch([2]))

    assert _names(tmp_path / "log_entries") == ["w-000000000001-000000000001.parquet"]
    assert writer.settled_sequence == 2
