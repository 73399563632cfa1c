"""Reading an explicit list of files as one scan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datafusion import SessionContext, col, lit

from micromegas_jupyter.engine.tables import FileReader, file_url

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SCHEMA = pa.schema({"n": pa.int64(), "word": pa.dictionary(pa.int32(), pa.string())})

AWKWARD_NAMES = ["a b", "100%", "p%20q", "x[1]*?", "#y", "ünï", "c,d", "date=2026-11-24", "it's", 'say "x"', "..x"]


def write(folder: Path, name: str, numbers: Sequence[int]) -> str:
    path = folder / f"{name}.parquet"
    rows = pa.table({"n": numbers, "word": ["w"] * len(numbers)}).cast(SCHEMA)
    pq.write_table(rows, path)
    return str(path)


@pytest.fixture
def reader() -> FileReader:
    return FileReader()


def test_all_files_are_read_with_the_declared_schema(reader: FileReader, tmp_path: Path) -> None:
    files = [write(tmp_path, str(index), [index, index + 100]) for index in range(20)]

    frame = reader.read(SessionContext(), files, SCHEMA)

    assert frame.schema() == SCHEMA
    assert frame.count() == 40
    assert frame.filter(col("n") >= lit(100)).count() == 20


def test_awkward_file_names_are_names_not_patterns(reader: FileReader, tmp_path: Path) -> None:
    files = [write(tmp_path, name, [1]) for name in AWKWARD_NAMES]
    write(tmp_path, "x[1]", [7])
    write(tmp_path, "x1ab", [7])

    frame = reader.read(SessionContext(), files, SCHEMA)

    assert frame.filter(col("n") == lit(1)).count() == len(AWKWARD_NAMES)
    assert frame.count() == len(AWKWARD_NAMES)


def test_a_column_that_an_older_file_lacks_is_null(tmp_path: Path) -> None:
    path = tmp_path / "old.parquet"
    pq.write_table(pa.table({"n": [1]}), path)

    frame = FileReader().read(SessionContext(), [str(path)], SCHEMA)

    assert frame.to_pylist() == [{"n": 1, "word": None}]


def test_one_reader_serves_several_schemas_in_turn(tmp_path: Path) -> None:
    reader = FileReader()
    file = write(tmp_path, "a", [1])
    narrow = pa.schema({"n": pa.int64()})

    for schema in (SCHEMA, narrow, SCHEMA):
        assert reader.read(SessionContext(), [file], schema).schema() == schema


def test_a_path_becomes_a_url_and_a_url_stays() -> None:
    assert file_url("/a b/x%[1].parquet") == "file:///a%20b/x%25%5B1%5D.parquet"
    assert file_url("s3://bucket/x.parquet") == "s3://bucket/x.parquet"


def test_a_list_of_files_that_has_grown_is_read_anew(reader: FileReader, tmp_path: Path) -> None:
    first, second = (write(tmp_path, str(index), [index, index + 10]) for index in range(2))
    context = SessionContext()

    counts = [reader.read(context, files, SCHEMA).count() for files in ([first], [first], [first, second], [second])]

    assert counts == [2, 2, 4, 2]


def test_a_file_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    reader = FileReader()
    files = [write(tmp_path, "one", [1, 2])]
    before = [reader.read(SessionContext(), files, SCHEMA).filter(col("n") > lit(1)).count() for _ in range(2)]

    write(tmp_path, "one", [1, 2, 3])

    assert before == [1, 1]
    assert reader.read(SessionContext(), files, SCHEMA).filter(col("n") > lit(2)).count() == 1
