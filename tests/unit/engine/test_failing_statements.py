"""A statement that fails says so in words for people, in the right class, and reveals nothing of the server."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.engine import DataFusionEngine, EngineSettings
from micromegas_jupyter.engine.explanations import UPSTREAM_FUNCTIONS, UPSTREAM_TABLES
from micromegas_jupyter.errors import (
    InvalidStatement,
    MicromegasError,
    QueryError,
    ResourcesExhausted,
    StatementRefused,
    Unavailable,
    UnsupportedStatement,
)
from micromegas_jupyter.flightsql.error_details import decode_error, encode_error, parse_status_text, status_text
from tests.fakes.fixed_tables import FixedTables, empty_table, write_log_entries, write_processes
from tests.unit.engine.conftest import Asker
from tests.unit.engine.failing_statements import EXHAUSTED, INVALID, REFUSED, UNSUPPORTED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


CASES = [
    *((sql, place, InvalidStatement) for sql, place in INVALID),
    *((sql, place, UnsupportedStatement) for sql, place in UNSUPPORTED),
    *((sql, place, StatementRefused) for sql, place in REFUSED),
    *((sql, place, ResourcesExhausted) for sql, place in EXHAUSTED),
]
# Words of Rust, Arrow and Python, their sources, and how they write their own values.
INNER = re.compile(
    r"\.rs\b|\.py\b|PyErr|Traceback|panick|backtrace|unwrap|DataFusion error|Arrow error|External error|Internal error"
    r"|Execution error|ParserError|SchemaError|Ident\b|Span\(|Location\(|ObjectName|\w \{ \w|Some\(|None\)"
    r"|github|bug report|\?table\?|ValueWithSpan|Literal\("
)
FOLDER = re.compile(r"/(?:root|tmp|home|usr|var|srv|opt)/|\.parquet")


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    """Log entries, processes and a table of nested types, on an engine with little memory and disk."""
    folder = tmp_path_factory.mktemp("failing lake")
    nested = pa.table(
        {
            "id": [1, 2],
            "tags": [[1, 2], [3]],
            "s": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}],
            "d": pa.array([1, 2], pa.decimal128(10, 2)),
            "b": [b"a", b"\xff"],
        }
    )
    pq.write_table(nested, folder / "nested.parquet")
    tables = FixedTables(
        [
            write_log_entries(folder, 2),
            write_processes(folder),
            empty_table(),
            TableSnapshot(name="nested", schema=nested.schema, files=(str(folder / "nested.parquet"),)),
        ]
    )
    settings = EngineSettings(memory_limit_bytes=20 << 20, spill_limit_bytes=1 << 20)
    engine = DataFusionEngine(tables, settings)
    yield Asker(engine, tables)
    engine.close()


@pytest.mark.parametrize(("sql", "place", "kind"), CASES)
def test_a_failure_is_told_in_its_class_and_in_words_for_people(
    ask: Asker, sql: str, place: tuple[int, int] | None, kind: type[QueryError]
) -> None:
    with pytest.raises(QueryError) as failed:
        ask.rows(sql)

    error = failed.value
    assert type(error) is kind
    assert (error.line, error.column) == (place or (None, None))
    assert error.remedy
    told = f"{error.what} {error.remedy}"
    assert not INNER.search(told)
    assert not FOLDER.search(told.replace("/tmp/x.parquet", "").replace("file:///etc/x.parquet", ""))
    assert error.what[-1] in ".…"
    assert len(error.what) < 800


@pytest.mark.parametrize(("sql", "place", "kind"), CASES[::20])
def test_a_client_gets_the_same_class_place_and_remedy(
    ask: Asker, sql: str, place: tuple[int, int] | None, kind: type[QueryError]
) -> None:
    with pytest.raises(QueryError) as failed:
        ask.rows(sql)
    error = failed.value
    error.query_id = "q-1"

    by_trailer = decode_error(encode_error(error))
    by_status = parse_status_text(status_text(error))

    assert isinstance(by_trailer, QueryError)
    assert type(by_trailer) is type(by_status) is kind
    assert (by_trailer.what, by_trailer.remedy, by_trailer.query_id) == (error.what, error.remedy, "q-1")
    assert (by_trailer.line, by_trailer.column) == (place or (None, None))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:100],
        lambda content: content[:200] + bytes(reversed(content[200:20_000])) + content[20_000:],
    ],
)
def test_a_damaged_file_is_the_servers_fault(tmp_path: Path, damage: object) -> None:
    rows = pa.table({"word": [f"{n * 7919 % 10_007:050d}" for n in range(10_000)]})
    file = tmp_path / "secret name.parquet"
    pq.write_table(rows, file, compression="snappy")
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    tables = FixedTables([TableSnapshot(name="words", schema=rows.schema, files=(str(file),))])
    engine = DataFusionEngine(tables, EngineSettings())

    with pytest.raises(MicromegasError) as failed:
        Asker(engine, tables).rows("SELECT max(word), count(DISTINCT word) FROM words")

    engine.close()
    assert type(failed.value) is Unavailable
    assert not isinstance(failed.value, QueryError)
    assert "secret" not in str(failed.value)
    assert "arquet" not in str(failed.value)


@pytest.mark.parametrize("options", ["", "ANALYZE ", "VERBOSE ", "ANALYZE VERBOSE ", "FORMAT TREE "])
def test_a_described_plan_shows_no_path(ask: Asker, options: str) -> None:
    rows = ask.rows(f"EXPLAIN {options}SELECT msg, count(*) FROM log_entries WHERE level > 1 GROUP BY msg ORDER BY 1")

    assert rows
    assert not FOLDER.search(str(rows))
    assert "failing lake" not in str(rows)
    assert "failing%20lake" not in str(rows)


_TABLE_FUNCTIONS = {"view_instance", "list_partitions", "retire_partitions", "perfetto_trace_chunks", "jsonb_each"}


@pytest.mark.parametrize("in_from", [False, True])
def test_this_server_has_none_of_these_functions(ask: Asker, in_from: bool) -> None:
    for name in UPSTREAM_FUNCTIONS:
        if in_from is (name in _TABLE_FUNCTIONS):
            with pytest.raises(InvalidStatement, match=f"no function named {name}") as caught:
                ask.plan(f"SELECT * FROM {name}('a')" if in_from else f"SELECT {name}('a')")
            assert caught.value.remedy == UPSTREAM_FUNCTIONS[name]


def test_this_server_has_none_of_these_tables(ask: Asker) -> None:
    for name in UPSTREAM_TABLES:
        with pytest.raises(InvalidStatement, match=f"no table named {name}") as caught:
            ask.plan(f"SELECT * FROM {name}")
        assert caught.value.remedy == UPSTREAM_TABLES[name]
