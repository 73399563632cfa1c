"""A server's schema: how it is fetched, and the cache of it."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pyarrow as pa
import pytest

from micromegas_jupyter.errors import ServerUnavailable, UnsupportedRequest
from micromegas_jupyter.notebook.completion.schema import (
    FRESH_SECONDS,
    RETRY_SECONDS,
    Column,
    SchemaCache,
    ServerSchema,
    Table,
    fetch_schema,
)
from micromegas_jupyter.notebook.login.session import NotebookSession
from tests.fakes.notebook_world import SETTINGS, FakeClient, FakePersonalProvider, FakeWorld

WAIT_SECONDS = 60.0


@pytest.fixture
def client(world: FakeWorld) -> FakeClient:
    world.script = pa.table({"routine_name": ["abs", "date_bin"]}).to_batches()
    return FakeClient(world, FakePersonalProvider())


def test_tables_come_with_types_and_remarks_and_functions_by_name(client: FakeClient) -> None:
    schema = fetch_schema(client)

    assert list(schema.tables) == ["log_entries", "measures"]
    assert schema.tables["log_entries"] == Table(
        name="log_entries",
        columns=(
            Column(name="time", type_text="timestamp[ns, UTC]", is_nullable=False),
            Column(name="level", type_text="int32", remarks="How severe."),
            Column(name="msg", type_text="string"),
        ),
        remarks="What programs logged.",
    )
    assert schema.columns_of("measures") == ("time", "value")
    assert schema.columns_of("unknown") == ()
    assert schema.functions == ("abs", "date_bin")


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


def test_a_server_that_could_not_be_asked_is_left_alone_for_a_while(
    world: FakeWorld, ask: Callable[[], ServerSchema | None]
) -> None:
    world.tables.failure = ServerUnavailable("No.")
    failed = [ask(), ask()]
    asked_at_first = world.tables.asked_count
    world.tables.failure = None
    world.clock.advance(RETRY_SECONDS + 1)

    assert failed == [None, None]
    assert asked_at_first == 1
    assert ask() is not None


def test_another_sign_in_never_sees_what_the_one_before_it_was_shown(
    session: NotebookSession, world: FakeWorld, cache: SchemaCache, ask: Callable[[], ServerSchema | None]
) -> None:
    ask()
    world.tables.schemas = {}

    session.connections.put(SETTINGS, FakePersonalProvider())

    assert cache._known(SETTINGS).schema is None
    assert list(ask().tables) == []


def test_an_answer_to_a_sign_in_that_has_ended_is_not_used(
    session: NotebookSession, world: FakeWorld, cache: SchemaCache
) -> None:
    world.tables.may_answer.clear()
    cache.look_up(SETTINGS)
    assert world.tables.was_asked.wait(WAIT_SECONDS)

    session.connections.put(SETTINGS, FakePersonalProvider())
    world.tables.may_answer.set()
    wait_for(cache)

    assert cache._known(SETTINGS).schema is None


def test_a_wrappers_client_is_not_made_behind_the_persons_back(
    cache: SchemaCache, session: NotebookSession, world: FakeWorld
) -> None:
    world.has_wrapper = True

    assert cache.look_up(SETTINGS, wait_seconds=WAIT_SECONDS) is None
    session.connection(SETTINGS)
    assert cache.look_up(SETTINGS, wait_seconds=WAIT_SECONDS) is not None


def test_the_number_of_servers_is_bounded(cache: SchemaCache, session: NotebookSession) -> None:
    asked = [replace(SETTINGS, uri=f"grpc+tls://lake-{number}.example.com:50051") for number in range(10)]
    for settings in asked:
        assert cache.look_up(settings, wait_seconds=WAIT_SECONDS) is not None

    assert sum(cache._known(settings).schema is not None for settings in asked) <= 8
