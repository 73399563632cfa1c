"""A lake lists what its writers stored."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.errors import Unavailable, UsageError
from micromegas_jupyter.lake import files
from micromegas_jupyter.lake.files import Segment, SegmentWriter, parse_segment, publish, select_visible
from micromegas_jupyter.lake.lake import CachedListing, Lake
from micromegas_jupyter.telemetry.tables import LOG_ENTRIES
from tests.fakes.clock import FakeClock
from tests.fakes.telemetry_rows import log_batch

if TYPE_CHECKING:
    from pathlib import Path

    from micromegas_jupyter.core.protocols import TableSnapshot


@pytest.fixture
def lake(tmp_path: Path, clock: FakeClock) -> Lake:
    return Lake(tmp_path / "lake", clock=clock)


def _logs(lake: Lake) -> TableSnapshot:
    return next(snapshot for snapshot in lake.snapshot() if snapshot.name == "log_entries")


def test_stored_rows_are_in_the_next_snapshot(lake: Lake, tmp_path: Path) -> None:
    writer = lake.open_writer("a")
    writer.append("log_entries", log_batch([1]))
    first = _logs(lake)
    writer.append("log_entries", log_batch([2]))

    second = _logs(lake)

    folder = tmp_path / "lake" / "log_entries"
    assert first.files == (str(folder / "a-000000000000-000000000000.parquet"),)
    assert second.files[1:] == (str(folder / "a-000000000001-000000000001.parquet"),)
    writer.close()


def test_a_folder_that_changed_just_now_is_listed_again(lake: Lake, tmp_path: Path, clock: FakeClock) -> None:
    writer = lake.open_writer("a")
    writer.append("log_entries", log_batch([1]))
    folder = tmp_path / "lake" / "log_entries"
    just_now = clock.now().timestamp() - 0.01
    os.utime(folder, (just_now, just_now))
    before = _logs(lake)
    writer.append("log_entries", log_batch([2]))
    # A second change in the same step of the file system's clock.
    os.utime(folder, (just_now, just_now))

    after = _logs(lake)

    assert (len(before.files), len(after.files)) == (1, 2)
    writer.close()


def test_a_writer_is_refused_a_table_that_does_not_exist(lake: Lake) -> None:
    writer = lake.open_writer("a")

    with pytest.raises(UsageError):
        writer.append("../log_entries", log_batch([1]))

    writer.close()


def test_only_unfinished_files_of_long_ago_are_removed(lake: Lake, tmp_path: Path, clock: FakeClock) -> None:
    folder = tmp_path / "lake" / "log_entries"
    folder.mkdir(parents=True)
    now = clock.now().timestamp()
    for name, age in ((".old.tmp", 3700), (".new.tmp", 3500), ("old.parquet", 3700)):
        (folder / name).touch()
        os.utime(folder / name, (now - age, now - age))

    lake.remove_stale_files()

    assert {path.name for path in folder.iterdir()} == {".new.tmp", "old.parquet"}


class Source:
    """Counts how often it is asked."""

    def __init__(self):
        self.count = 0

    def snapshot(self):
        self.count += 1
        return (self.count,)


def test_within_a_second_the_folder_is_looked_at_once():
    source, clock = Source(), FakeClock()
    listing = CachedListing(source, clock=clock)

    at_once = [listing.snapshot() for _ in range(5)]
    clock.advance(1.0)

    assert at_once == [(1,)] * 5
    assert listing.snapshot() == (2,)


@pytest.mark.parametrize(
    "name",
    [
        "part-0.parquet",
        ".writer1-000000000000-000000000000.w.tmp",
        "writer1-000000000005-000000000004.parquet",
        "writer1-٠٠٠٠٠٠٠٠٠٠٠٠-000000000000.parquet",
        "writer1-000000000000-000000000000.parquet\n",
    ],
)
def test_any_other_file_is_no_segment(name: str) -> None:
    assert parse_segment(name) is None


def test_a_merged_file_hides_what_it_was_made_of_and_a_tombstone_all_of_its_range() -> None:
    merged, beyond = Segment("a", 0, 3), Segment("a", 4, 4)
    sources = [Segment("a", 0, 0), Segment("a", 1, 2), Segment("a", 3, 3)]

    assert select_visible([beyond, *sources, merged]) == [merged, beyond]
    assert select_visible([beyond, *sources, merged, merged._replace(is_tombstone=True)]) == [beyond]


NAME = "w-000000000000-000000000000.parquet"


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
