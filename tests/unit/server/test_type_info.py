"""The types that are told are the ones that the engine has, in the order and shape that Flight SQL prescribes."""

import pyarrow as pa
import pytest
from datafusion import SessionContext

from micromegas_jupyter.flightsql import messages
from micromegas_jupyter.flightsql.commands import MetadataQuery
from micromegas_jupyter.server.catalog import ServerFacts, build_metadata


def _types(data_type: int | None = None) -> list[dict[str, object]]:
    message = messages.CommandGetXdbcTypeInfo(data_type=data_type)
    command = MetadataQuery(name="CommandGetXdbcTypeInfo", message=message)
    rows: list[dict[str, object]] = build_metadata(command, [], ServerFacts()).to_pylist()
    return rows


@pytest.fixture(scope="module")
def engine() -> SessionContext:
    return SessionContext()


@pytest.mark.parametrize("name", [str(row["type_name"]) for row in _types()])
def test_every_type_can_stand_in_a_cast(engine: SessionContext, name: str) -> None:
    found = engine.sql(f"SELECT CAST(NULL AS {name}) AS x").schema().field(0).type

    assert found != pa.null()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("BYTEA", "0aff"),
        ("INTERVAL", "1 day"),
        ("VARCHAR", "a"),
        ("DATE", "2026-11-25"),
        ("TIME", "12:00:00.123456789"),
        ("TIMESTAMP", "2026-11-25 12:00:00.123456789"),
        ("TIMESTAMP WITH TIME ZONE", "2026-11-25 12:00:00.123456789+00:00"),
    ],
)
def test_a_literal_is_written_as_told(engine: SessionContext, name: str, text: str) -> None:
    (row,) = [found for found in _types() if found["type_name"] == name]

    plan = engine.sql(f"SELECT {row['literal_prefix']}{text}{row['literal_suffix']} AS x")

    assert plan.count() == 1
    assert row["column_size"] in {None, len(text)}


def test_the_types_come_in_order() -> None:
    keys = [(row["data_type"], str(row["type_name"])) for row in _types()]

    assert keys == sorted(keys)


def test_one_number_asks_for_its_types() -> None:
    assert [row["type_name"] for row in _types(-5)] == ["BIGINT", "BIGINT UNSIGNED"]
    assert [(row["type_name"], row["sql_data_type"], row["datetime_subcode"]) for row in _types(93)] == [
        ("TIMESTAMP", 9, 3),
        ("TIMESTAMP WITH TIME ZONE", 9, 5),
    ]
    assert _types(0) == []
