"""A program that runs the largest statement that the guard accepts of each dangerous shape, and exits 0 if it lives.

Each shape crashed or stalled DataFusion 54 or 55 at a larger size (`guard.Limits` has the figures).
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from micromegas_jupyter.contracts import TableSnapshot
from micromegas_jupyter.engine import DataFusionEngine, EngineSettings, StatementRequest
from micromegas_jupyter.engine.guard import check_statement
from micromegas_jupyter.errors import QueryError, StatementRefused
from tests.fakes.fixed_tables import CALLER, FixedTables

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS_EACH = 60
ROWS = pa.table({"x": [1, 2, 3], "y": [1, 2, 3], "b": [True, False, None], "s": ["a", "b", None]})


def many(part: str, count: int, joiner: str = ", ") -> str:
    return joiner.join(part.format(index) for index in range(count))


def doubling_tables(count: int) -> str:
    links = "".join(f", c{i + 1} AS (SELECT a.x FROM c{i} a, c{i} b)" for i in range(count))
    return "WITH c0 AS (SELECT * FROM t)" + links + f" SELECT count(*) FROM c{count} LIMIT 0"


SHAPES: dict[str, Callable[[int], str]] = {
    "plus": lambda n: "SELECT 1" + "+1" * n,
    "plus of a column": lambda n: "SELECT x" + "+x" * n + " FROM t",
    "plus in a filter": lambda n: "SELECT x FROM t WHERE x" + "+x" * n + " > 0",
    "plus in an order": lambda n: "SELECT x FROM t ORDER BY x" + "+x" * n,
    "plus in a group": lambda n: "SELECT x" + "+1" * n + ", count(*) FROM t GROUP BY x" + "+1" * n,
    "plus in many columns": lambda n: "SELECT " + many("x+{}", n) + " FROM t",
    "plus in many sums": lambda n: "SELECT " + many("sum(x+{})", n) + " FROM t",
    "minus signs": lambda n: "SELECT " + "- " * n + "x FROM t",
    "not": lambda n: "SELECT " + "NOT " * n + "b FROM t",
    "and": lambda n: "SELECT x FROM t WHERE b" + " AND x>1" * n,
    "or": lambda n: "SELECT x FROM t WHERE b" + "".join(f" OR x+y={i}" for i in range(n)),
    "and with or": lambda n: "SELECT x FROM t WHERE b" + "".join(f" AND x>{i} OR y<{i}" for i in range(n)),
    "concatenation": lambda n: "SELECT s" + "||s" * n + " FROM t",
    "equal": lambda n: "SELECT b" + " = b" * n + " FROM t",
    "like": lambda n: "SELECT s" + " LIKE s" * n + " FROM t",
    "is true": lambda n: "SELECT b" + " IS TRUE" * n + " FROM t",
    "is null": lambda n: "SELECT x" + " IS NULL" * n + " FROM t",
    "cast signs": lambda n: "SELECT x" + "::int::text" * n + " FROM t",
    "casts": lambda n: "SELECT " + "CAST(" * n + "x" + " AS INT)" * n + " FROM t",
    "broken casts": lambda n: "SELECT " + "CAST(" * n + " !% " + " AS INT)" * n,
    "broken long casts": lambda n: "SELECT " + "CAST(" * 12 + "x, " * n + " !% " + " AS INT)" * 12,
    "overlays": lambda n: "SELECT " + "overlay(" * n + "s" + " placing 'x' from 1)" * n + " FROM t",
    "brackets": lambda n: "SELECT " + "(" * n + "x" + ")" * n + " FROM t",
    "open brackets": lambda n: "SELECT " + "(" * n,
    "functions": lambda n: "SELECT " + "abs(" * n + "x" + ")" * n + " FROM t",
    "arrays": lambda n: "SELECT " + "[" * n + "1" + "]" * n,
    "json text": lambda n: "SELECT '" + "[" * n + "]" * n + "'",
    "nested types": lambda n: "SELECT arrow_cast(NULL, '" + "List(" * n + "Int32" + ")" * n + "')",
    "nested expressions": lambda n: "SELECT regexp_like('a', '" + "(" * n + "a" + ")" * n + "')",
    "in list": lambda n: "SELECT x FROM t WHERE x IN (" + many("{}", n) + ")",
    "in list of expressions": lambda n: "SELECT x FROM t WHERE x IN (" + many("y+{}", n) + ")",
    "dots": lambda n: "SELECT t" + ".x" * n + " FROM t",
    "dots of a table": lambda n: "SELECT * FROM t" + ".x" * n,
    "case with many branches": lambda n: "SELECT CASE" + many(" WHEN x={0} THEN {0}", n, "") + " END FROM t",
    "case in else": lambda n: "SELECT " + "CASE WHEN b THEN 1 ELSE " * n + "2" + " END" * n + " FROM t",
    "case in when": lambda n: "SELECT " + "CASE WHEN " * n + "b" + " THEN b ELSE b END" * n + " FROM t",
    "union all": lambda n: "SELECT x FROM t" + " UNION ALL SELECT x FROM t" * n,
    "union": lambda n: "SELECT x FROM t" + " UNION SELECT x FROM t" * n,
    "except": lambda n: "SELECT x FROM t" + " EXCEPT SELECT x FROM t" * n,
    "intersect": lambda n: "SELECT x FROM t" + " INTERSECT SELECT x FROM t" * n,
    "joins": lambda n: "SELECT t.x FROM t" + many(" JOIN t t{0} ON t.x=t{0}.x", n, ""),
    "left joins": lambda n: "SELECT t.x FROM t" + many(" LEFT JOIN t t{0} ON t.x=t{0}.x", n, ""),
    "joins by comma": lambda n: "SELECT t.x FROM t" + many(", t t{}", n, "") + " LIMIT 1",
    "sub-queries in from": lambda n: "SELECT * FROM " + "(SELECT * FROM " * n + "t" + ")" * n,
    "sub-queries": lambda n: "SELECT " + "(SELECT " * n + "1" + ")" * n,
    "sub-queries beside": lambda n: "SELECT " + many("(SELECT max(x)+{} FROM t)", n),
    "exists": lambda n: "SELECT x FROM t WHERE b" + many(" AND EXISTS (SELECT 1 FROM t u WHERE u.x=t.x+{})", n, ""),
    "in sub-queries": lambda n: "SELECT x FROM t WHERE " + "x IN (SELECT x FROM t WHERE " * n + "true" + ")" * n,
    "chain of tables": lambda n: (
        "WITH c0 AS (SELECT * FROM t)"
        + "".join(f", c{i + 1} AS (SELECT * FROM c{i})" for i in range(n))
        + f" SELECT * FROM c{n}"
    ),
    "doubling tables": doubling_tables,
    "with in with": lambda n: "WITH a AS (" * n + "SELECT 1" + ") SELECT * FROM a" * n,
    "windows": lambda n: "SELECT " + many("sum(x) OVER (ORDER BY y+{})", n) + " FROM t",
    "cube": lambda n: "SELECT count(*) FROM t GROUP BY CUBE(" + many("x+{}", n) + ")",
    "columns": lambda n: "SELECT " + many("x AS c{}", n) + " FROM t",
    "values": lambda n: "VALUES " + many("({})", n),
    "comments": lambda n: "SELECT 1 " + "/*" * n + "*/" * n,
    "explain": lambda n: "EXPLAIN " * n + "SELECT 1",
    "pipes": lambda n: "SELECT x FROM t" + " |> WHERE x>1" * n,
    "dollar quote": lambda n: "SELECT $$'$$" + "+1" * n + " -- '",
    "escape": lambda n: "SELECT E'\\''" + "||s" * n + " FROM t -- '",
}


def largest(build: Callable[[int], str], *, is_exact: bool) -> str:
    """Return the largest statement of a shape that the guard accepts, or one that is within a hundredth of it."""
    refused = 2
    while refused < 40_000 and is_accepted(build(refused)):
        refused *= 2
    accepted = refused // 2
    while refused - accepted > (1 if is_exact else max(1, accepted // 100)):
        middle = (accepted + refused) // 2
        if is_accepted(build(middle)):
            accepted = middle
        else:
            refused = middle
    return build(accepted)


def is_accepted(sql: str) -> bool:
    try:
        check_statement(sql, max_bytes=65536)
    except StatementRefused:
        return False
    return True


async def run(engine: DataFusionEngine, sql: str) -> str:
    try:
        async with asyncio.timeout(SECONDS_EACH):
            planned = await engine.plan(StatementRequest(sql=sql), CALLER)
            rows = [batch.num_rows async for batch in planned.batches()]
    except QueryError as error:
        return type(error).__name__
    return f"{sum(rows)} rows"


async def main(*, is_exact: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "t.parquet"
        pq.write_table(ROWS, file)
        table = TableSnapshot(name="t", schema=ROWS.schema, files=(str(file),))
        engine = DataFusionEngine(FixedTables([table]), EngineSettings(planning_threads=1, memory_limit_bytes=1 << 30))
        for name, build in SHAPES.items():
            sql = largest(build, is_exact=is_exact)
            print(f"{name}: {len(sql)} bytes, {await run(engine, sql)}", flush=True)
        engine.close()


if __name__ == "__main__":
    asyncio.run(main(is_exact="--exact" in sys.argv[1:]))
    sys.stdout.flush()
    # Threads of the engine's runtime may still let go of Python objects, which the interpreter's end does not survive.
    os._exit(0)
