from pathlib import Path

import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.lake import Lake
from micromegas_jupyter.server.recorder.recorder import Backlog
from tests.fakes.telemetry_rows import log_batch, process_state


def _messages(lake: Lake) -> list[str]:
    found = next(snapshot for snapshot in lake.snapshot() if snapshot.name == "log_entries")
    return [text for file in found.files for text in pq.ParquetFile(file).read().column("msg").to_pylist()]


def test_all_that_waits_for_a_table_goes_into_one_file(tmp_path: Path) -> None:
    lake, backlog = Lake(tmp_path), Backlog()
    writer = lake.open_writer("a")
    backlog.add("log_entries", log_batch([1]))
    backlog.add("log_entries", log_batch([2]))

    backlog.store(writer)

    assert backlog.waiting_rows == 0
    assert _messages(lake) == ["w:1", "w:2"]
    writer.close()


def test_rows_wait_while_their_table_cannot_be_stored_and_others_do_not(tmp_path: Path) -> None:
    lake, backlog = Lake(tmp_path), Backlog()
    writer = lake.open_writer("a")
    (tmp_path / "processes").write_text("a file in the folder's place")
    backlog.add("processes", process_state("p", updated=1))
    backlog.add("log_entries", log_batch([1]))

    with pytest.raises(Unavailable):
        backlog.store(writer)

    assert backlog.waiting_rows == 1
    (tmp_path / "processes").unlink()
    backlog.store(writer)
    assert backlog.waiting_rows == 0
    writer.close()


def test_the_oldest_rows_of_the_fullest_table_go_when_there_are_too_many() -> None:
    backlog = Backlog(max_rows=10)
    backlog.add("processes", process_state("p", updated=1))
    for first in (0, 4, 8):
        backlog.add("log_entries", log_batch(range(first, first + 4)))

    assert backlog.waiting_rows == 9
    assert backlog.take_lost_count() == 4
    assert backlog.take_lost_count() == 0


@pytest.mark.parametrize("rows", [0, 11])
def test_a_batch_that_is_too_large_by_itself_is_lost_whole(rows: int) -> None:
    backlog = Backlog(max_rows=10)

    backlog.add("log_entries", log_batch(range(rows)))

    assert (backlog.waiting_rows, backlog.take_lost_count()) == (0, rows)
