"""An executor that has served one caller shows nothing of it to the next: their rows are those of a new executor."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.core.protocols import TableAccess
from micromegas_jupyter.errors import MicromegasError
from tests.fakes.fixed_tables import CALLER, FixedTables, write_ledger, write_log_entries
from tests.unit.executors.bench import Bench, opened_bench

if TYPE_CHECKING:
    from collections.abc import Iterator

    from micromegas_jupyter.core.protocols import AuthContext

ROUNDS = 150


def _caller(name: str, **filters: tuple[str, ...]) -> AuthContext:
    return replace(CALLER, subject=name, issuer="https://id.example", table_access=TableAccess(filters=filters))


CALLERS = [
    replace(CALLER, subject="root", is_admin=True),
    _caller("all", log_entries=(), ledger=()),
    _caller("some", log_entries=("level = 4",), ledger=("shown",)),
    _caller("own", log_entries=("exe = 'job' AND level > 3", "msg LIKE 'start%'"), ledger=("secret = current_user()",)),
    _caller("one", ledger=("x = 1",)),
    _caller("none"),
]
STATEMENTS = [
    "SELECT msg, level FROM log_entries ORDER BY time",
    "SELECT count(*) AS n, max(level) AS most FROM log_entries",
    "SELECT id, secret FROM ledger ORDER BY id",
    "SELECT l.id, e.msg FROM ledger AS l JOIN log_entries AS e ON l.x + 3 = e.level ORDER BY l.id, e.msg",
    "SELECT current_user() AS who, is_admin() AS is_admin",
    "SELECT table_name FROM information_schema.tables ORDER BY table_name",
    "SELECT count(DISTINCT secret) AS n FROM ledger WHERE x > 0",
    "SELECT CAST(secret AS INT) AS n FROM ledger ORDER BY id",
    "SELECT * FROM nothing_of_the_kind",
    "SELECT 1 / (x - 5) AS n FROM ledger ORDER BY id",
    "DESCRIBE log_entries",
]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("tables")
    tables = FixedTables([write_log_entries(folder, 2), write_ledger(folder, "ledger", with_hidden=True)])
    with opened_bench(tables, spare_executors=1) as opened:
        yield opened


async def _outcome(bench: Bench, sql: str, caller: AuthContext) -> tuple[object, int]:
    """Return a statement's rows, or its error, and the process that ran it."""
    try:
        found = await bench.run(sql, caller)
    except MicromegasError as error:
        return f"{error.code} {error}", 0
    return found.rows.to_pylist(), found.pid


async def _on_a_new_executor(bench: Bench, sql: str, caller: AuthContext) -> object:
    for executor in list(bench.pool._idle):
        bench.pool._idle.remove(executor)
        bench.pool.discard(executor)
    await bench.settle()
    outcome, _ = await _outcome(bench, sql, caller)
    return outcome


def test_rows_do_not_depend_on_who_was_served_before(bench: Bench) -> None:
    async def expected() -> dict[tuple[int, int], object]:
        return {
            (number, place): await _on_a_new_executor(bench, sql, caller)
            for number, sql in enumerate(STATEMENTS)
            for place, caller in enumerate(CALLERS)
        }

    async def scenario() -> tuple[list[str], set[int]]:
        chance = random.Random(13)
        wanted, wrong, pids = await expected(), [], set()
        for _ in range(ROUNDS):
            number, place = chance.randrange(len(STATEMENTS)), chance.randrange(len(CALLERS))
            if chance.random() < 0.3:
                with_plan = asyncio.ensure_future(bench.plan(STATEMENTS[number], CALLERS[place]))
                await asyncio.wait({with_plan})
                with_plan.exception()
            outcome, pid = await _outcome(bench, STATEMENTS[number], CALLERS[place])
            pids.add(pid)
            if outcome != wanted[number, place]:
                wrong.append(f"{STATEMENTS[number]} of {CALLERS[place].subject}: {outcome}")
        # Otherwise each caller could have seen the rows of all.
        assert len({repr(wanted[0, place]) for place in range(len(CALLERS))}) >= 4
        return wrong, pids - {0}

    wrong, pids = bench.do(scenario())

    assert wrong == []
    assert len(pids) <= 3
