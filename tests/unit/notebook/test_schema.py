"""A server's schema: how it is fetched, and the cache of it."""

from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest

from micromegas_jupyter.errors import UnsupportedRequest
from micromegas_jupyter.notebook.completion.schema import (
    FRESH_SECONDS,
    Column,
    SchemaCache,
    ServerSchema,
    fetch_schema,
)
from micromegas_jupyter.notebook.login.session import NotebookSession
from tests.fakes.notebook_world import SETTINGS, FakeClient, FakePersonalProvider, FakeWorld

WAIT_SECONDS = 60.0


@pytest.fixture
def client(world: FakeWorld) -> FakeClient:
    world.script = pa.table({"routine_name": ["abs", "date_bin"]}).to_batches()
    return FakeClient(world, FakePersonalProvider())


def test_a_server_that_lists_no_tables_is_asked_for_its_columns(client: FakeClient, world: FakeWorld) -> None:
    world.tables.failure = UnsupportedRequest("No.")
    rows = {
        "table_name": ["t", "t"],
        "column_name": ["a", "b"],
        "data_type": ["Utf8", "Int64\x1b"],
        "is_nullable": ["YES", "NO"],
    }
    world.script = pa.table(rows).to_batches()

    schema = fetch_schema(client)

    assert schema.tables["t"].columns == (
        Column(name="a", type_text="Utf8"),
        Column(name="b", type_text="Int64\\x1b", is_nullable=False),
    )
    assert schema.functions == ()


@pytest.fixture
def session(session: NotebookSession, world: FakeWorld) -> Iterator[NotebookSession]:
    yield session
    world.tables.may_answer.set()
    session.close()


@pytest.fixture
def cache(session: NotebookSession) -> Iterator[SchemaCache]:
    may_open = session.dependencies.is_wrapped
    cache = SchemaCache(session.connections, clock=session.dependencies.clock, may_open=lambda: not may_open())
    yield cache
    cache.close()


def wait_for(cache: SchemaCache) -> None:
    """Wait until the server has answered, if it is being asked."""
    with cache._lock:
        answered = cache._fetching.get(SETTINGS)
    assert answered is None or answered.wait(WAIT_SECONDS)


@pytest.fixture
def ask(cache: SchemaCache) -> Callable[[], ServerSchema | None]:
    """Look up, and wait for what is asked in the background, if anything is."""

    def ask_and_wait() -> ServerSchema | None:
        cache.look_up(SETTINGS)
        wait_for(cache)
        return cache._known(SETTINGS).schema

    return ask_and_wait


def test_while_a_server_hangs_it_is_asked_once_and_only_the_first_look_waits(
    cache: SchemaCache, world: FakeWorld
) -> None:
    world.tables.may_answer.clear()

    looks = [cache.look_up(SETTINGS, wait_seconds=0.01)]
    # Each of these would take a minute if it waited.
    looks += [cache.look_up(SETTINGS, wait_seconds=WAIT_SECONDS) for _ in range(20)]

    assert looks == [None] * 21
    assert world.tables.was_asked.wait(WAIT_SECONDS)
    assert world.tables.asked_count == 1


def test_what_is_known_is_used_until_it_is_old_and_then_asked_for_in_the_background(
    cache: SchemaCache, world: FakeWorld, ask: Callable[[], ServerSchema | None]
) -> None:
    ask()
    world.clock.advance(FRESH_SECONDS - 10)
    fresh = ask()
    world.clock.advance(20)
    world.tables.schemas = {}
    world.tables.may_answer.clear()
    old = cache.look_up(SETTINGS, wait_seconds=WAIT_SECONDS)
    world.tables.may_answer.set()
    wait_for(cache)

    assert list(fresh.tables) == list(old.tables) == ["log_entries", "measures"]
    assert list(cache._known(SETTINGS).schema.tables) == []
    assert world.tables.asked_count == 2


def test_another_sign_in_never_sees_what_the_one_before_it_was_shown(
    session: NotebookSession, world: FakeWorld, cache: SchemaCache, ask: Callable[[], ServerSchema | None]
) -> None:
    ask()
    world.tables.schemas = {}

    session.connections.put(SETTINGS, FakePersonalProvider())

    assert cache._known(SETTINGS).schema is None
    assert list(ask().tables) == []
