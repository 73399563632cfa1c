"""The rows on which a condition is tried."""

from __future__ import annotations

import pyarrow as pa

from micromegas_jupyter.engine.security.conditions import trial_rows


def test_each_column_has_null_and_its_extremes() -> None:
    schema = pa.schema(
        [
            pa.field("n", pa.int32(), nullable=False),
            pa.field("u", pa.uint8()),
            pa.field("f", pa.float32()),
            pa.field("s", pa.string()),
            pa.field("b", pa.binary()),
            pa.field("t", pa.timestamp("ms", "UTC")),
            pa.field("l", pa.list_(pa.int8())),
        ]
    )

    rows = trial_rows(schema)

    assert rows.schema.names == schema.names
    assert rows.schema.types == schema.types
    assert all(column.null_count for column in rows.columns)
    assert {-(2**31), 2**31 - 1, 0} <= set(rows.column("n").to_pylist())
    assert {0, 255} <= set(rows.column("u").to_pylist())
    assert {"", "x", "("} <= set(rows.column("s").to_pylist())
    assert {1700, 2239} == {value.year for value in rows.column("t").to_pylist() if value and value.year != 1970}


def test_no_columns_are_no_rows() -> None:
    assert trial_rows(pa.schema([])).num_columns == 0
