"""A statement sees what was committed before it came in; statements that come in together share one listing."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.core.protocols import TableSnapshot
from micromegas_jupyter.errors import Unavailable
from micromegas_jupyter.executors.pool import Listing
from tests.fakes.fixed_tables import LOG_SCHEMA, FixedTables

if TYPE_CHECKING:
    from collections.abc import Sequence

WAIT_SECONDS = 30.0


def _table(name: str) -> TableSnapshot:
    return TableSnapshot(name=name, schema=LOG_SCHEMA, files=(), range_columns=("time", "time"))


class SlowTables:
    """A source that reads its tables at once and then takes until it is told to go on."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.begun = 0
        self.has_begun = threading.Event()
        self.may_end = threading.Event()
        self.failure: Exception | None = None

    def snapshot(self) -> Sequence[TableSnapshot]:
        self.begun += 1
        found = [_table(name) for name in self.names]
        self.has_begun.set()
        assert self.may_end.wait(WAIT_SECONDS)
        if self.failure is not None:
            raise self.failure
        return found

    async def wait_for_begin(self) -> None:
        assert await asyncio.to_thread(self.has_begun.wait, WAIT_SECONDS)
        self.has_begun.clear()


def test_a_statement_sees_what_was_committed_before_it_came_in() -> None:
    async def scenario() -> tuple[list[str], list[str]]:
        source = SlowTables("old")
        listing = Listing(source)
        first = asyncio.create_task(listing.refresh())
        await source.wait_for_begin()
        source.names = ("old", "new")
        second = asyncio.create_task(listing.refresh())
        await asyncio.sleep(0)
        source.may_end.set()
        await first
        seen_by_first = [table.name for table in listing.tables]
        await second
        return seen_by_first, [table.name for table in listing.tables]

    assert asyncio.run(scenario()) == (["old"], ["old", "new"])


def test_all_that_come_in_during_a_listing_share_the_next_one() -> None:
    async def scenario() -> int:
        source = SlowTables("one")
        listing = Listing(source)
        first = asyncio.create_task(listing.refresh())
        await source.wait_for_begin()
        others = [asyncio.create_task(listing.refresh()) for _ in range(50)]
        await asyncio.sleep(0)
        source.may_end.set()
        await asyncio.gather(first, *others)
        return source.begun

    assert asyncio.run(scenario()) == 2


def test_the_version_changes_with_the_tables_only() -> None:
    async def scenario() -> list[int]:
        source = FixedTables([])
        listing = Listing(source)
        versions = [listing.version]
        for tables in ([], [_table("one")], [_table("one")], []):
            source.tables = tables
            await listing.refresh()
            versions.append(listing.version)
        return versions

    assert asyncio.run(scenario()) == [0, 1, 2, 2, 3]


@pytest.mark.parametrize(
    ("sql", "is_listed"),
    [
        ("SELECT 1", False),
        ("VALUES (1)", False),
        ("SELECT 'x' AS transform", False),
        ("select * from t", True),
        ('SELECT * FROM"t"', True),
        ("TABLE t", True),
        ("SHOW TABLES", True),
        ("DESCRIBE t", True),
        ("EXPLAIN SELECT 1", True),
    ],
)
def test_tables_are_listed_for_statements_that_may_read_some(sql: str, is_listed: bool) -> None:
    async def scenario() -> bool:
        source = SlowTables()
        source.may_end.set()
        listing = Listing(source)
        await listing.refresh()
        await listing.refresh_for(sql)
        return source.begun == 2

    assert asyncio.run(scenario()) is is_listed


def test_the_first_statement_has_the_tables_listed_whatever_it_reads() -> None:
    async def scenario() -> int:
        listing = Listing(FixedTables([_table("one")]))
        await listing.refresh_for("SELECT 1")
        return listing.version

    assert asyncio.run(scenario()) == 1


def test_who_waits_for_storage_that_hangs_can_give_up_alone() -> None:
    async def scenario() -> tuple[bool, bool, int]:
        source = SlowTables("one")
        listing = Listing(source)
        waiting = [asyncio.create_task(listing.refresh()) for _ in range(3)]
        await source.wait_for_begin()
        waiting[0].cancel()
        await asyncio.wait({waiting[0]})
        has_disturbed = any(task.done() for task in waiting[1:])
        source.may_end.set()
        await asyncio.gather(*waiting[1:])
        return waiting[0].cancelled(), has_disturbed, listing.version

    assert asyncio.run(scenario()) == (True, False, 1)


def test_a_failure_is_told_to_all_who_wait_for_it_and_the_next_listing_is_made_anew() -> None:
    async def scenario() -> tuple[list[type], int]:
        source = SlowTables("one")
        source.may_end.set()
        source.failure = Unavailable("The storage does not answer.")
        listing = Listing(source)
        found = await asyncio.gather(*(listing.refresh() for _ in range(3)), return_exceptions=True)
        source.failure = None
        await listing.refresh()
        return [type(one) for one in found], listing.version

    assert asyncio.run(scenario()) == ([Unavailable] * 3, 1)


def test_a_failure_leaves_the_tables_as_they_were() -> None:
    async def scenario() -> tuple[int, list[str]]:
        source = SlowTables("one")
        source.may_end.set()
        listing = Listing(source)
        await listing.refresh()
        source.failure = Unavailable("The storage does not answer.")
        with pytest.raises(Unavailable):
            await listing.refresh()
        return listing.version, [table.name for table in listing.tables]

    assert asyncio.run(scenario()) == (1, ["one"])
