import os
from pathlib import Path

import pytest

from micromegas_jupyter.lake import LakeLimits
from micromegas_jupyter.lake.files import Segment, SegmentFile, list_segment_files, list_segments, select_visible
from micromegas_jupyter.lake.maintenance import drop_segment, remove_covered, select_expired

NOW = 1_000_000.0
LIMITS = LakeLimits(grace_seconds=60, max_age_seconds=1000, max_total_bytes=100)


def _file(first: int, last: int, *, age: float, size: int = 10, is_tombstone: bool = False) -> SegmentFile:
    return SegmentFile(Segment("w", first, last, is_tombstone), size, NOW - age)


def _store(folder: Path, *files: SegmentFile) -> None:
    for found in files:
        path = folder / found.segment.file_name
        path.write_bytes(b"x" * found.size_bytes)
        os.utime(path, (found.modified_at, found.modified_at))


def test_files_past_their_age_are_dropped() -> None:
    tables = {"log_entries": [_file(0, 0, age=1001), _file(1, 1, age=999)], "measures": [_file(0, 0, age=1002)]}

    expired = select_expired(tables, now=NOW, limits=LIMITS)

    assert expired == {"log_entries": [Segment("w", 0, 0)], "measures": [Segment("w", 0, 0)]}


def test_the_oldest_files_of_all_tables_are_dropped_while_all_are_too_large() -> None:
    tables = {
        "log_entries": [_file(0, 0, age=30, size=50), _file(1, 1, age=10, size=50)],
        "measures": [_file(0, 0, age=40, size=30), _file(1, 1, age=20, size=30)],
    }

    expired = select_expired(tables, now=NOW, limits=LIMITS)

    assert expired == {"measures": [Segment("w", 0, 0)], "log_entries": [Segment("w", 0, 0)]}


def test_files_that_are_already_hidden_do_not_count() -> None:
    tables = {"log_entries": [_file(0, 1, age=5, size=90), _file(0, 0, age=2000, size=90)]}

    assert select_expired(tables, now=NOW, limits=LIMITS) == {}


def test_dropped_rows_disappear_at_once_and_their_file_after_the_grace_period(tmp_path: Path) -> None:
    _store(tmp_path, _file(0, 3, age=500), _file(4, 4, age=500))

    drop_segment(tmp_path, Segment("w", 0, 3), owner_id="w")
    tombstone = Segment("w", 0, 3, is_tombstone=True)

    assert select_visible(list_segments(tmp_path)) == [Segment("w", 4, 4)]
    dropped_at = (tmp_path / tombstone.file_name).stat().st_mtime
    assert remove_covered(tmp_path, list_segment_files(tmp_path), now=dropped_at + 59, limits=LIMITS) == 0
    assert remove_covered(tmp_path, list_segment_files(tmp_path), now=dropped_at + 61, limits=LIMITS) == 1
    assert remove_covered(tmp_path, list_segment_files(tmp_path), now=dropped_at + 61, limits=LIMITS) == 1
    assert list_segments(tmp_path) == [Segment("w", 4, 4)]


@pytest.mark.parametrize(("age", "left"), [(59, 3), (61, 1)])
def test_merged_sources_stay_for_the_grace_period(tmp_path: Path, age: float, left: int) -> None:
    _store(tmp_path, _file(0, 0, age=500), _file(1, 1, age=500), _file(0, 1, age=age))

    remove_covered(tmp_path, list_segment_files(tmp_path), now=NOW, limits=LIMITS)

    assert len(list_segments(tmp_path)) == left
    assert select_visible(list_segments(tmp_path)) == [Segment("w", 0, 1)]


def test_a_tombstone_stays_while_anything_is_left_that_it_hides(tmp_path: Path) -> None:
    tombstone = _file(0, 3, age=61, is_tombstone=True, size=0)
    _store(tmp_path, tombstone, _file(0, 3, age=500), _file(2, 2, age=900))

    remove_covered(tmp_path, [tombstone, _file(2, 2, age=900)], now=NOW, limits=LIMITS)

    assert set(list_segments(tmp_path)) == {tombstone.segment, Segment("w", 0, 3)}
    assert select_visible(list_segments(tmp_path)) == []


def test_a_file_that_another_process_removed_is_no_error(tmp_path: Path) -> None:
    gone = [_file(0, 0, age=500), _file(0, 1, age=61)]

    assert remove_covered(tmp_path, gone, now=NOW, limits=LIMITS) == 1
