from __future__ import annotations

from datetime import UTC, datetime
from threading import Event

import pyarrow as pa
import pytest

from micromegas_jupyter.errors import ServerUnavailable
from micromegas_jupyter.notebook.completion.schema import Column, Table
from micromegas_jupyter.notebook.magics.table_listing import MAX_OPEN_COUNTS, TableCounter, count_rows
from tests.fakes.notebook_people import FakePersonalProvider
from tests.fakes.notebook_world import FakeClient, FakeWorld

WAIT_SECONDS = 60.0
FIRST = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LAST = datetime(2026, 11, 24, 13, 30, tzinfo=UTC)


def table(name: str, **columns: str) -> Table:
    found = tuple(Column(name=column, type_text=type_text) for column, type_text in columns.items())
    return Table(name=name, columns=found)


LOGS = table("log_entries", insert_time="timestamp[ns, UTC]", time="timestamp[ns, UTC]", level="int32")


@pytest.fixture
def client(world: FakeWorld) -> FakeClient:
    return FakeClient(world, FakePersonalProvider())


def answer(rows: int, first: datetime | None = None, last: datetime | None = None) -> list[pa.RecordBatch]:
    times = [pa.array([moment], pa.timestamp("ns", "UTC")) for moment in (first, last)]
    return pa.table([pa.array([rows]), *times], names=["n", "first", "last"]).to_batches()


def test_rows_and_the_time_they_cover_are_asked_for_in_one_statement(client: FakeClient, world: FakeWorld) -> None:
    world.script = answer(1_842_113, FIRST, LAST)

    line = count_rows(client, LOGS)

    assert line == "1,842,113 rows · time from 2026-11-24 12:00:00 to 2026-11-24 13:30:00 UTC"
    assert [asked["sql"] for asked in world.asked] == ["SELECT count(*) AS n, min(time), max(time) FROM log_entries"]


def test_an_empty_table_has_no_range(client: FakeClient, world: FakeWorld) -> None:
    world.script = answer(0)

    assert count_rows(client, LOGS) == "0 rows"


def test_times_beyond_what_python_has_leave_the_count(client: FakeClient, world: FakeWorld) -> None:
    times = pa.array([2**60], pa.timestamp("us", "UTC"))
    world.script = pa.table([pa.array([7]), times, times], names=["n", "first", "last"]).to_batches()

    assert count_rows(client, LOGS) == "7 rows"


def test_a_table_without_times_is_only_counted_and_odd_names_are_quoted(client: FakeClient, world: FakeWorld) -> None:
    world.script = pa.table({"n": [1]}).to_batches()

    assert count_rows(client, table('Odd "name"', Time="int64")) == "1 row"
    assert world.asked[0]["sql"] == 'SELECT count(*) AS n FROM "Odd ""name"""'


def test_the_counter_tells_the_answer_or_why_there_is_none(client: FakeClient, world: FakeWorld) -> None:
    told: dict[str, str] = {}
    done = Event()

    def tell(name: str, line: str) -> None:
        told[name] = line
        done.set()

    counter = TableCounter(client)
    world.script = answer(3)
    counter.count(LOGS, tell)
    assert done.wait(WAIT_SECONDS)
    done.clear()
    world.open_failure = ServerUnavailable("lake.example.com does not answer.", remedy="")
    counter.count(table("other"), tell)
    assert done.wait(WAIT_SECONDS)

    assert told == {"log_entries": "3 rows", "other": "Not counted: lake.example.com does not answer."}


def test_a_table_is_asked_for_once_at_a_time_and_only_a_few_are_together(client: FakeClient, world: FakeWorld) -> None:
    may_answer = Event()
    world.script = [lambda: may_answer.wait(WAIT_SECONDS), *answer(3)]
    told: list[tuple[str, str]] = []
    all_told = Event()

    def tell(name: str, line: str) -> None:
        told.append((name, line))
        if len(told) == MAX_OPEN_COUNTS + 1:
            all_told.set()

    counter = TableCounter(client)
    for number in range(MAX_OPEN_COUNTS):
        counter.count(table(f"table_{number}"), tell)
        counter.count(table(f"table_{number}"), tell)
    counter.count(table("one_too_many"), tell)
    refused = list(told)
    may_answer.set()
    assert all_told.wait(WAIT_SECONDS)

    assert refused == [("one_too_many", "Other tables are being counted. Close this one and open it again.")]
    assert len(world.asked) == MAX_OPEN_COUNTS
