"""A short statement whose expressions repeat each other neither freezes the process nor keeps a planning thread."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.contracts import TableSnapshot
from micromegas_jupyter.engine import DataFusionEngine, EngineSettings
from micromegas_jupyter.errors import StatementRefused
from tests.fakes.fixed_tables import FixedTables
from tests.unit.engine.conftest import Asker
from tests.unit.engine.growing_statements import GROWING, chain, growing

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of the process's own processor time, so that a busy machine is not taken for a thread that holds the others.
_LONGEST_PAUSE_SECONDS = 1.0


@pytest.fixture(scope="module")
def everyone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    path = tmp_path_factory.mktemp("growing") / "t.parquet"
    rows = pa.table({"n": [1, 2], "m": [2, 3], "s": ["a", "b"]})
    pq.write_table(rows, path)
    tables = FixedTables([TableSnapshot(name="t", schema=rows.schema, files=(str(path),))])
    engine = DataFusionEngine(tables, EngineSettings(planning_threads=1))
    yield Asker(engine, tables)
    engine.close()


@pytest.fixture(params=["all rows", "some rows"])
def ask(request: pytest.FixtureRequest, everyone: Asker) -> Asker:
    return everyone if request.param == "all rows" else everyone.seeing({"t": ("n = 1",)})


@contextmanager
def longest_pause() -> Iterator[list[float]]:
    """Give a list that holds, afterwards, the longest computing during which another thread did not get to run."""
    found: list[float] = []
    stopped = threading.Event()

    def beat() -> None:
        longest, last = 0.0, time.process_time()
        while not stopped.wait(0.01):
            now = time.process_time()
            longest, last = max(longest, now - last), now
        found.append(max(longest, time.process_time() - last))

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        stopped.set()
        thread.join(60)


@pytest.mark.parametrize("shape", GROWING)
def test_a_chain_that_grows_with_each_step_is_refused(ask: Asker, shape: str) -> None:
    with pytest.raises(StatementRefused, match="repeats its own expressions"):
        ask.plan(growing(shape, 24))


@pytest.mark.parametrize("shape", ["filter", "filter in each step", "case", "coalesce", "join"])
def test_other_threads_run_while_a_growing_chain_is_planned(ask: Asker, shape: str) -> None:
    with longest_pause() as pause:
        for steps in range(1, 25):
            try:
                ask.plan(growing(shape, steps))
            except StatementRefused:
                break

    assert pause[0] < _LONGEST_PAUSE_SECONDS


def test_a_constant_that_takes_long_to_compute_does_not_hold_other_threads(ask: Asker) -> None:
    with longest_pause() as pause:
        ask.plan("SELECT n FROM t WHERE n = levenshtein(repeat('ab', 12000), repeat('c', 24000))")

    assert pause[0] < _LONGEST_PAUSE_SECONDS


@pytest.mark.parametrize(
    "sql",
    [
        chain("SELECT CASE WHEN x > 1 THEN x + 1 ELSE x END AS x FROM {}", 10) + "SELECT x FROM a10",
        chain("SELECT *, x + y AS z{0} FROM {0}", 20) + "SELECT * FROM a20 WHERE x > 0 AND za7 > 0 ORDER BY za3",
        chain("SELECT x, lag(y) OVER (ORDER BY x) AS y FROM {}", 12) + "SELECT * FROM a12 WHERE x > 0",
        chain("SELECT x, sum(y) / count(y) AS y FROM {} GROUP BY x", 5) + "SELECT * FROM a5 WHERE y > 0",
        chain("SELECT x, y FROM {} WHERE x > 0 AND y IS NOT NULL", 30) + "SELECT count(*) FROM a30",
        chain("SELECT x + x AS x FROM {}", 10) + "SELECT * FROM a10 WHERE x > 1",
        chain("SELECT x, y FROM {} WHERE x IN (SELECT n FROM t)", 5) + "SELECT * FROM a5",
        "SELECT n FROM t WHERE n > (SELECT avg(m) FROM t) AND m IN (SELECT CASE WHEN n > 1 THEN n ELSE m END FROM t)",
    ],
)
def test_an_ordinary_chain_is_planned(ask: Asker, sql: str) -> None:
    ask.rows(sql)
