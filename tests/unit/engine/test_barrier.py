"""Nothing that a caller wrote gets below the barrier, in the optimised and in the physical plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datafusion import SessionConfig, SessionContext, col

from micromegas_jupyter.engine.security.barrier import barrier_holds, behind_barrier

if TYPE_CHECKING:
    from pathlib import Path

    from datafusion import DataFrame

STATEMENTS = [
    "SELECT x FROM t WHERE CAST(s AS INT) = 1",
    "SELECT shown, CAST(s AS INT) + x AS n FROM t",
    "SELECT x FROM t ORDER BY CAST(s AS INT) LIMIT 3",
    "SELECT max(CAST(s AS INT)) AS n FROM t",
    "SELECT t.x FROM t JOIN (VALUES (1), (2)) AS u (k) ON CAST(t.s AS INT) = u.k WHERE u.k < 2",
    "SELECT CAST(s AS INT) AS n, count(*) AS c FROM t GROUP BY 1 ORDER BY 2 DESC LIMIT 1",
    "SELECT x FROM t WHERE EXISTS (SELECT 1 FROM t AS b WHERE CAST(b.s AS INT) = t.x)",
]


@pytest.fixture(params=["pushed into the reader", "above the reader"])
def context(request: pytest.FixtureRequest, tmp_path: Path) -> SessionContext:
    """`t` is the shown rows of four files, behind the barrier; the filter lies in the reader or on it."""
    for number in range(4):
        rows = pa.table({"shown": [True, False] * 4, "s": ["1", "hidden"] * 4, "x": [number, 0] * 4})
        pq.write_table(rows, tmp_path / f"{number}.parquet", row_group_size=4)
    pushes = str(request.param == "pushed into the reader").lower()
    config = SessionConfig({"datafusion.execution.parquet.pushdown_filters": pushes}).with_target_partitions(2)
    context = SessionContext(config)
    shown = context.read_parquet(str(tmp_path)).filter(col("shown"))
    context.register_table("t", behind_barrier(shown).into_view())
    return context


def below(plan: str, node: str) -> str:
    """Return the lines of a plan that are deeper than each `node`."""
    found: list[str] = []
    depth = None
    for line in plan.splitlines():
        indent = len(line) - len(line.lstrip())
        if depth is not None and indent > depth:
            found.append(line)
        else:
            depth = indent if line.lstrip().startswith(node) else None
    return "\n".join(found)


@pytest.mark.parametrize("sql", STATEMENTS)
def test_nothing_of_a_statement_is_below_the_barrier(context: SessionContext, sql: str) -> None:
    frame = context.sql(sql)
    optimised = frame.optimized_logical_plan().display_indent()
    physical = frame.execution_plan().display_indent()

    for plan, node in ((optimised, "Limit: skip=0, fetch=9223372036854775807"), (physical, "UnnestExec")):
        lower = below(plan, node)
        assert "shown" in lower
        assert not any(part in lower for part in ("CAST", "DynamicFilter", "SortExec", "AggregateExec", "Int32"))
    assert frame.to_pydict()


def test_the_columns_are_the_same_behind_the_barrier() -> None:
    context = SessionContext()
    schema = pa.schema([pa.field("mark", pa.int8(), nullable=False), pa.field('A "b"', pa.string())])
    rows = context.read_batch(pa.RecordBatch.from_pylist([{"mark": 1, 'A "b"': None}], schema=schema))

    found = behind_barrier(rows)

    assert found.schema() == schema
    assert found.to_pylist() == [{"mark": 1, 'A "b"': None}]


def no_barrier(rows: DataFrame) -> DataFrame:
    return rows


def limit_only(rows: DataFrame) -> DataFrame:
    return rows.limit((1 << 63) - 1)


def test_the_self_test_passes() -> None:
    assert barrier_holds(SessionContext())


@pytest.mark.parametrize("barrier", [no_barrier, limit_only])
def test_the_self_test_knows_a_weak_barrier(barrier: object, caplog: pytest.LogCaptureFixture) -> None:
    one_partition = SessionContext(SessionConfig().with_target_partitions(1))

    assert not barrier_holds(one_partition, barrier)  # type: ignore[arg-type]

    assert "self-test" in caplog.text
