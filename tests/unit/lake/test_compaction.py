from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.lake import LakeLimits, maintenance
from micromegas_jupyter.lake.files import Segment, SegmentFile, list_segments
from micromegas_jupyter.lake.maintenance import (
    CompactionStopped,
    MergePlan,
    merge_segments,
    plan_remains,
    plan_tiers,
)
from micromegas_jupyter.lake.writer import SegmentWriter
from micromegas_jupyter.telemetry import LOG_ENTRIES, MEASURES, PROCESSES
from tests.fakes.telemetry_rows import log_batch, process_state

LIMITS = LakeLimits(fan_in=4, tiers=2, max_file_bytes=1000)


def _file(first: int, last: int | None = None, *, size: int = 10, is_tombstone: bool = False) -> SegmentFile:
    return SegmentFile(Segment("w", first, first if last is None else last, is_tombstone), size, 0.0)


def test_a_complete_range_of_small_files_is_merged() -> None:
    plans = plan_tiers([_file(number) for number in range(6)], settled_sequence=6, limits=LIMITS)

    assert plans == [MergePlan(Segment("w", 0, 3), [Segment("w", number, number) for number in range(4)])]


def test_a_range_is_not_merged_while_a_flush_of_it_may_still_come() -> None:
    assert plan_tiers([_file(number) for number in range(3)], settled_sequence=3, limits=LIMITS) == []
    assert plan_tiers([_file(number) for number in range(2)], settled_sequence=3, limits=LIMITS) == []


def test_a_range_with_failed_flushes_is_merged_once_it_lies_behind() -> None:
    plans = plan_tiers([_file(0), _file(2)], settled_sequence=4, limits=LIMITS)

    assert plans == [MergePlan(Segment("w", 0, 3), [Segment("w", 0, 0), Segment("w", 2, 2)])]


def test_merged_files_are_merged_again_a_tier_up() -> None:
    files = [_file(0, 3), _file(4, 7), _file(8, 11), _file(12, 15), _file(16)]

    plans = plan_tiers(files, settled_sequence=17, limits=LIMITS)

    assert plans == [MergePlan(Segment("w", 0, 15), [Segment("w", first, first + 3) for first in (0, 4, 8, 12)])]


def test_one_tier_of_a_range_is_planned_at_a_time() -> None:
    files = [_file(0, 3), _file(4, 7), _file(8, 11), *(_file(number) for number in range(12, 16))]

    plans = plan_tiers(files, settled_sequence=16, limits=LIMITS)

    assert [plan.merged for plan in plans] == [Segment("w", 12, 15)]


def test_nothing_is_merged_above_the_last_tier() -> None:
    files = [_file(first, first + 15) for first in range(0, 64, 16)]

    assert plan_tiers(files, settled_sequence=64, limits=LIMITS) == []


def test_nothing_is_merged_into_a_file_that_is_too_large() -> None:
    assert plan_tiers([_file(number, size=300) for number in range(4)], settled_sequence=4, limits=LIMITS) == []


def test_hidden_files_are_not_merged_again() -> None:
    files = [_file(0, 3), *(_file(number) for number in range(4))]

    assert plan_tiers(files, settled_sequence=8, limits=LIMITS) == []


def test_what_a_dead_writer_left_becomes_one_file() -> None:
    plans = plan_remains([_file(0, 3), _file(4), _file(6)], limits=LIMITS)

    assert plans == [MergePlan(Segment("w", 0, 6), [Segment("w", 0, 3), Segment("w", 4, 4), Segment("w", 6, 6)])]
    assert plan_remains([_file(0, 6)], limits=LIMITS) == []


def test_what_a_dead_writer_left_becomes_several_files_when_it_is_large() -> None:
    plans = plan_remains([_file(number, size=400) for number in range(5)], limits=LIMITS)

    assert [plan.merged for plan in plans] == [Segment("w", 0, 1), Segment("w", 2, 3)]


def test_dropped_rows_do_not_come_back_when_the_rest_is_merged() -> None:
    files = [_file(0), _file(1), _file(1, is_tombstone=True), _file(2)]

    plans = plan_remains(files, limits=LIMITS)

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


def test_a_source_with_other_columns_changes_nothing(folder: Path) -> None:
    pq.write_table(MEASURES.schema.empty_table(), folder / "w-000000000001-000000000001.parquet")

    with pytest.raises(Unavailable, match="other columns"):
        _merge(folder)


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
