"""The tables of an engine are listed while statements run, not before each of them."""

import asyncio
from contextlib import asynccontextmanager

import pyarrow as pa
import pytest

from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.gateway import tables as module
from micromegas_jupyter.gateway.tables import EngineTables
from tests.fakes.clock import FakeClock
from tests.fakes.waiting import until

SCHEMA = pa.schema([("n", pa.int64())]).serialize().to_pybytes()
DOWN = Unavailable("The engine does not respond.")


class ListedEngine:
    """Lists `names`, or fails with `failure`; a listing lasts until `may_end` is set."""

    def __init__(self, *names):
        self.names = names
        self.failure = None
        self.begun = 0
        self.has_begun, self.may_end = asyncio.Event(), asyncio.Event()
        self.may_end.set()

    async def list_tables(self):
        self.begun += 1
        found, failure = dict.fromkeys(self.names, SCHEMA), self.failure
        self.has_begun.set()
        await self.may_end.wait()
        if failure is not None:
            raise failure
        return found

    async def close(self):
        pass


class FastClock:
    """Runs a thousand times as fast as the event loop's, as do the pauses between listings."""

    def monotonic(self):
        return 1000 * asyncio.get_running_loop().time()


@pytest.fixture(autouse=True)
def _fast_clock(monkeypatch):
    sleep = asyncio.sleep
    monkeypatch.setattr(module, "SYSTEM_CLOCK", FastClock())
    monkeypatch.setattr(module.asyncio, "sleep", lambda seconds: sleep(seconds / 1000))


@asynccontextmanager
async def listed(*names):
    """Yield an engine and its tables after the first listing."""
    engine = ListedEngine(*names)
    tables = EngineTables(engine)
    await tables.refresh()
    engine.has_begun.clear()
    try:
        yield engine, tables
    finally:
        engine.may_end.set()
        await tables.close()


def run(scenario):
    return asyncio.run(asyncio.wait_for(scenario, 30))


def test_the_first_statement_waits_for_the_first_listing():
    async def scenario():
        async with listed("one") as (_, tables):
            return list(tables.schemas)

    assert run(scenario()) == ["one"]


def test_statements_do_not_wait_while_the_tables_are_listed_again():
    async def scenario():
        async with listed("one") as (engine, tables):
            engine.may_end.clear()
            engine.names = ("one", "two")
            tables._used_at = float("inf")  # a slow machine would take 30 ms without a statement for an idle server
            await engine.has_begun.wait()
            tables._listed_at = float("inf")  # and 30 ms after it a listing that is too old
            await asyncio.wait_for(tables.refresh(), 10)
            during = list(tables.schemas)
            engine.may_end.set()
            await until(lambda: len(tables.schemas) == 2, "the new listing serves")
            return during, list(tables.schemas)

    assert run(scenario()) == (["one"], ["one", "two"])


def test_the_previous_listing_serves_no_longer_than_its_maximum_age(monkeypatch):
    clock = FakeClock()
    monkeypatch.setattr(module, "SYSTEM_CLOCK", clock)

    async def scenario():
        async with listed("one") as (engine, tables):
            engine.failure = DOWN
            listed_at = clock.monotonic()
            while True:
                try:
                    await tables.refresh()
                except Unavailable:
                    return clock.monotonic() - listed_at
                clock.advance(1)
                await asyncio.sleep(1)  # another listing fails meanwhile

    assert run(scenario()) == module._MAX_AGE_SECONDS


def test_each_statement_that_waits_for_a_listing_that_fails_gets_its_own_error():
    async def scenario():
        tables = EngineTables(engine := ListedEngine())
        engine.failure = DOWN
        return await asyncio.gather(*(tables.refresh() for _ in range(40)), return_exceptions=True), engine.begun

    errors, begun = run(scenario())

    assert {type(error) for error in errors} == {Unavailable}
    assert len({id(error) for error in errors}) == 40
    assert begun == 1


def test_a_listing_that_does_not_end_is_given_up(monkeypatch):
    monkeypatch.setattr(module, "_LISTING_SECONDS", 0.01)

    async def scenario():
        tables = EngineTables(engine := ListedEngine("one"))
        engine.may_end.clear()
        with pytest.raises(Unavailable):
            await tables.refresh()
        engine.may_end.set()
        await tables.refresh()
        await tables.close()
        return list(tables.schemas)

    assert run(scenario()) == ["one"]


def test_an_unused_server_stops_listing_and_the_next_statement_waits_for_a_new_listing():
    async def scenario():
        async with listed("one") as (engine, tables):
            await tables._keeping
            begun, engine.names = engine.begun, ("two",)
            await tables.refresh()
            return engine.begun - begun, list(tables.schemas)

    assert run(scenario()) == (1, ["two"])
