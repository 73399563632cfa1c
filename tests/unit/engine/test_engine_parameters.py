"""Values bound to a statement's placeholders, through the whole engine."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from micromegas_jupyter.errors import InvalidStatement
from tests.fakes.fixed_tables import NOON

if TYPE_CHECKING:
    from tests.unit.engine.conftest import Asker

VALUES = [
    pa.scalar(True),
    pa.scalar(-3, pa.int8()),
    pa.scalar(2**64 - 1, pa.uint64()),
    pa.scalar(1.5),
    pa.scalar("it's; -- ?"),
    pa.scalar(b"\x00\xff"),
    pa.scalar(date(2026, 11, 24)),
    pa.scalar(NOON, pa.timestamp("ns", "UTC")),
    pa.scalar(timedelta(seconds=1), pa.duration("ns")),
    pa.scalar(Decimal("1.25"), pa.decimal128(10, 2)),
    pa.scalar([1, 2]),
    pa.scalar({"a": 1}),
    pa.scalar(None, pa.string()),
    pa.scalar(None, pa.int64()),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{value.type}-{value.is_valid}")
@pytest.mark.parametrize(
    ("sql", "column"), [("SELECT ? AS v", "0"), ("SELECT $1 AS v", "0"), ("SELECT $it AS v", "it")]
)
def test_a_parameter_keeps_value_and_type(ask: Asker, value: pa.Scalar, sql: str, column: str) -> None:
    row = pa.RecordBatch.from_arrays([pa.array([value.as_py()], value.type)], names=[column])

    planned = ask.plan(sql, parameters=row)
    found = ask.table(sql, parameters=row)

    assert planned.parameter_schema == pa.schema([pa.field(column, value.type)])
    assert found.schema.field("v").type == value.type
    assert found.column("v")[0].as_py() == value.as_py()


def test_parameters_filter_rows(ask: Asker) -> None:
    row = pa.record_batch({"0": [2], "1": ["error%"], "2": [3]})

    found = ask.rows("SELECT msg FROM log_entries WHERE level = ? AND msg LIKE ? ORDER BY time LIMIT ?", parameters=row)

    assert [one["msg"] for one in found] == ["error 0", "error 1", "error 2"]


def test_a_parameter_is_a_value_not_sql(ask: Asker) -> None:
    row = pa.record_batch({"exe": ["' OR 1 = 1 --"]})

    assert ask.rows("SELECT * FROM log_entries WHERE exe = $exe", parameters=row) == []


def test_a_statement_is_planned_without_its_parameters_but_not_run(ask: Asker) -> None:
    planned = ask.plan("SELECT level FROM log_entries WHERE level = ? AND msg LIKE ? AND exe = $exe")

    assert planned.schema == pa.schema([pa.field("level", pa.int32(), nullable=False)])
    assert planned.parameter_schema.names == ["0", "1", "exe"]
    assert planned.parameter_schema.field("0").type == pa.int32()
    with pytest.raises(InvalidStatement, match="number 1"):
        ask.rows("SELECT level FROM log_entries WHERE level = ?")


def test_a_missing_parameter_is_named(ask: Asker) -> None:
    with pytest.raises(InvalidStatement, match=r"\$level"):
        ask.plan("SELECT $exe, $level", parameters=pa.record_batch({"exe": ["web"]}))


def test_a_parameter_of_unknown_type_is_null_in_the_schema(ask: Asker) -> None:
    assert ask.plan("SELECT $1").parameter_schema == pa.schema([pa.field("0", pa.null())])
