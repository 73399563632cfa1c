import pyarrow as pa
import pytest

from micromegas_jupyter.errors import ServerUnavailable, UnsupportedRequest
from micromegas_jupyter.notebook.completion.schema import Column, Table, fetch_schema
from tests.fakes.notebook_people import FakePersonalProvider
from tests.fakes.notebook_world import FakeClient, FakeWorld


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


def test_what_is_behind_the_scenes_comes_last(client: FakeClient, world: FakeWorld) -> None:
    world.tables.schemas = {name: pa.schema([]) for name in ("__parts", "b", "a")}

    assert list(fetch_schema(client).tables) == ["a", "b", "__parts"]


def test_a_server_that_tells_no_functions_is_fine(client: FakeClient, world: FakeWorld) -> None:
    world.open_failure = ServerUnavailable("No.")

    schema = fetch_schema(client)

    assert (len(schema.tables), schema.functions) == (2, ())


def test_a_server_that_cannot_be_asked_is_an_error(client: FakeClient, world: FakeWorld) -> None:
    world.tables.failure = ServerUnavailable("No.")

    with pytest.raises(ServerUnavailable):
        fetch_schema(client)
