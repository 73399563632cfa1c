"""A lake stays small: small files are merged, old ones dropped, and no row is lost or doubled."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.lake import maintenance
from micromegas_jupyter.lake.files import (
    Segment,
    SegmentFile,
    SegmentWriter,
    list_segment_files,
    list_segments,
    select_visible,
)
from micromegas_jupyter.lake.lake import Lake, LakeWriter
from micromegas_jupyter.lake.maintenance import (
    CompactionStopped,
    LakeLimits,
    MaintenanceReport,
    MergePlan,
    drop_segment,
    merge_segments,
    plan_remains,
    plan_tiers,
    remove_covered,
    select_expired,
)
from micromegas_jupyter.telemetry.tables import LOG_ENTRIES, PROCESSES
from tests.fakes.telemetry_rows import log_batch, process_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fakes.clock import FakeClock


MERGE_LIMITS = LakeLimits(fan_in=4, tiers=2, max_file_bytes=1000)


def _merged(first: int, last: int | None = None, *, size: int = 10, is_tombstone: bool = False) -> SegmentFile:
    return SegmentFile(Segment("w", first, first if last is None else last, is_tombstone), size, 0.0)


def test_a_complete_range_of_small_files_is_merged() -> None:
    plans = plan_tiers([_merged(number) for number in range(6)], settled_sequence=6, limits=MERGE_LIMITS)

    assert plans == [MergePlan(Segment("w", 0, 3), [Segment("w", number, number) for number in range(4)])]


def test_a_range_is_not_merged_while_a_flush_of_it_may_still_come() -> None:
    assert plan_tiers([_merged(number) for number in range(3)], settled_sequence=3, limits=MERGE_LIMITS) == []
    assert plan_tiers([_merged(number) for number in range(2)], settled_sequence=3, limits=MERGE_LIMITS) == []


def test_merged_files_are_merged_again_a_tier_up() -> None:
    files = [_merged(0, 3), _merged(4, 7), _merged(8, 11), _merged(12, 15), _merged(16)]

    plans = plan_tiers(files, settled_sequence=17, limits=MERGE_LIMITS)

    assert plans == [MergePlan(Segment("w", 0, 15), [Segment("w", first, first + 3) for first in (0, 4, 8, 12)])]


def test_nothing_is_merged_into_a_file_that_is_too_large() -> None:
    assert plan_tiers([_merged(number, size=300) for number in range(4)], settled_sequence=4, limits=MERGE_LIMITS) == []


def test_what_a_dead_writer_left_becomes_one_file() -> None:
    plans = plan_remains([_merged(0, 3), _merged(4), _merged(6)], limits=MERGE_LIMITS)

    assert plans == [MergePlan(Segment("w", 0, 6), [Segment("w", 0, 3), Segment("w", 4, 4), Segment("w", 6, 6)])]
    assert plan_remains([_merged(0, 6)], limits=MERGE_LIMITS) == []


def test_dropped_rows_do_not_come_back_when_the_rest_is_merged() -> None:
    files = [_merged(0), _merged(1), _merged(1, is_tombstone=True), _merged(2)]

    plans = plan_remains(files, limits=MERGE_LIMITS)

    assert plans == [MergePlan(Segment("w", 0, 2), [Segment("w", 0, 0), Segment("w", 2, 2)])]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    writer = SegmentWriter(tmp_path, LOG_ENTRIES, writer_id="w")
    for first in range(0, 9, 3):
        writer.append(log_batch([first + 2, first, first + 1], writer=f"t{first}"))
    return tmp_path


def _merge(folder: Path, is_stopping: Callable[[], bool] = lambda: False) -> None:
    plan = MergePlan(Segment("w", 0, 2), [Segment("w", number, number) for number in range(3)])
    merge_segments(folder, LOG_ENTRIES, plan=plan, owner_id="w", is_stopping=is_stopping)


def test_a_merged_file_has_all_rows_in_order_and_few_row_groups(folder: Path) -> None:
    _merge(folder)

    with pq.ParquetFile(folder / "w-000000000000-000000000002.parquet") as merged:
        assert merged.schema_arrow.equals(LOG_ENTRIES.schema)
        assert merged.num_row_groups == 1
        messages = merged.read().column("msg").to_pylist()
    assert messages == ["t0:0", "t0:1", "t0:2", "t3:3", "t3:4", "t3:5", "t6:6", "t6:7", "t6:8"]


def test_rows_are_merged_piece_by_piece(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "ROWS_PER_GROUP", 6)

    _merge(folder)

    with pq.ParquetFile(folder / "w-000000000000-000000000002.parquet") as merged:
        assert [merged.metadata.row_group(index).num_rows for index in range(2)] == [6, 3]


def test_a_merge_that_is_stopped_changes_nothing(folder: Path) -> None:
    with pytest.raises(CompactionStopped):
        _merge(folder, is_stopping=lambda: True)

    assert sorted(list_segments(folder)) == [Segment("w", number, number) for number in range(3)]
    assert list(folder.glob(".*")) == []


def test_a_damaged_source_changes_nothing(folder: Path) -> None:
    (folder / "w-000000000001-000000000001.parquet").write_bytes(b"PAR1 torn")

    with pytest.raises(Unavailable):
        _merge(folder)

    assert not (folder / "w-000000000000-000000000002.parquet").exists()
    assert list(folder.glob(".*")) == []


def test_partial_states_shrink_to_one_for_each_key(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, PROCESSES, writer_id="w")
    for updated in (10, 20, 30):
        writer.append(process_state("a", updated=updated))
        writer.append(process_state("b", updated=updated + 1))
    plan = MergePlan(Segment("w", 0, 5), [Segment("w", number, number) for number in range(6)])

    merge_segments(tmp_path, PROCESSES, plan=plan, owner_id="w", is_stopping=lambda: False)

    with pq.ParquetFile(tmp_path / "w-000000000000-000000000005.parquet") as merged:
        rows = merged.read().to_pylist()
    assert [(row["process_id"], row["last_update_time"].nanosecond) for row in rows] == [("a", 30), ("b", 31)]


NOW = 1_000_000.0
RETENTION_LIMITS = LakeLimits(grace_seconds=60, max_age_seconds=1000, max_total_bytes=100)


def _aged_file(first: int, last: int, *, age: float, size: int = 10, is_tombstone: bool = False) -> SegmentFile:
    return SegmentFile(Segment("w", first, last, is_tombstone), size, NOW - age)


def _store(folder: Path, *files: SegmentFile) -> None:
    for found in files:
        path = folder / found.segment.file_name
        path.write_bytes(b"x" * found.size_bytes)
        os.utime(path, (found.modified_at, found.modified_at))


def test_files_past_their_age_are_dropped() -> None:
    tables = {
        "log_entries": [_aged_file(0, 0, age=1001), _aged_file(1, 1, age=999)],
        "measures": [_aged_file(0, 0, age=1002)],
    }

    expired = select_expired(tables, now=NOW, limits=RETENTION_LIMITS)

    assert expired == {"log_entries": [Segment("w", 0, 0)], "measures": [Segment("w", 0, 0)]}


def test_the_oldest_files_of_all_tables_are_dropped_while_all_are_too_large() -> None:
    tables = {
        "log_entries": [_aged_file(0, 0, age=30, size=50), _aged_file(1, 1, age=10, size=50)],
        "measures": [_aged_file(0, 0, age=40, size=30), _aged_file(1, 1, age=20, size=30)],
    }

    expired = select_expired(tables, now=NOW, limits=RETENTION_LIMITS)

    assert expired == {"measures": [Segment("w", 0, 0)], "log_entries": [Segment("w", 0, 0)]}


def test_dropped_rows_disappear_at_once_and_their_file_after_the_grace_period(tmp_path: Path) -> None:
    _store(tmp_path, _aged_file(0, 3, age=500), _aged_file(4, 4, age=500))

    drop_segment(tmp_path, Segment("w", 0, 3), owner_id="w")
    tombstone = Segment("w", 0, 3, is_tombstone=True)

    assert select_visible(list_segments(tmp_path)) == [Segment("w", 4, 4)]
    dropped_at = (tmp_path / tombstone.file_name).stat().st_mtime
    assert remove_covered(tmp_path, list_segment_files(tmp_path), now=dropped_at + 59, limits=RETENTION_LIMITS) == 0
    assert remove_covered(tmp_path, list_segment_files(tmp_path), now=dropped_at + 61, limits=RETENTION_LIMITS) == 1
    assert remove_covered(tmp_path, list_segment_files(tmp_path), now=dropped_at + 61, limits=RETENTION_LIMITS) == 1
    assert list_segments(tmp_path) == [Segment("w", 4, 4)]


@pytest.mark.parametrize(("age", "left"), [(59, 3), (61, 1)])
def test_merged_sources_stay_for_the_grace_period(tmp_path: Path, age: float, left: int) -> None:
    _store(tmp_path, _aged_file(0, 0, age=500), _aged_file(1, 1, age=500), _aged_file(0, 1, age=age))

    remove_covered(tmp_path, list_segment_files(tmp_path), now=NOW, limits=RETENTION_LIMITS)

    assert len(list_segments(tmp_path)) == left
    assert select_visible(list_segments(tmp_path)) == [Segment("w", 0, 1)]


def test_a_tombstone_stays_while_anything_is_left_that_it_hides(tmp_path: Path) -> None:
    tombstone = _aged_file(0, 3, age=61, is_tombstone=True, size=0)
    _store(tmp_path, tombstone, _aged_file(0, 3, age=500), _aged_file(2, 2, age=900))

    remove_covered(tmp_path, [tombstone, _aged_file(2, 2, age=900)], now=NOW, limits=RETENTION_LIMITS)

    assert set(list_segments(tmp_path)) == {tombstone.segment, Segment("w", 0, 3)}
    assert select_visible(list_segments(tmp_path)) == []


LIMITS = LakeLimits(fan_in=4, tiers=2, grace_seconds=60, max_age_seconds=5000, temporary_age_seconds=300)


@pytest.fixture
def lake(tmp_path: Path, clock: FakeClock) -> Lake:
    return Lake(tmp_path / "lake", limits=LIMITS, clock=clock)


def _touch_all(tmp_path: Path, clock: FakeClock) -> None:
    """Give every file the clock's time, for file times come from the machine."""
    now = clock.now().timestamp()
    for path in (tmp_path / "lake").rglob("*"):
        os.utime(path, (now, now))


def _names(lake: Lake, table: str = "log_entries") -> list[str]:
    found = next(snapshot for snapshot in lake.snapshot() if snapshot.name == table)
    return [Path(file).name for file in found.files]


def _messages(lake: Lake) -> list[str]:
    found = next(snapshot for snapshot in lake.snapshot() if snapshot.name == "log_entries")
    return sorted(text for file in found.files for text in pq.ParquetFile(file).read().column("msg").to_pylist())


def _append(writer: LakeWriter, numbers: range) -> None:
    for number in numbers:
        writer.append("log_entries", log_batch([number]))


def test_a_round_merges_the_writers_own_files(lake: Lake) -> None:
    writer = lake.open_writer("a")
    _append(writer, range(6))

    report = writer.maintain()

    assert report == MaintenanceReport(merged=1)
    assert _names(lake) == [
        "a-000000000000-000000000003.parquet",
        "a-000000000004-000000000004.parquet",
        "a-000000000005-000000000005.parquet",
    ]
    assert _messages(lake) == ["w:0", "w:1", "w:2", "w:3", "w:4", "w:5"]
    writer.close()


def test_later_rounds_merge_a_tier_up(lake: Lake) -> None:
    writer = lake.open_writer("a")
    for first in range(0, 16, 4):
        _append(writer, range(first, first + 4))
        writer.maintain()

    writer.maintain()

    assert _names(lake) == ["a-000000000000-000000000015.parquet"]
    assert len(_messages(lake)) == 16
    writer.close()


def test_what_a_dead_writer_left_is_merged_by_another(lake: Lake) -> None:
    dead = lake.open_writer("dead")
    _append(dead, range(3))
    dead.append("processes", process_state("p", updated=1))
    dead.append("processes", process_state("p", updated=2))
    dead.close()
    living = lake.open_writer("living")

    report = living.maintain()

    assert report.merged == 2
    assert _names(lake) == ["dead-000000000000-000000000002.parquet"]
    assert _names(lake, "processes") == ["dead-000000000000-000000000001.parquet"]
    living.close()


def test_what_a_living_writer_has_is_left_to_it(lake: Lake) -> None:
    first, second = lake.open_writer("first"), lake.open_writer("second")
    _append(first, range(3))

    assert second.maintain() == MaintenanceReport()

    first.close()
    second.close()


def test_merged_files_are_removed_after_the_grace_period(lake: Lake, tmp_path: Path, clock: FakeClock) -> None:
    writer = lake.open_writer("a")
    _append(writer, range(4))
    writer.maintain()
    _touch_all(tmp_path, clock)

    clock.advance(59)
    early = writer.maintain()
    clock.advance(2)
    late = writer.maintain()

    assert (early.removed, late.removed) == (0, 4)
    assert [path.name for path in (tmp_path / "lake" / "log_entries").iterdir()] == [
        "a-000000000000-000000000003.parquet"
    ]
    writer.close()


def test_old_rows_are_dropped_and_then_removed(lake: Lake, tmp_path: Path, clock: FakeClock) -> None:
    writer = lake.open_writer("a")
    _append(writer, range(1))
    _touch_all(tmp_path, clock)
    clock.advance(5001)
    _append(writer, range(1, 2))
    os.utime(tmp_path / "lake/log_entries/a-000000000001-000000000001.parquet", (clock.now().timestamp(),) * 2)

    report = writer.maintain()

    assert report.dropped == 1
    assert _messages(lake) == ["w:1"]
    _touch_all(tmp_path, clock)
    clock.advance(61)
    writer.maintain()
    writer.maintain()
    assert [path.name for path in (tmp_path / "lake" / "log_entries").iterdir()] == [
        "a-000000000001-000000000001.parquet"
    ]
    writer.close()


def test_leftovers_of_dead_writers_are_removed(lake: Lake, tmp_path: Path, clock: FakeClock) -> None:
    lake.open_writer("dead").close()
    writer = lake.open_writer("a")
    _append(writer, range(1))
    (tmp_path / "lake/log_entries/.dead-000000000000-000000000000.dead.tmp").write_bytes(b"torn")
    _touch_all(tmp_path, clock)
    clock.advance(301)

    report = writer.maintain()

    assert report.removed == 1
    assert [path.name for path in (tmp_path / "lake/log_entries").glob(".*")] == []
    assert [path.name for path in (tmp_path / "lake/.writers").iterdir()] == ["a.lock"]
    writer.close()


def test_a_merge_that_fails_is_tried_again_later_only(lake: Lake, tmp_path: Path, clock: FakeClock) -> None:
    writer = lake.open_writer("a")
    _append(writer, range(4))
    damaged = tmp_path / "lake/log_entries/a-000000000002-000000000002.parquet"
    content = damaged.read_bytes()
    damaged.write_bytes(b"torn")

    first, second = writer.maintain(), writer.maintain()
    damaged.write_bytes(content)
    soon = writer.maintain()
    clock.advance(601)
    later = writer.maintain()

    assert (first.failed, second.failed, soon.merged) == (1, 1, 0)
    assert later.merged == 1
    assert len(_messages(lake)) == 4
    writer.close()


def test_a_round_that_is_stopped_leaves_all_rows(lake: Lake) -> None:
    writer = lake.open_writer("a")
    _append(writer, range(4))

    report = writer.maintain(lambda: True)

    assert report == MaintenanceReport()
    assert len(_messages(lake)) == 4
    writer.close()
