"""A lake whose properties are maps, as versions before binary JSON made it, reads like any other and takes rows."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from micromegas_jupyter.core.jsonb import encode
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.maintenance import MaintenanceSettings, run_round
from micromegas_jupyter.telemetry.tables import LOG_ENTRIES, PROCESSES
from tests.fakes.clock import FakeClock
from tests.fakes.telemetry_rows import NOON_NS, log_batch, log_rows, process_state
from tests.unit.engine.conftest import asking

MAP = pa.map_(pa.utf8(), pa.utf8())
OLD_SETS = [[("b", "2"), ("a", "1")], [], [("a", "1"), ("b", "2")]]


def _as_map_lake(batch, definition, **maps):
    """Return rows with the columns that such a lake has in its files."""
    columns = {}
    for field in definition.schema:
        column = batch.column(field.name)
        if field.name in maps:
            columns[field.name] = pa.array(maps[field.name], MAP)
        elif pa.types.is_timestamp(field.type):
            columns[field.name] = column.cast(pa.timestamp("us", "UTC"), safe=False)
        else:
            columns[field.name] = column.dictionary_decode() if pa.types.is_dictionary(field.type) else column
    rows = pa.table(columns)
    return rows.append_column("date", rows[definition.range_columns[0]].cast(pa.date32(), safe=False))


@pytest.fixture
def old_lake(storage):
    for number in range(2):
        rows = _as_map_lake(
            log_batch(range(3 * number, 3 * number + 3)), LOG_ENTRIES,
            properties=OLD_SETS, process_properties=[[("version", "1")]] * 3,
        )  # fmt: skip
        write_deltalake(storage.child_uri("log_entries"), rows, mode="append", partition_by=["date"])
    states = _as_map_lake(process_state("p1", updated=5), PROCESSES, properties=[[("version", "1")]])
    write_deltalake(storage.child_uri("processes"), states, partition_by=["date"])
    return storage


def _typed_batch():
    properties = {"n": 7, "list": [1, None], "text": "x", "none": None}
    return log_rows([{"time": NOON_NS, "msg": "new", "properties": properties}])


@pytest.mark.parametrize("keeps", [False, True], ids=["flat", "dictionaries"])
def test_maps_are_read_as_binary_json(old_lake, keeps):
    with asking(Lake(old_lake)) as ask:
        everything = ask.plan("SELECT * FROM log_entries ORDER BY msg", preserve_dictionary=keeps)
        rows = pa.Table.from_batches(everything.batches(), everything.schema)
        merged = ask.rows("SELECT properties FROM processes")
        counts = ask.rows("SELECT properties, count(*) AS n FROM log_entries GROUP BY properties ORDER BY n")
        joined = ask.rows(
            "SELECT l.properties FROM log_entries l JOIN log_entries r ON l.msg = r.msg AND l.properties = r.properties"
        )

    one, none = encode({"a": "1", "b": "2"}), encode({})
    assert rows["properties"].to_pylist() == [one, none, one] * 2
    assert rows["process_properties"].to_pylist() == [encode({"version": "1"})] * 6
    assert rows.schema.field("properties").type == (
        LOG_ENTRIES.schema.field("properties").type if keeps else pa.binary()
    )
    assert merged == [{"properties": encode({"version": "1"})}]
    assert counts == [{"properties": none, "n": 2}, {"properties": one, "n": 4}]
    assert len(joined) == 6


def test_new_rows_become_maps_in_an_old_table_and_json_text_in_them(old_lake, writer):
    assert writer.append("log_entries", _typed_batch()).result() == 1
    assert writer.append("log_entries", log_batch([9])).result() == 1

    with asking(Lake(old_lake)) as ask:
        (row,) = ask.rows("SELECT properties FROM log_entries WHERE msg = 'new'")
        assert len(ask.rows("SELECT * FROM log_entries")) == 8
    assert row["properties"] == encode({"n": "7", "list": "[1,null]", "text": "x", "none": None})
    assert DeltaTable(old_lake.child_uri("log_entries")).to_pyarrow_table().schema.field("properties").type == MAP


def test_an_old_table_is_maintained_as_before(old_lake, writer):
    for number in range(4):
        writer.append("log_entries", log_batch([10 + number])).result()
        writer.append("processes", process_state("p1", updated=number)).result()
    now = FakeClock(datetime.fromtimestamp(NOON_NS / 1e9, UTC) + timedelta(days=2))

    run_round(old_lake, settings=MaintenanceSettings(min_small_files=2, quiet_seconds=0.0), clock=now)

    assert len(DeltaTable(old_lake.child_uri("log_entries")).file_uris()) == 1
    with asking(Lake(old_lake)) as ask:
        assert len(ask.rows("SELECT properties FROM log_entries")) == 10
        assert ask.rows("SELECT properties FROM processes") == [{"properties": encode({"version": "1"})}]


@pytest.mark.parametrize("is_old", [True, False], ids=["maps", "JSON"])
def test_a_condition_on_rows_may_look_into_properties(storage, writer, request, is_old):
    if is_old:
        request.getfixturevalue("old_lake")
    owners = [{"owner": "ann", "n": 1}, {"owner": "bob", "n": 2}, {"OWNER": "Ann"}, {}, {"owner": "ann", "n": 3}]
    logged = log_rows([{"time": NOON_NS, "msg": str(n), "properties": one} for n, one in enumerate(owners)])
    writer.append("log_entries", logged).result()
    conditions = {"log_entries": "property_get(properties, 'owner') = 'ann'"}

    with asking(Lake(storage), default_conditions=conditions) as ask:
        plain = ask.rows("SELECT msg FROM log_entries ORDER BY msg")
        with_function = ask.rows(
            "SELECT property_get(l.properties, 'n') AS n, p.exe FROM log_entries l LEFT JOIN processes p "
            "USING (process_id) WHERE property_get(l.properties, 'owner') <> 'bob' ORDER BY 1"
        )
        failing = ask.rows("SELECT CAST(property_get(properties, 'n') AS INT) AS n FROM log_entries ORDER BY 1")

    assert [row["msg"] for row in plain] == ["0", "4"]
    assert [row["n"] for row in with_function] == ["1", "3"]
    assert [row["n"] for row in failing] == [1, 3]


def test_hidden_rows_stay_hidden_in_an_old_table(old_lake):
    with asking(Lake(old_lake), default_conditions={"log_entries": "msg <> 'w:0'"}) as ask:
        rows = ask.rows("SELECT msg, properties FROM log_entries WHERE properties IS NOT NULL")
        grouped = ask.rows("SELECT max(properties) AS p FROM log_entries")

    assert sorted(row["msg"] for row in rows) == [f"w:{number}" for number in range(1, 6)]
    assert grouped == [{"p": encode({"a": "1", "b": "2"})}]
