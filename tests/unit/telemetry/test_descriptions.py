import pyarrow as pa
import pytest

from micromegas_jupyter.telemetry.tables import (
    COLUMN_REMARKS,
    REMARKS_KEY,
    TABLE_REMARKS,
    TABLES,
    TableDefinition,
    with_remarks,
)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_column_is_described_and_no_other(table: TableDefinition) -> None:
    assert set(COLUMN_REMARKS[table.name]) == set(table.schema.names)
    assert TABLE_REMARKS[table.name].endswith(".")
    assert table.raw_name is None or TABLE_REMARKS[table.raw_name].endswith(f"{table.name} are merged from.")


def test_a_schema_gets_the_remarks_and_is_otherwise_the_same() -> None:
    schema = pa.schema(
        [pa.field("level", pa.int32(), metadata={"a": "b"}), ("extra", pa.string())], metadata={"c": "d"}
    )

    described = with_remarks("log_entries", schema)

    assert described.equals(schema)
    assert described.field("level").metadata == {
        b"a": b"b",
        REMARKS_KEY: COLUMN_REMARKS["log_entries"]["level"].encode(),
    }
    assert described.field("extra").metadata is None
    assert described.metadata == {b"c": b"d", REMARKS_KEY: TABLE_REMARKS["log_entries"].encode()}


def test_a_table_that_is_not_known_stays_as_it_is() -> None:
    schema = pa.schema([("level", pa.int32())])

    assert with_remarks("other", schema) is schema
