"""The database describes itself in the schemas that Flight SQL asks for."""

from typing import Any

import pyarrow as pa
import pytest

from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import MetadataQuery
from micromegas_jupyter.server.catalog import ServerFacts, build_metadata, matches_pattern, metadata_schema

LOG_SCHEMA = pa.schema({"time": pa.timestamp("ns", "+00:00"), "msg": pa.string()})
TABLES = [
    ("processes", pa.schema({"exe": pa.string()}).serialize().to_pybytes()),
    ("log_entries", LOG_SCHEMA.serialize().to_pybytes()),
]


def _command(message: Any) -> MetadataQuery:
    return MetadataQuery(name=message.DESCRIPTOR.name, message=message)


def _tables(**fields: object) -> MetadataQuery:
    return _command(messages.CommandGetTables(**fields))


def _names(command: MetadataQuery) -> list[str]:
    names: list[str] = build_metadata(command, TABLES, ServerFacts())["table_name"].to_pylist()
    return names


def test_tables_are_listed_by_name() -> None:
    assert build_metadata(_tables(), TABLES, ServerFacts()).to_pylist() == [
        {"catalog_name": "", "db_schema_name": "", "table_name": "log_entries", "table_type": "table"},
        {"catalog_name": "", "db_schema_name": "", "table_name": "processes", "table_type": "table"},
    ]


def test_a_tables_schema_comes_on_request() -> None:
    (row,) = build_metadata(
        _tables(table_name_filter_pattern="log_entries", include_schema=True), TABLES, ServerFacts()
    ).to_pylist()

    assert pa.ipc.read_schema(pa.py_buffer(row["table_schema"])) == LOG_SCHEMA


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (_tables(table_name_filter_pattern="log%"), ["log_entries"]),
        (_tables(table_types=("BASE TABLE", "table")), ["log_entries", "processes"]),
        (_tables(table_types=("VIEW",)), []),
        (_tables(catalog="", db_schema_filter_pattern=""), ["log_entries", "processes"]),
        (_tables(catalog="other"), []),
        (_tables(db_schema_filter_pattern="public"), []),
        (_tables(db_schema_filter_pattern="%"), ["log_entries", "processes"]),
    ],
)
def test_tables_are_filtered(command: MetadataQuery, expected: list[str]) -> None:
    assert _names(command) == expected


def test_there_is_one_catalog_with_one_schema_and_one_kind_of_table() -> None:
    assert build_metadata(_command(messages.CommandGetCatalogs()), TABLES, ServerFacts()).to_pylist() == [
        {"catalog_name": ""}
    ]
    everywhere = _command(messages.CommandGetDbSchemas())
    elsewhere = _command(messages.CommandGetDbSchemas(catalog="other"))
    assert build_metadata(everywhere, TABLES, ServerFacts()).to_pylist() == [{"catalog_name": "", "db_schema_name": ""}]
    assert build_metadata(elsewhere, TABLES, ServerFacts()).num_rows == 0
    assert build_metadata(_command(messages.CommandGetTableTypes()), TABLES, ServerFacts()).to_pylist() == [
        {"table_type": "table"}
    ]


@pytest.mark.parametrize(
    "command",
    [
        _command(messages.CommandGetCatalogs()),
        _command(messages.CommandGetDbSchemas()),
        _tables(),
        _tables(include_schema=True),
        _command(messages.CommandGetTableTypes()),
        _command(messages.CommandGetSqlInfo()),
        _command(messages.CommandGetPrimaryKeys(table="log_entries")),
        _command(messages.CommandGetExportedKeys(table="log_entries")),
        _command(messages.CommandGetXdbcTypeInfo()),
    ],
)
def test_an_answer_has_the_schema_that_was_announced(command: MetadataQuery) -> None:
    assert build_metadata(command, TABLES, ServerFacts()).schema == metadata_schema(command)


@pytest.mark.parametrize(
    ("text", "pattern", "expected"),
    [
        ("log_entries", "log_entries", True),
        ("logXentries", "log_entries", True),
        ("log_entries", "log", False),
        ("a*b", "a*b", True),
        ("axb", "a*b", False),
        ("a[b]", "a[b]", True),
        ("ab", "a[b]", False),
        ("", "%", True),
        ("LOG", "log", False),
        ("log_entries", "log\\_entries", True),
        ("logXentries", "log\\_entries", False),
        ("100%", "100\\%", True),
        ("100x", "100\\%", False),
        ("a\\b", "a\\\\b", True),
        ("a\\b", "a\\b", True),
        ("a\\", "a\\", True),
    ],
)
def test_patterns_know_percent_underscore_and_backslash_only(text: str, pattern: str, expected: bool) -> None:
    assert matches_pattern(text, pattern) is expected


@pytest.mark.timeout(60)
def test_a_hostile_pattern_does_not_backtrack_without_end() -> None:
    assert not matches_pattern("a" * 200, "%a" * 100 + "b")


@pytest.mark.parametrize(
    ("command", "columns"),
    [
        (
            _command(messages.CommandGetPrimaryKeys(table="log_entries")),
            ["catalog_name", "db_schema_name", "table_name", "column_name", "key_name", "key_sequence"],
        ),
        (
            _command(messages.CommandGetCrossReference(pk_table="log_entries", fk_table="processes")),
            [
                *("pk_catalog_name", "pk_db_schema_name", "pk_table_name", "pk_column_name"),
                *("fk_catalog_name", "fk_db_schema_name", "fk_table_name", "fk_column_name"),
                *("key_sequence", "fk_key_name", "pk_key_name", "update_rule", "delete_rule"),
            ],
        ),
    ],
)
def test_there_are_no_keys(command: MetadataQuery, columns: list[str]) -> None:
    batch = build_metadata(command, TABLES, ServerFacts())

    assert batch.num_rows == 0
    assert batch.schema.names == columns
