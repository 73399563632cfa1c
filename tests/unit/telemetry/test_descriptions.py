import pyarrow as pa
import pytest

from micromegas_jupyter.telemetry.tables import (
    LOG_ENTRIES,
    REMARKS_KEY,
    TABLES,
    TableDefinition,
    with_remarks,
)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_column_is_described_and_no_other(table: TableDefinition) -> None:
    assert set(table.remarks) == set(table.schema.names)
    assert table.remark.endswith(".")
    if table.raw_name is not None:
        remark = with_remarks(table.raw_name, table.schema).metadata[REMARKS_KEY].decode()
        assert remark.endswith(f"{table.name} are merged from.")


def test_a_schema_gets_the_remarks_and_is_otherwise_the_same() -> None:
    schema = pa.schema(
        [pa.field("level", pa.int32(), metadata={"a": "b"}), ("extra", pa.string())], metadata={"c": "d"}
    )

    described = with_remarks("log_entries", schema)

    assert described.equals(schema)
    assert described.field("level").metadata == {
        b"a": b"b",
        REMARKS_KEY: LOG_ENTRIES.remarks["level"].encode(),
    }
    assert described.field("extra").metadata is None
    assert described.metadata == {b"c": b"d", REMARKS_KEY: LOG_ENTRIES.remark.encode()}


def test_a_table_that_is_not_known_stays_as_it_is() -> None:
    schema = pa.schema([("level", pa.int32())])

    assert with_remarks("other", schema) is schema
