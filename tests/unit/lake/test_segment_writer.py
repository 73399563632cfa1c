from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.errors import InternalError, Unavailable
from micromegas_jupyter.lake.writer import SegmentWriter
from micromegas_jupyter.telemetry import LOG_ENTRIES
from tests.fakes.telemetry_rows import log_batch


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


def test_no_rows_make_no_file(writer: SegmentWriter, tmp_path: Path) -> None:
    writer.append(log_batch([]))

    assert not (tmp_path / "log_entries").exists()
    assert writer.settled_sequence == 0


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
