"""A lake stays small: small files are merged, old ones dropped, and no row is lost or doubled."""

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.lake.files import Segment, SegmentFile, list_segment_files, list_segments, select_visible
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.maintenance import LakeLimits, remove_covered, select_expired
from tests.fakes.telemetry_rows import log_batch, process_state

LIMITS = LakeLimits(
    fan_in=4, tiers=2, max_file_bytes=100_000, grace_seconds=60, max_age_seconds=5000, temporary_age_seconds=300
)
NOW = 1_000_000.0


def _file(first, last=None, *, size=10, age=0, dropped=False):
    return SegmentFile(Segment("w", first, first if last is None else last, dropped), size, NOW - age)


def test_files_past_their_age_and_the_oldest_of_too_many_bytes_are_dropped():
    aged = {"log_entries": [_file(0, age=5001), _file(1, age=4999)], "measures": [_file(0, age=5002)]}
    large = {
        "log_entries": [_file(0, age=30, size=50), _file(1, age=10, size=50)],
        "measures": [_file(0, age=40, size=30), _file(1, age=20, size=30)],
    }
    first = {"log_entries": [Segment("w", 0, 0)], "measures": [Segment("w", 0, 0)]}

    assert select_expired(aged, now=NOW, limits=LIMITS) == first
    assert select_expired(large, now=NOW, limits=LakeLimits(max_total_bytes=100)) == first


def _store(folder, *files):
    for found in files:
        path = folder / found.segment.file_name
        path.write_bytes(b"x" * found.size_bytes)
        os.utime(path, (found.modified_at, found.modified_at))


@pytest.mark.parametrize(("age", "left"), [(59, 3), (61, 1)])
def test_merged_sources_stay_for_the_grace_period(tmp_path, age, left):
    _store(tmp_path, _file(0, age=500), _file(1, age=500), _file(0, 1, age=age))

    remove_covered(tmp_path, list_segment_files(tmp_path), now=NOW, limits=LIMITS)

    assert len(list_segments(tmp_path)) == left
    assert select_visible(list_segments(tmp_path)) == [Segment("w", 0, 1)]


def test_a_tombstone_stays_while_anything_is_left_that_it_hides(tmp_path):
    tombstone = _file(0, 3, age=61, dropped=True, size=0)
    _store(tmp_path, tombstone, _file(0, 3, age=500), _file(2, age=900))

    remove_covered(tmp_path, [tombstone, _file(2, age=900)], now=NOW, limits=LIMITS)

    assert set(list_segments(tmp_path)) == {tombstone.segment, Segment("w", 0, 3)}
    assert select_visible(list_segments(tmp_path)) == []


@pytest.fixture
def lake(tmp_path, clock):
    return Lake(tmp_path / "lake", limits=LIMITS, clock=clock)


@pytest.fixture
def writer(lake):
    opened = lake.open_writer("a")
    yield opened
    opened.close()


def _touch_all(tmp_path, clock):
    """Give every file the clock's time, for file times come from the machine."""
    now = clock.now().timestamp()
    for path in (tmp_path / "lake").rglob("*"):
        os.utime(path, (now, now))


def _files(lake, table="log_entries"):
    return next(snapshot.files for snapshot in lake.snapshot() if snapshot.name == table)


def _names(lake, table="log_entries"):
    return [Path(file).name for file in _files(lake, table)]


def _messages(lake):
    return sorted(text for file in _files(lake) for text in pq.ParquetFile(file).read().column("msg").to_pylist())


def _append(writer, numbers):
    for number in numbers:
        writer.append("log_entries", log_batch([number]))


def test_rounds_merge_the_writers_own_files_tier_by_tier(lake, writer):
    _append(writer, range(6))
    writer.maintain()
    first = _names(lake)
    for start in (6, 10, 14):
        _append(writer, range(start, start + 4))
        writer.maintain()

    writer.maintain()

    assert first == [f"a-{0:012d}-{3:012d}.parquet", f"a-{4:012d}-{4:012d}.parquet", f"a-{5:012d}-{5:012d}.parquet"]
    assert _names(lake)[0] == "a-000000000000-000000000015.parquet"
    assert len(_messages(lake)) == 18


def test_what_a_dead_writer_left_is_merged_by_another_and_what_a_living_one_has_is_not(lake):
    living, dead, other = (lake.open_writer(name) for name in ("living", "dead", "other"))
    _append(dead, range(3))
    for updated in (1, 2):
        dead.append("processes", process_state("p", updated=updated))
    dead.close()
    _append(living, range(2))

    other.maintain()

    assert _names(lake) == [
        "dead-000000000000-000000000002.parquet",
        *(f"living-{number:012d}-{number:012d}.parquet" for number in range(2)),
    ]
    assert _names(lake, "processes") == ["dead-000000000000-000000000001.parquet"]
    (state,) = pq.ParquetFile(*_files(lake, "processes")).read().to_pylist()
    assert state["last_update_time"].nanosecond == 2
    living.close()
    other.close()


def test_old_rows_are_dropped_at_once_and_removed_after_the_grace_period(lake, writer, tmp_path, clock):
    _append(writer, range(1))
    _touch_all(tmp_path, clock)
    clock.advance(5001)
    _append(writer, range(1, 2))
    (_, fresh) = _files(lake)
    os.utime(fresh, (clock.now().timestamp(),) * 2)

    writer.maintain()

    assert _messages(lake) == ["w:1"]
    _touch_all(tmp_path, clock)
    clock.advance(61)
    writer.maintain()
    writer.maintain()
    assert [str(path) for path in (tmp_path / "lake" / "log_entries").iterdir()] == [fresh]


def test_leftovers_of_dead_writers_are_removed(lake, writer, tmp_path, clock):
    lake.open_writer("dead").close()
    _append(writer, range(1))
    (tmp_path / "lake/log_entries/.dead-000000000000-000000000000.dead.tmp").write_bytes(b"torn")
    _touch_all(tmp_path, clock)
    clock.advance(301)

    writer.maintain()

    assert [path.name for path in (tmp_path / "lake/log_entries").glob(".*")] == []
    assert [path.name for path in (tmp_path / "lake/.writers").iterdir()] == ["a.lock"]


def test_a_merge_that_fails_changes_nothing_and_is_tried_again_later_only(lake, writer, tmp_path, clock):
    _append(writer, range(4))
    damaged = tmp_path / "lake/log_entries/a-000000000002-000000000002.parquet"
    content = damaged.read_bytes()
    damaged.write_bytes(b"torn")

    writer.maintain()
    damaged.write_bytes(content)
    writer.maintain()
    soon = len(_names(lake))
    clock.advance(601)
    writer.maintain()

    assert (soon, len(_names(lake))) == (4, 1)
    assert len(_messages(lake)) == 4
    assert list((tmp_path / "lake/log_entries").glob(".*")) == []
