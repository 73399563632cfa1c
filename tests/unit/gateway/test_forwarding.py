"""What the front itself does with a statement for another engine, while all others wait or in memory that all share."""

import asyncio
import signal
import time
from types import SimpleNamespace
from unittest.mock import AsyncMock

import pytest

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.executors.launcher import Executor
from micromegas_jupyter.executors.pool import RunningStatement
from micromegas_jupyter.executors.protocol import Output, Statement
from micromegas_jupyter.gateway.forwarding import ForwardedStatement, Gateway, is_answered_here
from tests.fakes.fixed_tables import CALLER
from tests.fakes.servers import build_pool


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SHOW TABLES", True),
        ("-- why\n /* so */ describe t", True),
        ("SELECT * FROM information_schema.tables", True),
        ('SELECT * FROM "information_schema".tables', True),
        ('SELECT "it\'s", my_rights()', True),
        ("SELECT max(seconds) FROM running_queries()", True),
        ("SELECT 'information_schema' AS a -- information_schema", False),
        ("SELECT E'a\\' information_schema'", False),
        ('SELECT 1 AS "my information_schema"', False),
        ("SELECT shown, show, x_my_rights FROM t", False),
        ("SELECT 'information_schema", False),
    ],
)
def test_what_the_server_knows_it_is_answered_here(sql, expected):
    assert is_answered_here(sql) is expected


@pytest.mark.parametrize("unit", ["a,", "((", "'' ", "/* ", '"', "e'\\", "--\n"])
def test_the_front_decides_at_once_who_answers(unit):
    began = time.process_time()
    is_answered_here("SELECT show " + unit * (120_000 // len(unit)))

    assert time.process_time() - began < 0.2


def test_statements_that_are_kept_are_counted_with_what_they_were_made_of():
    gateway = Gateway(SimpleNamespace(clock=SYSTEM_CLOCK), SimpleNamespace(engine=None, version=1), max_rows=None)
    for number in range(200):
        statement = Statement(sql=f"SELECT 1 -- {number}{'x' * 100_000}", caller=CALLER)
        answer = {"sql": "SELECT 1", "parameters": "", "hides_rows": False, "is_bound": True, "reads": {}}
        assert gateway.add_rewritten(statement, answer, key=gateway.rewritten_key(statement)).sql == "SELECT 1"

    assert 10 < len(gateway.rewritten) < 100
    assert gateway.rewritten_key(statement) in gateway.rewritten


def test_what_was_rewritten_over_previous_tables_is_not_used_again():
    async def refresh():
        pass

    async def change_tables_while_a_statement_is_rewritten():
        await gateway.list_for_executors()
        key = gateway.rewritten_key(statement)
        tables.version = 2
        await gateway.list_for_executors()
        gateway.add_rewritten(statement, answer, key=key)
        return gateway.rewritten_key(statement)

    pool = SimpleNamespace(clock=SYSTEM_CLOCK, listing=SimpleNamespace(refresh=refresh))
    tables = SimpleNamespace(engine=None, version=1)
    gateway = Gateway(pool, tables, max_rows=None)
    statement = Statement(sql="SELECT * FROM t", caller=CALLER)
    answer = {"sql": "SELECT 1", "parameters": "", "hides_rows": False, "is_bound": True, "reads": {}}

    assert asyncio.run(change_tables_while_a_statement_is_rewritten()) not in gateway.rewritten


class _StoppedAtTheEnd(RunningStatement):
    async def call(self, function, *arguments):
        answer = await super().call(function, *arguments)
        self.used = self.executor
        self.set_stopped(SYSTEM_CLOCK.monotonic(), is_stopped=True)
        return answer


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="without it none is stopped")
def test_an_executor_that_was_stopped_while_it_rewrote_serves_the_next_statement(monkeypatch):
    key = CALLER.issuer, CALLER.subject
    engine = SimpleNamespace(settings=SimpleNamespace(dialect="spark"))
    tables = SimpleNamespace(engine=engine, version=1, refresh=AsyncMock())
    charged = []

    async def scenario():
        pool = build_pool()
        await pool.open()
        try:
            # A slow machine would take it for one that runs long, and end it.
            monkeypatch.setattr(Executor, "renice", lambda _self, _niceness: None)
            monkeypatch.setattr(pool.use, "charge", lambda caller, seconds: charged.append((caller, seconds)))
            gateway = Gateway(pool, tables, max_rows=None)
            async with _StoppedAtTheEnd(pool, key) as running:
                await ForwardedStatement(gateway, running)._rewrite(
                    Statement(sql="SELECT 1", caller=CALLER), with_nulls=False
                )
            was_charged = bool(charged)
            executor = running.used
            pool._idle[:] = [executor]
            async with RunningStatement(pool, key) as running, asyncio.timeout(10):
                await running.run(Statement(sql="SELECT 1", caller=CALLER), output=Output(), write=AsyncMock())
            return was_charged, running.executor is executor
        finally:
            await pool.close()

    assert asyncio.run(scenario()) == (True, True)
