"""How tables get into a session and onto the wire, and what reading them took."""

from __future__ import annotations

import contextlib
import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datafusion import SessionContext, col, lit

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.engine.contract import EngineSettings, QueryStatistics
from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
from micromegas_jupyter.engine.scanner import find_mentions, scan
from micromegas_jupyter.engine.schemas import flat_schema, to_wire, wire_schema
from micromegas_jupyter.engine.tables import TableBuilder, _bound
from micromegas_jupyter.errors import InvalidStatement
from tests.fakes.fixed_tables import FixedTables
from tests.unit.engine.conftest import Asker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MOMENT = datetime(1970, 1, 1, 0, 0, 1, 500_001, tzinfo=UTC)


@pytest.mark.parametrize(
    ("unit", "down", "up"),
    [("s", 1, 2), ("ms", 1500, 1501), ("us", 1_500_001, 1_500_001), ("ns", 1_500_001_000, 1_500_001_000)],
)
def test_a_bound_is_rounded_into_the_range(unit: str, down: int, up: int) -> None:
    column = pa.timestamp(unit, "+00:00")

    assert _bound(MOMENT, column, round_up=False) == pa.scalar(down, column)
    assert _bound(MOMENT, column, round_up=True) == pa.scalar(up, column)


@pytest.mark.parametrize(
    ("sql", "has"),
    [
        ("SELECT * FROM log_entries", True),
        ("SELECT * FROM LOG_ENTRIES", True),
        ('SELECT * FROM "log_entries"', True),
        ('SELECT * FROM "LOG_ENTRIES"', False),
        ("SELECT 'log_entries'", False),
        ("SELECT 1 -- log_entries", False),
        ("SELECT $$ $$ FROM LOG_ENTRIES", True),
        ("SELECT * FROM `log_entries`", True),
        ("SELECT * FROM log_entries2", False),
    ],
)
def test_a_table_is_mentioned_as_datafusion_would_read_it_and_in_doubt_always(sql: str, *, has: bool) -> None:
    assert find_mentions(scan(sql)).has("log_entries") is has


SCHEMA = pa.schema({"n": pa.int64(), "word": pa.dictionary(pa.int32(), pa.string())})

AWKWARD_NAMES = ["a b", "100%", "p%20q", "x[1]*?", "#y", "ünï", "c,d", "date=2026-11-24", "it's", 'say "x"', "..x"]


def write(folder: Path, name: str, numbers: Sequence[int]) -> str:
    path = folder / f"{name}.parquet"
    rows = pa.table({"n": numbers, "word": ["w"] * len(numbers)}).cast(SCHEMA)
    pq.write_table(rows, path)
    return str(path)


@pytest.fixture
def reader() -> TableBuilder:
    return TableBuilder()


def test_all_files_are_read_with_the_declared_schema(reader: TableBuilder, tmp_path: Path) -> None:
    files = [write(tmp_path, str(index), [index, index + 100]) for index in range(20)]

    frame = reader.read(SessionContext(), files, SCHEMA)

    assert frame.schema() == SCHEMA
    assert frame.count() == 40
    assert frame.filter(col("n") >= lit(100)).count() == 20


def test_awkward_file_names_are_names_not_patterns(reader: TableBuilder, tmp_path: Path) -> None:
    files = [write(tmp_path, name, [1]) for name in AWKWARD_NAMES]
    write(tmp_path, "x[1]", [7])
    write(tmp_path, "x1ab", [7])

    frame = reader.read(SessionContext(), files, SCHEMA)

    assert frame.filter(col("n") == lit(1)).count() == len(AWKWARD_NAMES)
    assert frame.count() == len(AWKWARD_NAMES)


def test_a_column_that_an_older_file_lacks_is_null(tmp_path: Path) -> None:
    path = tmp_path / "old.parquet"
    pq.write_table(pa.table({"n": [1]}), path)

    frame = TableBuilder().read(SessionContext(), [str(path)], SCHEMA)

    assert frame.to_pylist() == [{"n": 1, "word": None}]


def test_a_list_of_files_that_has_grown_is_read_anew(reader: TableBuilder, tmp_path: Path) -> None:
    first, second = (write(tmp_path, str(index), [index, index + 10]) for index in range(2))
    context = SessionContext()

    counts = [reader.read(context, files, SCHEMA).count() for files in ([first], [first], [first, second], [second])]

    assert counts == [2, 2, 4, 2]


def test_a_file_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    reader = TableBuilder()
    files = [write(tmp_path, "one", [1, 2])]
    before = [reader.read(SessionContext(), files, SCHEMA).filter(col("n") > lit(1)).count() for _ in range(2)]

    write(tmp_path, "one", [1, 2, 3])

    assert before == [1, 1]
    assert reader.read(SessionContext(), files, SCHEMA).filter(col("n") > lit(2)).count() == 1


def _statistics(ask: Asker, sql: str, *, batches: int | None = None) -> QueryStatistics:
    """Return what a statement took after all its batches, its failure, or the given number of batches."""
    planned = ask.plan(sql)
    stream = planned.batches()
    with contextlib.suppress(InvalidStatement):
        for _ in itertools.islice(stream, batches):
            pass
    stream.close()  # type: ignore[attr-defined]
    return planned.statistics


def test_fewer_columns_and_rows_read_fewer_bytes(ask: Asker) -> None:
    everything = _statistics(ask, "SELECT * FROM log_entries").bytes_scanned
    column = _statistics(ask, "SELECT level FROM log_entries").bytes_scanned
    nothing = _statistics(ask, "SELECT level FROM log_entries WHERE time > TIMESTAMP '2200-01-01'").bytes_scanned

    assert everything is not None
    assert column is not None
    assert everything > column > 0
    assert nothing == 0


def test_a_statement_that_failed_tells_what_it_read(ask: Asker) -> None:
    assert _statistics(ask, "SELECT 1 / (level - level) FROM log_entries").bytes_scanned


def test_a_sort_without_room_counts_what_it_spilled(tmp_path: Path) -> None:
    words = pa.table({"word": [f"{number * 7919 % 100_003:0100d}" for number in range(120_000)]})
    pq.write_table(words, tmp_path / "words.parquet")
    tables = FixedTables([TableSnapshot(name="words", schema=words.schema, files=(str(tmp_path / "words.parquet"),))])
    settings = EngineSettings(memory_limit_bytes=16 << 20, target_partitions=1, batch_rows=1024)
    engine = DataFusionEngine(tables, settings)

    found = _statistics(Asker(engine, tables), "SELECT * FROM words ORDER BY word")

    engine.close()
    assert found.spill_count
    assert found.spilled_bytes
    assert found.spilled_bytes > 1 << 20


WORD = pa.dictionary(pa.int32(), pa.string())


@pytest.mark.parametrize(
    ("found", "flat", "kept"),
    [
        (pa.int64(), pa.int64(), pa.int64()),
        (pa.string_view(), pa.string(), pa.string()),
        (pa.binary_view(), pa.binary(), pa.binary()),
        (pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("ns")),
        (pa.timestamp("us", "+00:00"), pa.timestamp("ns", "+00:00"), pa.timestamp("ns", "+00:00")),
        (WORD, pa.string(), WORD),
        (pa.dictionary(pa.int16(), pa.binary_view()), pa.binary(), pa.dictionary(pa.int16(), pa.binary())),
        (pa.list_(pa.string_view()), pa.list_(pa.string()), pa.list_(pa.string())),
        (pa.large_list(WORD), pa.large_list(pa.string()), pa.large_list(WORD)),
        (pa.list_view(pa.string_view()), pa.list_(pa.string()), pa.list_(pa.string())),
        (pa.list_(pa.string_view(), 2), pa.list_(pa.string(), 2), pa.list_(pa.string(), 2)),
        (pa.struct({"a": WORD}), pa.struct({"a": pa.string()}), pa.struct({"a": WORD})),
        (pa.map_(pa.string(), pa.string_view()), pa.map_(pa.string(), pa.string()), pa.map_(pa.string(), pa.string())),
    ],
)
def test_a_type_has_one_form_on_the_wire(found: pa.DataType, flat: pa.DataType, kept: pa.DataType) -> None:
    schema = pa.schema([pa.field("x", found, nullable=False, metadata={"k": "v"})], metadata={"pandas": "{}"})

    flattened = wire_schema(schema, preserve_dictionary=False)
    preserved = wire_schema(schema, preserve_dictionary=True)

    assert flattened.equals(pa.schema([pa.field("x", flat, nullable=False, metadata={"k": "v"})]), check_metadata=True)
    assert preserved.field("x").type == kept


COLUMNS = {
    "view": pa.array(["a", None, "", "b"], pa.string_view()),
    "bytes": pa.array([b"a", None, b"", b"b"], pa.binary_view()),
    "seconds": pa.array([1, None, 3, 4], pa.timestamp("s", "UTC")),
    "word": pa.array(["a", None, "a", "b"]).dictionary_encode(),
    "word of views": pa.DictionaryArray.from_arrays(
        pa.array([0, None, 0, 1], pa.int32()), pa.array(["a", "b"], pa.string_view())
    ),
    "properties": pa.DictionaryArray.from_arrays(
        pa.array([0, None, 0, 1], pa.int32()),
        pa.array([[{"key": "k", "value": "v"}], []], pa.list_(pa.struct({"key": pa.string(), "value": pa.string()}))),
    ),
    "list": pa.array([["a"], None, [], ["b", None]], pa.list_(pa.string_view())),
    "large list": pa.array([["a"], None, [], ["b", None]], pa.large_list(pa.string_view())),
    "list view": pa.array([["a"], None, [], ["b", None]], pa.list_view(pa.string())),
    "list of words": pa.ListArray.from_arrays(
        pa.array([0, 1, None, 2, 3], pa.int32()), pa.array(["a", "b", "a"]).dictionary_encode()
    ),
    "struct": pa.StructArray.from_arrays(
        [pa.array(["a", "b", None, "a"]).dictionary_encode(), pa.array([1, 2, 3, 4])],
        names=["word", "number"],
        mask=pa.array([False, True, False, False]),
    ),
    "map": pa.array([[("a", "b")], None, [], [("c", None)]], pa.map_(pa.string(), pa.string_view())),
}


@pytest.mark.parametrize("preserve_dictionary", [False, True])
@pytest.mark.parametrize("rows", [slice(0, 4), slice(1, 3), slice(4, 4)])
@pytest.mark.parametrize("name", COLUMNS)
def test_a_batch_keeps_its_values(name: str, rows: slice, *, preserve_dictionary: bool) -> None:
    batch = pa.record_batch({name: COLUMNS[name][rows]})
    schema = wire_schema(batch.schema, preserve_dictionary=preserve_dictionary)

    converted = to_wire(batch, schema)

    converted.validate(full=True)
    assert converted.schema.equals(schema, check_metadata=True)
    assert converted.column(0).to_pylist() == batch.column(0).to_pylist()


def test_two_columns_of_one_name_stay_two() -> None:
    batch = pa.RecordBatch.from_arrays([pa.array(["a"], pa.string_view()), pa.array([2])], names=["x", "x"])

    converted = to_wire(batch, wire_schema(batch.schema, preserve_dictionary=False))

    assert [column.to_pylist() for column in converted.columns] == [["a"], [2]]


def test_a_dictionary_becomes_its_values_wherever_it_is() -> None:
    schema = pa.schema(
        [
            pa.field("a", WORD, nullable=False, metadata={"k": "v"}),
            pa.field("b", pa.list_(pa.field("item", WORD))),
            pa.field("c", pa.large_list(WORD)),
            pa.field("d", pa.list_(WORD, 2)),
            pa.field("e", pa.struct([pa.field("x", WORD)])),
            pa.field("f", pa.map_(pa.string(), WORD)),
            pa.field("g", pa.timestamp("us")),
        ]
    )

    flat = flat_schema(schema)

    assert "dictionary" not in str(flat)
    assert flat.field("a") == pa.field("a", pa.string(), nullable=False, metadata={"k": "v"})
    assert flat.field("d").type == pa.list_(pa.string(), 2)
    assert flat.field("f").type == pa.map_(pa.string(), pa.string())
    assert flat.field("g") == schema.field("g")
