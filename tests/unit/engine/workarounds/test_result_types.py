"""A result has the types that its rows have where a statement mixes types."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from datafusion import SessionContext

if TYPE_CHECKING:
    from tests.unit.engine.conftest import Asker


@pytest.mark.parametrize(
    ("sql", "kind", "values"),
    [
        ("SELECT NULL AS a UNION ALL SELECT 1", pa.int64(), [None, 1]),
        ("SELECT NULL AS a UNION SELECT 'x'", pa.string(), [None, "x"]),
        ("SELECT 1 AS a UNION ALL SELECT 2.5", pa.float64(), [1.0, 2.5]),
        ("SELECT 1 AS a UNION SELECT 'x'", pa.string(), ["1", "x"]),
        ("SELECT max(a) FROM (SELECT arrow_cast(1, 'UInt8') AS a UNION ALL SELECT 300)", pa.int64(), [300]),
        ("SELECT CASE WHEN level > 99 THEN level ELSE 2.5 END AS a FROM log_entries LIMIT 1", pa.float64(), [2.5]),
        ("SELECT sum(CASE WHEN a > 1 THEN a ELSE 0.5 END) FROM (VALUES (1), (2)) AS v(a)", pa.float64(), [2.5]),
        ("SELECT CASE WHEN random() < 2 THEN 2.5 ELSE 1 END AS a", pa.float64(), [2.5]),
        ("SELECT CASE WHEN random() < 2 THEN 'x' ELSE 1 END AS a", pa.string(), ["x"]),
        (
            "SELECT CASE WHEN l.level > 99 THEN 1 ELSE 2.5 END FROM log_entries l NATURAL JOIN processes LIMIT 1",
            pa.float64(),
            [2.5],
        ),
    ],
)
def test_mixed_types_become_one_that_holds_all_values(
    ask: Asker, sql: str, kind: pa.DataType, values: list[object]
) -> None:
    found = ask.table(sql)

    assert found.schema.types == [kind]
    assert sorted(found.column(0).to_pylist(), key=str) == sorted(values, key=str)


def test_datafusion_still_announces_other_types() -> None:
    frame = SessionContext().sql("SELECT 1 AS a UNION ALL SELECT 2.5")

    assert frame.schema().types == [pa.int64()], "mended: delete `with_result_types` of `workarounds.joins`"
    assert frame.to_arrow_table().schema.types == [pa.float64()]
