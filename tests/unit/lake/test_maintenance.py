import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.lake import Lake, LakeLimits, LakeWriter, MaintenanceReport
from tests.fakes.clock import FakeClock
from tests.fakes.telemetry_rows import log_batch, process_state

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
