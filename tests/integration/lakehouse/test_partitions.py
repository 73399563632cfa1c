"""The files of tables as SQL lists them, and the functions with which administrators change them."""

import datetime as dt
import time
from contextlib import contextmanager

import pyarrow as pa
import pytest
from micromegas.auth import StaticTokenAuthProvider
from micromegas.flightsql.client import FlightSQLClient as UpstreamClient

from micromegas_jupyter.auth import StaticTokenAuthProvider as Token
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.core.protocols import AuthContext, AuthType, TableAccess
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import InvalidStatement, PermissionDenied, UnsupportedStatement
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.writer import LakeWriter
from tests.fakes.telemetry_rows import NOON, NOON_NS, block_rows, log_batch, process_state, span_rows
from tests.fakes.validator import FakeValidator
from tests.integration.flight_harness import running_server

pytestmark = pytest.mark.integration

DAY = dt.timedelta(days=1)
P1, P2 = ("00000000-0000-4000-8000-00000000000" + digit for digit in "12")
USER_ROWS = pa.table({"time": pa.array([NOON_NS // 1000], pa.timestamp("us", "UTC")), "n": [1]})
TIME = pa.timestamp("ns", "+00:00")


def _context(name):
    filters = {
        "alice": None,
        "bob": None,
        "carol": {"log_entries": ("msg = 'w:1'",), "blocks": ()},
    }[name]
    access = None if filters is None else TableAccess(filters=filters)
    return AuthContext(
        subject=name,
        issuer="https://id.example",
        auth_type=AuthType.OIDC,
        is_admin=name == "alice",
        table_access=access,
    )


def _make_lake(folder):
    storage = Storage(folder)
    writer = LakeWriter(storage, interval_seconds=0)
    for number in range(3):
        writer.append("log_entries", log_batch([number])).result()
    for process_id, begin in ((P1, NOON_NS), (P2, NOON_NS + 86_400 * 10**9)):
        writer.append("otel_spans", span_rows("a", "b", process_id=process_id, begin_ns=begin)).result()
        writer.append("blocks", block_rows("x", process_id=process_id, begin_ns=begin)).result()
    writer.append("processes", process_state(P1, updated=10**9)).result()
    writer.close()
    return storage


@contextmanager
def _server(lake):
    validator = FakeValidator()
    validator.known = {name: _context(name) for name in ("alice", "bob", "carol")}
    with running_server(
        tables=Lake(lake), validator=validator, worker={"lake": lake.uri}, pool={"max_executors": 2}
    ) as running:
        yield running


@contextmanager
def _clients(harness):
    opened = {}

    def connect(name="alice"):
        if name not in opened:
            opened[name] = FlightSQLClient(harness.uri, auth_provider=Token(name))
        return opened[name]

    yield connect
    for one in opened.values():
        one.close()


@pytest.fixture(scope="module")
def kept_harness(tmp_path_factory):
    """A server on a lake that no test changes."""
    with _server(_make_lake(tmp_path_factory.mktemp("kept") / "lake")) as running:
        yield running


@pytest.fixture(scope="module")
def kept(kept_harness):
    with _clients(kept_harness) as connect:
        yield connect


@pytest.fixture
def lake(tmp_path):
    return _make_lake(tmp_path / "lake")


@pytest.fixture
def harness(lake):
    with _server(lake) as running:
        yield running


@pytest.fixture
def client(harness):
    with _clients(harness) as connect:
        yield connect


PARTITIONS = pa.schema(
    [
        pa.field("view_set_name", pa.string(), nullable=False),
        pa.field("view_instance_id", pa.string(), nullable=False),
        pa.field("begin_insert_time", TIME, nullable=False),
        pa.field("end_insert_time", TIME, nullable=False),
        pa.field("min_event_time", TIME),
        pa.field("max_event_time", TIME),
        pa.field("updated", TIME, nullable=False),
        pa.field("file_path", pa.string()),
        pa.field("file_size", pa.int64()),
        pa.field("file_schema_hash", pa.binary(), nullable=False),
        pa.field("source_data_hash", pa.binary(), nullable=False),
        pa.field("num_rows", pa.int64()),
        pa.field("partition_format_version", pa.int32(), nullable=False),
        pa.field("sort_order", pa.list_(pa.string())),
        pa.field("max_sort_key_time", TIME),
    ]
)


def test_partitions_are_the_files_of_the_tables(client, lake):
    client().bulk_ingest("orders", USER_ROWS, mode="create")

    found = client("bob").query_arrow("SELECT * FROM list_partitions() ORDER BY view_set_name, min_event_time")

    assert found.schema == PARTITIONS
    rows = found.to_pylist()
    counts = [(row["view_set_name"], row["num_rows"]) for row in rows]
    expected = [("log_entries", 1)] * 3 + [("orders", 1)] + [("otel_spans", 2)] * 2 + [("processes", 1)]
    assert counts == [("blocks", 1)] * 2 + expected
    spans = [row for row in rows if row["view_set_name"] == "otel_spans"]
    assert spans[0]["min_event_time"] == NOON
    assert spans[0]["max_event_time"] == NOON + dt.timedelta(seconds=1)
    assert spans[1]["begin_insert_time"] == spans[1]["end_insert_time"] == NOON + DAY + dt.timedelta(seconds=1)
    for row in rows:
        content = lake.read(row["file_path"])[0]
        assert row["file_size"] == len(content)
        assert row["updated"].year > 2020
    sets = client("bob").query_arrow("SELECT * FROM list_view_sets()")
    assert sets.column("view_set_name").to_pylist()[0] == "log_entries"
    assert [field.nullable for field in sets.schema] == [False] * 5
    makers = "SELECT count(*) AS n FROM list_view_sets() WHERE has_view_maker AND NOT global_instance_available"
    assert client("bob").query_arrow(makers).to_pylist() == [{"n": 5}]


def test_of_hidden_rows_a_listing_tells_nothing(kept):
    rows = kept("carol").query_arrow("SELECT * FROM list_partitions() ORDER BY view_set_name").to_pylist()

    assert [row["view_set_name"] for row in rows] == ["blocks"] * 2 + ["log_entries"] * 3
    for row in rows[2:]:
        told = {name for name, value in row.items() if value is not None}
        assert told == {
            "view_set_name", "view_instance_id", "begin_insert_time", "end_insert_time", "updated", "file_schema_hash",
            "source_data_hash", "partition_format_version",
        }  # fmt: skip
        assert row["begin_insert_time"] == row["end_insert_time"] == row["updated"]
        assert row["source_data_hash"] == b""
    assert all(row["num_rows"] == 1 for row in rows[:2])


def _texts(client, sql):
    return client.query_arrow(sql).column("msg").to_pylist()


BASE_TABLES = ("blocks", "histograms", "log_entries", "measures", "otel_spans", "processes", "streams")


@pytest.mark.parametrize("table", BASE_TABLES)
def test_retiring_the_partitions_of_a_base_table_deletes_nothing_and_points_to_the_command(kept, kept_harness, table):
    upstream = UpstreamClient(kept_harness.uri, auth_provider=StaticTokenAuthProvider("alice"))
    counts = "SELECT view_set_name, sum(num_rows) AS n FROM list_partitions() GROUP BY 1 ORDER BY 1"
    before = kept().query_arrow(counts)

    with pytest.raises(pa.ArrowNotImplementedError, match=f"micromegas tables delete {table}"):
        upstream.retire_partitions(table, "global", NOON - DAY, NOON + 9 * DAY)
    for instance in ("global", P1):
        with pytest.raises(UnsupportedStatement, match=f"micromegas tables delete {table}"):
            kept().retire_partitions(table, instance, NOON - DAY, NOON + 9 * DAY)

    assert kept().query_arrow(counts) == before


def test_administrators_merge_files(client, harness):
    upstream = UpstreamClient(harness.uri, auth_provider=StaticTokenAuthProvider("alice"))

    upstream.materialize_partitions("log_entries", NOON, NOON + DAY, 3600)

    files = "SELECT count(*) AS n FROM list_partitions() WHERE view_set_name = 'log_entries'"
    assert client().query_arrow(files).to_pylist() == [{"n": 1}]
    again = f"SELECT * FROM regenerate_partitions('log_entries', '{NOON:%F}', '{NOON + DAY:%F}', 60)"
    rows = client().query_arrow(again)
    assert rows.schema == pa.schema(
        [pa.field("time", TIME, nullable=False), pa.field("msg", pa.string(), nullable=False)]
    )
    assert rows.column("msg").to_pylist() == ["log_entries: 0 files were replaced by 0."]
    assert abs(rows.column("time").to_pylist()[0].timestamp() - time.time()) < 600
    range_only = f"  select msg from Materialize_Partitions('log_entries',\n TIMESTAMP '{NOON + DAY:%FT%TZ}', "
    assert _texts(client(), f"{range_only}'{NOON + DAY:%F %T}+00:00', 60) WHERE msg LIKE '%'\n;") == [
        "log_entries: 0 files were replaced by 0."
    ]


def test_log_stats_are_always_current(kept, kept_harness, capsys):
    upstream = UpstreamClient(kept_harness.uri, auth_provider=StaticTokenAuthProvider("alice"))

    for one in (upstream, kept()):
        one.materialize_partitions("log_stats", NOON, NOON + DAY, 3600)
        one.regenerate_partitions("log_stats", NOON, NOON + DAY, 3600)
        one.retire_partitions("log_stats", "global", NOON, NOON + DAY)

    assert capsys.readouterr().out.count("log_stats is always current") == 6


NOTHING = {
    "SELECT time, mgs FROM retire_partitions('log_entries', 'global', '2026-11-24', '2026-11-30')": "mgs",
    "SELECT time, msg FROM retire_partitions('log_entries', 'global', '2026-11-24', (SELECT now()))": "not a time",
    "SELECT time, msg FROM retire_partitions('log_entries', 'global', '2026-11-24', '2026-13-30')": "not a time",
    "SELECT time, msg FROM retire_partitions('log_entries', 'global', '2026-11-24')": "4 constants",
    "SELECT time, msg FROM retire_partitions('images', 'global', '2026-11-24', '2026-11-30')": "No rows are stored",
    "SELECT time, msg FROM materialize_partitions('orders', '2026-11-24', '2026-11-30', 60)": "No rows are stored",
    "SELECT 1 FROM retire_partitions('log_entries', 'global', '2026-11-24', '2026-11-30'), "
    "retire_partitions('log_entries', 'global', '2026-11-24', '2026-11-30') AS again": "twice",
}


def test_what_is_wrong_is_said_before_a_row_is_gone(kept):
    for sql, what in NOTHING.items():
        with pytest.raises(InvalidStatement, match=what):
            kept().query(sql)

    assert kept().query_arrow("SELECT count(*) AS n FROM log_entries").to_pylist() == [{"n": 3}]


ALL_LOGS = "FROM retire_partitions('log_entries', 'global', '2026-11-24', '2026-11-30')"


def test_who_is_no_administrator_is_told_so_and_planning_or_describing_changes_nothing(kept):
    for sql in (
        f"SELECT time, msg {ALL_LOGS}",
        f"SELECT 1 WHERE EXISTS (SELECT 1 {ALL_LOGS})",
        "SELECT retire_partition_by_file('x')",
        "SELECT * FROM materialize_partitions('log_entries', '2026-11-24', '2026-11-30', 60)",
    ):
        with pytest.raises(PermissionDenied, match="Only administrators may call"):
            kept("bob").query(sql)
        with pytest.raises(PermissionDenied, match="Only administrators may call"):
            kept("bob").prepare_statement(sql)
    with pytest.raises(UnsupportedStatement, match="micromegas tables delete"):
        kept().query("SELECT retire_partition_by_file('x')")
    assert kept().prepare_statement(f"SELECT msg {ALL_LOGS}").dataset_schema.names == ["msg"]

    assert kept().query_arrow("SELECT count(*) AS n FROM log_entries").to_pylist() == [{"n": 3}]


def test_views_see_what_was_just_stored(client):
    counted = "SELECT sum(count) AS n FROM log_stats"
    instance = "SELECT count(*) AS n FROM view_instance(concat('log_', 'entries'), 'global')"

    for number in range(3, 6):
        client().bulk_ingest("log_entries", pa.table(log_batch([number])))
        assert client("bob").query_arrow(counted).to_pylist() == [{"n": number + 1}]
        assert client("bob").query_arrow(instance).to_pylist() == [{"n": number + 1}]
    assert "log_stats" in client("bob").list_tables()
