"""A lake lists what its writers stored."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.lake.lake import CachedListing, Lake
from tests.fakes.clock import FakeClock
from tests.fakes.telemetry_rows import log_batch

if TYPE_CHECKING:
    from micromegas_jupyter.core.protocols import TableSnapshot


@pytest.fixture
def lake(tmp_path: Path, clock: FakeClock) -> Lake:
    return Lake(tmp_path / "lake", clock=clock)


def _logs(lake: Lake) -> TableSnapshot:
    return next(snapshot for snapshot in lake.snapshot() if snapshot.name == "log_entries")


def _settle(tmp_path: Path, clock: FakeClock) -> None:
    """Let the folder's last change be long ago by the clock."""
    long_ago = clock.now().timestamp() - 10
    os.utime(tmp_path / "lake" / "log_entries", (long_ago, long_ago))


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


def test_a_folder_whose_time_stands_still_is_listed_again_after_a_second(
    lake: Lake, tmp_path: Path, clock: FakeClock
) -> None:
    writer = lake.open_writer("a")
    writer.append("log_entries", log_batch([1]))
    _settle(tmp_path, clock)
    _logs(lake)
    settled = (tmp_path / "lake" / "log_entries").stat().st_mtime
    writer.append("log_entries", log_batch([2]))
    os.utime(tmp_path / "lake" / "log_entries", (settled, settled))

    clock.advance(1.0)

    assert len(_logs(lake).files) == 2
    writer.close()


def test_a_writer_is_refused_a_table_that_does_not_exist(lake: Lake) -> None:
    writer = lake.open_writer("a")

    with pytest.raises(UsageError):
        writer.append("../log_entries", log_batch([1]))

    writer.close()


def test_an_id_that_is_used_again_replaces_no_rows(lake: Lake) -> None:
    for number in range(2):
        writer = lake.open_writer("a")
        writer.append("log_entries", log_batch([number]))
        writer.close()

    assert [Path(file).name for file in _logs(lake).files] == [
        "a-000000000000-000000000000.parquet",
        "a-000000000001-000000000001.parquet",
    ]


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
