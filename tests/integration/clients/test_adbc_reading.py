"""ADBC's dbapi reads: every way to fetch, every type, every error."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import TYPE_CHECKING

import adbc_driver_manager
import pyarrow as pa
import pytest

from tests.integration.clients.adbc import adbc_connection, fetch_rows
from tests.integration.clients.serving import MANY_COUNT
from tests.integration.clients.wide_rows import sent_table

if TYPE_CHECKING:
    from adbc_driver_flightsql.dbapi import Connection, Cursor

    from tests.integration.clients.serving import ClientServer

pytestmark = pytest.mark.integration

MESSAGE_BYTES = 2 * 1024 * 1024


def test_rows_are_fetched_one_by_one_and_many_at_once(cursor: Cursor) -> None:
    cursor.execute("SELECT n, text FROM many WHERE n < 10 ORDER BY n")

    assert cursor.fetchone() == (0, "row 0")
    assert cursor.rownumber == 1
    assert cursor.fetchmany(2) == [(1, "row 1"), (2, "row 2")]
    assert cursor.fetchmany() == [(3, "row 3")]
    assert [row[0] for row in cursor] == [4, 5, 6, 7, 8, 9]
    assert cursor.fetchone() is None
    assert cursor.fetchall() == []


def test_rows_are_fetched_as_a_table(cursor: Cursor) -> None:
    cursor.execute("SELECT * FROM wide ORDER BY id")

    table = cursor.fetch_arrow_table()

    assert table.schema.types == sent_table().schema.types
    assert table.to_pylist() == sent_table().to_pylist()


def test_a_large_answer_arrives_in_several_small_batches(cursor: Cursor) -> None:
    cursor.execute("SELECT n, text FROM many")

    batches = list(cursor.fetch_record_batch())

    assert len(batches) > 1
    assert max(batch.nbytes for batch in batches) <= MESSAGE_BYTES
    assert sorted(pa.Table.from_batches(batches)["n"].to_pylist()) == list(range(MANY_COUNT))


@pytest.mark.parametrize(
    ("expression", "kind", "value"),
    [
        ("arrow_cast(1, 'Duration(Second)')", pa.duration("s"), dt.timedelta(seconds=1)),
        ("INTERVAL '1 month 2 days'", pa.month_day_nano_interval(), (1, 2, 0)),
        ("arrow_cast('x', 'Utf8View')", pa.string(), "x"),
        ("arrow_cast('x', 'Dictionary(Int32, Utf8)')", pa.string(), "x"),
        ("arrow_cast(1.5, 'Float16')", pa.float16(), 1.5),
        ("NULL", pa.null(), None),
        ("arrow_cast(make_array(1), 'FixedSizeList(1, Int64)')", pa.list_(pa.int64(), 1), [1]),
        ("arrow_cast(make_array(1), 'LargeList(Int64)')", pa.large_list(pa.int64()), [1]),
        ("arrow_cast(1.5, 'Decimal256(50, 3)')", pa.decimal256(50, 3), Decimal("1.500")),
        ("map(['a'], [1])", pa.map_(pa.string(), pa.int64()), [("a", 1)]),
        ("named_struct('a', 1, 'b', make_array('x'))", None, {"a": 1, "b": ["x"]}),
    ],
)
def test_types_that_only_expressions_have(
    cursor: Cursor, expression: str, kind: pa.DataType | None, value: object
) -> None:
    cursor.execute(f"SELECT {expression} AS a")

    table = cursor.fetch_arrow_table()

    assert kind is None or table.schema.field("a").type == kind
    assert table["a"].to_pylist() == [value]


def test_a_partition_is_read_by_another_connection_of_the_caller(server: ClientServer, cursor: Cursor) -> None:
    with adbc_connection(server) as other, other.cursor() as reader:
        partitions, schema = cursor.adbc_execute_partitions("SELECT n FROM many WHERE n < 3 ORDER BY n")
        (partition,) = partitions
        reader.adbc_read_partition(partition)
        rows = reader.fetchall()

    assert schema == pa.schema({"n": pa.int64()})
    assert rows == [(0,), (1,), (2,)]


def test_the_schema_is_known_without_running(cursor: Cursor) -> None:
    schema = cursor.adbc_execute_schema("SELECT n, text, 1 / 0 AS broken FROM many")

    assert (schema.names, schema.types) == (["n", "text", "broken"], [pa.int64(), pa.string(), pa.int64()])


def test_a_prepared_statement_describes_its_parameters_and_runs(cursor: Cursor) -> None:
    parameters = cursor.adbc_prepare("SELECT ? + 1 AS a")
    cursor.execute("SELECT ? + 1 AS a", (41,))

    assert parameters == pa.schema({"0": pa.int64()})
    assert cursor.fetchall() == [(42,)]


@pytest.mark.parametrize(
    ("sql", "kind", "text"),
    [
        ("SELECT nope FROM many", adbc_driver_manager.ProgrammingError, r"named nope.*SQL001.*line 1, column 8"),
        ("SELECT max(1 / (n - 5)) FROM many", adbc_driver_manager.ProgrammingError, r"divides by zero.*SQL001"),
        ("DROP TABLE many", adbc_driver_manager.ProgrammingError, r"only reads.*SQL002"),
        ("SELECT arrow_cast(1, 'Time32(Second)')", adbc_driver_manager.NotSupportedError, r"SQL003"),
    ],
)  # fmt: skip
def test_a_wrong_statement_is_explained(connection: Connection, sql: str, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text) as caught:
        fetch_rows(connection, sql)

    assert "query_id=" in str(caught.value)
    assert fetch_rows(connection, "SELECT 1") == [(1,)]


def test_substrait_is_not_offered(cursor: Cursor) -> None:
    with pytest.raises(adbc_driver_manager.NotSupportedError, match="SQL007"):
        cursor.execute(b"not a plan")
