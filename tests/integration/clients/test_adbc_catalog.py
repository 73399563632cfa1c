"""ADBC lists catalogs, schemas, tables and columns, at each depth and with each filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import adbc_driver_manager
import pyarrow as pa
import pytest

from tests.integration.clients.serving import TABLE_NAMES
from tests.integration.clients.wide_rows import NAMES, sent_table

if TYPE_CHECKING:
    from adbc_driver_flightsql.dbapi import Connection

pytestmark = pytest.mark.integration


def tables(connection: Connection, **filters: Any) -> list[dict[str, Any]]:
    return [
        table
        for catalog in connection.adbc_get_objects(**filters).read_all().to_pylist()
        for schema in catalog["catalog_db_schemas"]
        for table in schema["db_schema_tables"] or []
    ]


def table_names(connection: Connection, **filters: Any) -> list[str]:
    return sorted(table["table_name"] for table in tables(connection, **filters))


def test_depth_tables(connection: Connection) -> None:
    found = tables(connection, depth="tables")

    assert sorted(table["table_name"] for table in found if not table["table_name"].startswith("__")) == TABLE_NAMES
    assert {table["table_type"] for table in found} == {"table"}
    assert {table["table_columns"] for table in found} == {None}


def test_depth_columns(connection: Connection) -> None:
    (wide,) = [table for table in tables(connection, depth="columns") if table["table_name"] == "wide"]

    assert [column["column_name"] for column in wide["table_columns"]] == ["id", *NAMES]
    assert [column["ordinal_position"] for column in wide["table_columns"]] == list(range(1, len(NAMES) + 2))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("under_score", ["underXscore", "under_score"]),
        (r"under\_score", ["under_score"]),
        ("MANY", []),
        ("m*", []),
        ("%score", ["underXscore", "under_score"]),
    ],
)
def test_tables_are_filtered_by_pattern(connection: Connection, pattern: str, expected: list[str]) -> None:
    assert table_names(connection, depth="tables", table_name_filter=pattern) == expected


@pytest.mark.parametrize(
    ("filters", "is_there"),
    [
        ({"catalog_filter": ""}, True),
        ({"catalog_filter": "other"}, False),
        ({"db_schema_filter": "%"}, True),
        ({"db_schema_filter": "other"}, False),
        ({"table_types_filter": ["view"]}, False),
        ({"table_types_filter": ["view", "table"]}, True),
    ],
)
def test_tables_are_filtered_by_catalog_schema_and_type(
    connection: Connection, filters: dict[str, Any], is_there: bool
) -> None:
    assert ("many" in table_names(connection, depth="tables", **filters)) is is_there


def test_columns_are_filtered_by_pattern(connection: Connection) -> None:
    (wide,) = tables(connection, depth="columns", table_name_filter="wide", column_name_filter="u%")

    assert [column["column_name"] for column in wide["table_columns"]] == [name for name in NAMES if name[0] == "u"]


def test_a_table_has_its_schema(connection: Connection) -> None:
    assert connection.adbc_get_table_schema("wide").names == sent_table().column_names
    assert connection.adbc_get_table_schema("under_score") == pa.schema({"a": pa.int64()})
    with pytest.raises(adbc_driver_manager.ProgrammingError, match="NOT_FOUND"):
        connection.adbc_get_table_schema("nothing")
