"""Queries of every shape, interrupted in a real kernel: the cell stops, the server stops, the next query works."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration.notebook.interrupting import (
    AuditLines,
    check_stopped,
    interrupt,
    kernel_of,
    served,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.notebook.kernels import AttendedKernel

pytestmark = pytest.mark.integration

ENDLESS = "generate_series(1, 100000000000000)"
FEW = "(SELECT n FROM events LIMIT 3000)"
SHAPES = {
    "rows as fast as they come": f"SELECT value FROM {ENDLESS}",
    "a scan that finds nothing": f"SELECT value FROM {ENDLESS} WHERE value % 7 = 8",
    "a scan of files, again and again": f"SELECT e.* FROM {ENDLESS} CROSS JOIN events AS e",
    "a sort": "SELECT value FROM generate_series(1, 100000000000) ORDER BY value % 1000003",
    "the newest": f"SELECT value FROM {ENDLESS} ORDER BY value % 1000 DESC LIMIT 10",
    "an aggregate": f"SELECT max(value * 2) FROM {ENDLESS}",
    "groups": f"SELECT value % 1000 AS k, sum(value) FROM {ENDLESS} GROUP BY k",
    "distinct values": f"SELECT count(DISTINCT value % 100000) FROM {ENDLESS}",
    "a join": f"SELECT count(*) FROM events AS e JOIN {ENDLESS} AS s ON e.n = s.value % 100000",
    # Of few rows: the engine goes on with a large one, and would keep this process busy beside all later tests.
    "a cross join": f"SELECT count(*) FROM {FEW} AS a, {FEW} AS b, {FEW} AS c WHERE a.n + b.n + c.n < 0",
    "a window": f"SELECT sum(value) OVER (ORDER BY value) FROM {ENDLESS}",
    "a recursion": "WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r) SELECT count(*) FROM r",
    "a union": f"SELECT value FROM {ENDLESS} UNION ALL SELECT value FROM {ENDLESS}",
    "regular expressions": f"SELECT count(*) FROM {ENDLESS} WHERE CAST(value AS VARCHAR) ~ '^(1|2)*3(4|5)*x'",
    "a subquery": f"SELECT n FROM events WHERE n IN (SELECT value * 2 FROM {ENDLESS} WHERE value < 0)",
    "an explained query": f"EXPLAIN ANALYZE SELECT max(value * 3) FROM {ENDLESS}",
    "wide rows": f"SELECT value, repeat('x', 10000) AS wide FROM {ENDLESS}",
    "a parameter": f"SELECT max(value * 2) FROM {ENDLESS} WHERE value > :least",
    "rows with a parameter": f"SELECT value, :least AS least FROM {ENDLESS}",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, AuditLines]]:
    folder = tmp_path_factory.mktemp("served")
    numbers = range(100_000)
    pq.write_table(pa.table({"n": numbers, "name": [f"event {n}" for n in numbers]}), folder / "events.parquet")
    with served(folder) as running:
        yield running


@pytest.fixture(scope="module")
def kernel(server: tuple[str, AuditLines], tmp_path_factory: pytest.TempPathFactory) -> Iterator[AttendedKernel]:
    with kernel_of(server[0], tmp_path_factory.mktemp("home")) as running:
        running.run("least = 3")
        yield running


@pytest.mark.parametrize("shape", SHAPES)
def test_a_query_is_stopped_in_the_cell_and_on_the_server_and_the_next_one_works(
    kernel: AttendedKernel, server: tuple[str, AuditLines], shape: str
) -> None:
    sql = SHAPES[shape]

    found = interrupt(kernel, f"%%sql rows <<\n{sql}")
    again = kernel.run("%sql SELECT 1 AS one")

    check_stopped(found, name=shape)
    assert found.line.startswith("✗ cancelled after ")
    assert ", stopped on the server · query " in found.line
    assert server[1].of(sql.partition(":")[0])["status"] == "incomplete"
    assert again.reply["status"] == "ok"
