"""Materialized views over Flight SQL: administrators define them in upstream's DDL, and all read them as tables."""

import sys

import pytest
from micromegas.auth import StaticTokenAuthProvider as Upstream
from micromegas.cli import views as upstream
from micromegas.flightsql.client import FlightSQLClient as UpstreamClient

from micromegas_jupyter.auth import StaticTokenAuthProvider as Token
from micromegas_jupyter.client.flight_client import FlightSQLClient
from micromegas_jupyter.core.protocols import AuthContext, AuthType, TableAccess
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.engine.contract import EngineSettings
from micromegas_jupyter.errors import InvalidStatement, MicromegasError, PermissionDenied, TableExists, UsageError
from micromegas_jupyter.executors import ingest
from micromegas_jupyter.executors.views import refresh_view
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.tables import Tables
from micromegas_jupyter.lake.writer import LakeWriter
from tests.architecture.guide_text import blocks
from tests.fakes.telemetry_rows import log_batch
from tests.fakes.validator import FakeValidator
from tests.fakes.waiting import wait_until
from tests.integration.flight_harness import running_server

pytestmark = pytest.mark.integration

CREATE = """CREATE MATERIALIZED VIEW per_minute WITH (
  extract_query = $$
    SELECT date_bin(INTERVAL '1 minute', time) AS time_bin, msg, count(*) AS n
      FROM log_entries
     WHERE insert_time >= '{begin}' AND insert_time < '{end}'
     GROUP BY 1, 2
  $$,
  count_src_query = $$
    SELECT sum(nb_objects) AS count FROM blocks WHERE insert_time >= '{begin}' AND insert_time < '{end}'
  $$,
  merge_partitions_query = $$
    SELECT time_bin, msg, sum(n) AS n FROM {source} GROUP BY 1, 2
  $$,
  update_group = 4000,
  time_column = 'time_bin'
)"""

NAMES = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan")


def _context(name):
    filters = {
        "bob": {"log_entries": ()},
        "carol": {"log_entries": (), "per_minute": ()},
        "dave": {"*": ()},
        "erin": {"log_entries": ("msg = 'w:1'",), "per_minute": ()},
        "frank": {"*": ("msg = 'w:1'",)},
        "grace": {"log_entries": (), "per_minute": ("msg = 'w:1'",)},
        "heidi": {"per_minute": ()},
        "ivan": {"log_entries": ("target = 'w'",), "per_minute": ()},
    }.get(name)
    return AuthContext(
        subject=name,
        issuer="https://id.example",
        auth_type=AuthType.OIDC,
        is_admin=filters is None,
        table_access=None if filters is None else TableAccess(filters=filters),
    )


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    storage = Storage(tmp_path_factory.mktemp("views") / "lake")
    writer = LakeWriter(storage, interval_seconds=0)
    writer.append("log_entries", log_batch([0, 1, 2])).result()
    writer.close()
    return storage


@pytest.fixture(scope="module")
def harness(storage):
    validator = FakeValidator()
    validator.known = {name: _context(name) for name in NAMES}
    with running_server(
        tables=Lake(storage), validator=validator, worker={"lake": storage.uri}, pool={"max_executors": 2}
    ) as running:
        yield running


@pytest.fixture
def admin(harness):
    with FlightSQLClient(harness.uri, auth_provider=Token("alice")) as client:
        yield client
        client.query_arrow("DROP MATERIALIZED VIEW IF EXISTS per_minute")


def _rows(client, sql):
    return [tuple(row.values()) for row in client.query_arrow(sql).to_pylist()]


def test_administrators_create_replace_and_drop_views(admin):
    assert _rows(admin, CREATE) == [("per_minute", "created")]
    assert _rows(admin, "SELECT msg, n FROM per_minute ORDER BY msg") == [("w:0", 1), ("w:1", 1), ("w:2", 1)]
    with pytest.raises(TableExists):
        admin.query_arrow(CREATE)

    assert _rows(admin, CREATE.replace("CREATE", "CREATE OR REPLACE")) == [("per_minute", "replaced")]
    assert _rows(admin, "DROP MATERIALIZED VIEW per_minute;") == [("per_minute", "dropped")]
    assert _rows(admin, "DROP MATERIALIZED VIEW IF EXISTS per_minute") == [("per_minute", "not_found")]
    with pytest.raises(UsageError):
        admin.query_arrow("DROP MATERIALIZED VIEW per_minute")


def test_the_documented_view_has_the_rows_of_its_extract_query(tmp_path):
    (create,) = (block.text for block in blocks("data-model.md") if "MATERIALIZED VIEW log_counts" in block.text)
    extract = create.split("$$")[1].replace("{begin}", "1970-01-01").replace("{end}", "2200-01-01")
    drop = "DROP MATERIALIZED VIEW IF EXISTS log_counts"
    storage = Storage(tmp_path / "lake")
    writer = LakeWriter(storage, interval_seconds=0)
    validator = FakeValidator()
    validator.known = {"alice": _context("alice")}
    with (
        running_server(tables=Lake(storage), validator=validator, worker={"lake": storage.uri}) as running,
        FlightSQLClient(running.uri, auth_provider=Token("alice")) as admin,
    ):
        statuses = [_rows(admin, sql)[0] for sql in (create, create)]
        counts = []
        for numbers in ([0, 1, 2], [0, 60], [0]):
            writer.append("log_entries", log_batch(numbers)).result()
            found = _rows(admin, "SELECT * FROM log_counts ORDER BY 1, 2, 3")
            assert found == _rows(admin, f"{extract} ORDER BY 1, 2, 3")
            counts.append(sum(row[-1] for row in found))
            refresh_view(storage, EngineSettings(), "log_counts")
        statuses += [_rows(admin, sql)[0] for sql in (drop, drop)]
    writer.close()

    assert counts == [3, 5, 6]
    assert statuses == [("log_counts", status) for status in ("created", "replaced", "dropped", "not_found")]


def test_other_callers_cannot_change_or_list_views(harness, admin):
    admin.query_arrow(CREATE)

    with FlightSQLClient(harness.uri, auth_provider=Token("bob")) as bob:
        for statement in (CREATE, "DROP MATERIALIZED VIEW per_minute", "SELECT * FROM list_view_set_definitions()"):
            with pytest.raises(PermissionDenied):
                bob.query_arrow(statement)


@pytest.mark.parametrize(
    ("name", "count"),
    [("bob", None), ("carol", 3), ("dave", 3), ("erin", 1), ("frank", 1), ("grace", 1), ("ivan", None)],
)
def test_callers_read_the_rows_of_a_view_that_come_from_rows_they_may_read(harness, admin, name, count):
    admin.query_arrow(CREATE)

    with FlightSQLClient(harness.uri, auth_provider=Token(name)) as client:
        if count is None:
            with pytest.raises(InvalidStatement):
                client.query_arrow("SELECT * FROM per_minute")
        else:
            assert _rows(client, "SELECT sum(n) FROM per_minute") == [(count,)]


#: Whatever could show that a view exists.
PROBES = (
    "SELECT * FROM per_minute",
    "SELECT n FROM per_minute WHERE 1 / (n - 1) = 0",
    "SELECT missing FROM per_minute",
    "SELECT * FROM __per_minute__partitions",
    "EXPLAIN SELECT * FROM per_minute",
    "EXPLAIN ANALYZE SELECT * FROM per_minute",
    "DESCRIBE per_minute",
    "SHOW TABLES",
    "SHOW COLUMNS FROM per_minute",
    "SELECT table_name FROM information_schema.tables ORDER BY 1",
    "SELECT table_name, column_name FROM information_schema.columns ORDER BY 1, 2",
    "SELECT table_name, definition FROM information_schema.views ORDER BY 1",
    "SELECT view_set_name FROM list_view_sets() ORDER BY 1",
    "SELECT view_set_name FROM list_partitions() ORDER BY 1",
    "SELECT * FROM list_view_set_definitions()",
    "SELECT * FROM view_instance('per_minute', 'global')",
    "SELECT * FROM table_history('per_minute')",
    "SELECT * FROM table_at('per_minute', 0)",
    "DROP MATERIALIZED VIEW per_minute",
    "SELECT * FROM retire_partitions('per_minute', 'global', '2020-01-01T00:00:00Z', '2030-01-01T00:00:00Z')",
)


def _outcome(run):
    try:
        return str(run())
    except MicromegasError as error:
        return type(error), error.what, error.remedy


@pytest.mark.parametrize("name", ["bob", "heidi", "ivan"])
def test_nothing_shows_a_view_to_callers_who_may_not_read_it(harness, admin, name):
    def outcomes():
        with FlightSQLClient(harness.uri, auth_provider=Token(name)) as client:
            found = {sql: _outcome(lambda sql=sql: client.query_arrow(sql).to_pylist()) for sql in PROBES}
            found["GetTables"] = _outcome(lambda: sorted(client.list_tables()))
            found["GetFlightInfo"] = _outcome(lambda: client.describe_statement("SELECT * FROM per_minute"))
            return found

    without = outcomes()
    admin.query_arrow(CREATE)

    assert outcomes() == without
    assert "log_entries" in without["GetTables"] or name == "heidi"


@pytest.mark.parametrize(
    ("changed", "by"),
    [
        ("FROM log_entries\n", "FROM log_entries JOIN processes USING (process_id)\n"),
        ("FROM log_entries\n", "FROM processes\n"),
        ("FROM log_entries\n", "FROM missing\n"),
        ("GROUP BY 1, 2\n  $$,\n  count", "GROUP BY 1, 2 LIMIT 5\n  $$,\n  count"),
        ("count(*) AS n", "count(*) FILTER (WHERE time < now()) AS n"),
        ("sum(n) AS n", "sum(n) AS other"),
        ("time_column = 'time_bin'", "time_column = 'msg'"),
        ("per_minute", "log_entries"),
        ("per_minute", "log_stats"),
    ],
)
def test_a_definition_that_cannot_work_is_rejected(admin, changed, by):
    with pytest.raises((InvalidStatement, UsageError)):
        admin.query_arrow(CREATE.replace(changed, by))

    assert _rows(admin, "SELECT count(*) FROM list_view_set_definitions()") == [(0,)]


def test_rows_of_a_view_come_from_its_source_alone(admin):
    admin.query_arrow(CREATE)
    rows = admin.query_arrow("SELECT * FROM per_minute")

    with pytest.raises(UsageError):
        admin.bulk_ingest("per_minute", rows, mode="append")
    with pytest.raises(UsageError):
        admin.delete_rows("per_minute", "true")


def test_partition_functions_rebuild_rows_of_a_view(admin):
    admin.query_arrow(CREATE)
    calls = (
        "retire_partitions('per_minute', 'global', '2020-01-01T00:00:00Z', '2030-01-01T00:00:00Z')",
        "materialize_partitions('per_minute', '2020-01-01T00:00:00Z', '2030-01-01T00:00:00Z', 3600)",
        "regenerate_partitions('per_minute', '2020-01-01T00:00:00Z', '2030-01-01T00:00:00Z', 3600)",
    )

    for call in calls:
        ((message,),) = _rows(admin, f"SELECT msg FROM {call}")
        assert message.startswith("per_minute: the rows from 2020-01-01")

    assert _rows(admin, "SELECT sum(n) FROM per_minute") == [(3,)]
    assert _rows(admin, "SELECT sum(num_rows) FROM list_partitions() WHERE view_set_name = 'per_minute'") == [(3,)]


def test_upstreams_command_manages_views_as_code(harness, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(upstream, "make_client", lambda _: UpstreamClient(harness.uri, auth_provider=Upstream("alice")))
    folder = tmp_path / "views"
    folder.mkdir()
    file = folder / "per_minute.sql"
    file.write_text(f"-- Lines per minute.\n{CREATE};\n")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["micromegas-views", *arguments])
        upstream.main()
        return capsys.readouterr().out

    where = ("--dir", str(folder))
    assert "+ create: per_minute" in run("plan", *where, "--no-color")
    assert "per_minute: created" in run("apply", *where, "--auto-approve")
    assert "No changes. 1 unchanged." in run("plan", *where)
    file.write_text(file.read_text().replace("1 minute", "1 hour"))
    assert "per_minute: replaced" in run("apply", *where, "--auto-approve")
    assert "1 hour" in run("show", "per_minute")
    assert run("list", *where).split()[-6:-3] == ["per_minute", "unchanged", "4000"]
    file.write_text(CREATE)
    assert "1 updated" in run("pull", *where)
    assert "1 hour" in file.read_text()
    (folder / "other.sql").write_text(CREATE.replace("per_minute", "other"))
    file.unlink()
    assert "per_minute: dropped" in run("apply", *where, "--auto-approve", "--prune")


@pytest.mark.slow
def test_the_server_refreshes_views_and_reports_stale_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(ingest, "_MAINTENANCE_SECONDS", 0.1)
    monkeypatch.setattr(ingest, "_REFRESH_SECONDS", 0)
    storage = Storage(tmp_path / "lake")
    writer = LakeWriter(storage, interval_seconds=0)
    writer.append("log_entries", log_batch([0, 1, 2])).result()
    validator = FakeValidator()
    validator.known = {"alice": _context("alice")}

    def view():
        return Lake(storage).view("per_minute")

    with (
        running_server(tables=Lake(storage), validator=validator, worker={"lake": storage.uri}) as harness,
        FlightSQLClient(harness.uri, auth_provider=Token("alice")) as client,
    ):
        client.query_arrow(CREATE)
        wait_until(lambda: view().watermark == view().source.version, "the view is refreshed")
        writer.append("log_entries", log_batch([3])).result()
        wait_until(lambda: view().watermark == view().source.version, "the view is refreshed again")
        Tables(storage).delete("log_entries", "msg = 'w:0'")
        wait_until(lambda: not view().facts.is_stale, "the view is rebuilt")
        wait_until(lambda: harness.metric("lake_stale_views") == 0, "no view is stale")
        assert _rows(client, "SELECT sum(n) FROM per_minute") == [(3,)]
    writer.close()
