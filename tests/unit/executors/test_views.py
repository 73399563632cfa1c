"""Materialized views: their rows are those of a direct query, whatever happens to their source."""

import datetime as dt
import shutil
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from micromegas_jupyter.core.protocols import AuthContext, AuthType, WriteMode, WriteRequest
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.engine.contract import EngineSettings, StatementRequest, TimeRange
from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
from micromegas_jupyter.errors import MicromegasError, ResourcesExhausted, Unavailable, UnsupportedStatement, UsageError
from micromegas_jupyter.executors.views import check_definition, refresh_view
from micromegas_jupyter.lake.lake import REFRESH, Lake, commit_view
from micromegas_jupyter.lake.maintenance import MaintenanceSettings, optimize, run_round
from micromegas_jupyter.lake.restore import RestoreRequest, restore_table
from micromegas_jupyter.lake.snapshot import _added_files
from micromegas_jupyter.lake.tables import Tables
from micromegas_jupyter.lake.writer import LakeWriter
from micromegas_jupyter.telemetry.view_definitions import VIEW_PROPERTY, parse_view_statement
from tests.fakes.clock import FakeClock
from tests.fakes.delta_tables import delete_rows
from tests.fakes.telemetry_rows import NOON, NOON_NS, log_batch, log_rows

ADMIN = AuthContext(subject="ann", issuer="none", auth_type=AuthType.NONE, is_admin=True)
SETTINGS = EngineSettings()
EXTRACT = "SELECT date_bin(INTERVAL '1 minute', time) AS time_bin, msg, count(*) AS n FROM log_entries GROUP BY 1, 2"
MERGE = "SELECT time_bin, msg, sum(n) AS n FROM {source} GROUP BY 1, 2"


def definition(*, name="per_minute", extract_query=EXTRACT):
    sql = f"""CREATE MATERIALIZED VIEW {name} WITH (extract_query = $${extract_query}$$,
        merge_partitions_query = '{MERGE}',
        count_src_query = 'SELECT count(*) AS count FROM blocks WHERE insert_time BETWEEN {{begin}} AND {{end}}',
        update_group = 1, time_column = 'time_bin')"""
    return parse_view_statement(sql).definition


def later(**delta):
    """Return a clock that is ahead."""
    return FakeClock(NOON + dt.timedelta(**delta))


class Views:
    """A lake with a view, and statements over it."""

    def __init__(self, folder):
        self.storage = Storage(folder)
        self.writer = LakeWriter(self.storage, interval_seconds=0)
        self.tables = Tables(self.storage)
        self.lake = Lake(self.storage)
        self.engine = DataFusionEngine(self, SETTINGS)
        self.sql = None

    def snapshot(self, _sql=None):
        return self.lake.snapshot(self.sql)

    def store(self, *numbers):
        self.writer.append("log_entries", log_batch(list(numbers))).result()

    def store_at(self, minute):
        rows = log_rows([{"time": NOON_NS + minute * 60 * 10**9, "msg": "late"}])
        self.writer.append("log_entries", rows).result()

    def store_table(self, name, columns, *, mode="create"):
        rows = pa.table(columns)
        request = WriteRequest(table=name, mode=WriteMode(mode), may_read=True, is_owner=True)
        write = self.writer.open_write(request, rows.schema)
        for batch in rows.to_batches():
            write.write(batch)
        write.commit()

    def create(self, view=None, *, replaces=False):
        view = view or definition()
        facts = check_definition(self.lake.snapshot(), SETTINGS, view)
        schema = pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(facts["schema"])))
        self.tables.create_view(view, schema, source=facts["source"], replaces=replaces, owner="ann", updated_by="ann")

    def refresh(self, name="per_minute", **options):
        return refresh_view(Storage(self.storage.uri), SETTINGS, name, **options)

    def rows(self, sql, **options):
        self.sql = sql
        planned = self.engine.plan(StatementRequest(sql=sql, **options), ADMIN)
        rows = pa.Table.from_batches(list(planned.batches()), planned.schema).to_pylist()
        return sorted(tuple(row.values()) for row in rows)

    def of_view(self, **options):
        return self.rows("SELECT CAST(time_bin AS TIMESTAMP) AS t, msg, n FROM per_minute", **options)

    def direct(self):
        return self.rows(f"SELECT CAST(time_bin AS TIMESTAMP) AS t, msg, n FROM ({EXTRACT}) AS direct")


@pytest.fixture
def views(tmp_path):
    opened = Views(tmp_path / "lake")
    opened.store(0, 1, 2)
    yield opened
    opened.writer.close()


def test_a_view_is_equal_to_the_direct_query_at_each_step(views):
    views.create()
    assert views.of_view() == views.direct() != []
    views.refresh()
    views.store(1, 7)

    assert views.of_view() == views.direct()
    views.refresh()
    assert views.of_view() == views.direct()
    view = views.lake.view("per_minute")
    assert (view.watermark, len(view.facts.source.files)) == (view.source.version, 0)


def test_rows_that_come_late_are_added(views):
    views.create()
    views.refresh()

    for minute in (-500, 3, -500):
        views.store_at(minute)
        views.refresh()

    assert views.of_view() == views.direct()


def test_compaction_of_the_source_adds_no_rows(views):
    views.create()
    views.refresh()
    views.store(8)

    optimize(views.storage, "log_entries")
    assert views.of_view() == views.direct()
    views.refresh()
    optimize(views.storage, "log_entries")
    views.refresh()

    assert views.of_view() == views.direct()


def test_partial_rows_are_merged_when_there_are_many_files(views):
    views.create()
    for number in range(20):
        views.store(number % 3)
        views.refresh()

    assert len(views.lake.view("per_minute").snapshot.files) < 16
    assert views.of_view() == views.direct()


def test_retention_of_the_source_keeps_the_rows_of_the_view(views):
    views.create()
    views.refresh()
    before = views.direct()
    views.store_at(0)

    run_round(views.storage, settings=MaintenanceSettings(retention_days=1), clock=later(days=3))

    assert views.rows("SELECT count(*) FROM log_entries") == [(0,)]
    assert {row[:2] for row in before} <= {row[:2] for row in views.of_view()}
    assert not views.lake.view("per_minute").facts.is_stale
    assert views.tables.history("log_entries", 1)[0]["operation"] == "RETENTION"


@pytest.mark.parametrize("is_refreshed_before", [True, False])
def test_a_deletion_by_a_user_rebuilds_the_view(views, is_refreshed_before):
    views.create()
    views.refresh()
    if not is_refreshed_before:
        views.store(1)
    views.tables.delete("log_entries", "msg = 'w:1'")

    assert views.of_view() == views.direct()
    assert views.lake.view("per_minute").facts.is_stale
    views.refresh()
    assert views.of_view() == views.direct()
    assert not views.lake.view("per_minute").facts.is_stale


def test_a_restore_of_the_source_rebuilds_the_view(views):
    views.create()
    views.refresh()
    version = views.lake.view("per_minute").source.version
    views.tables.delete("log_entries", "msg = 'w:1'")
    views.refresh()

    restore_table(views.tables, RestoreRequest("log_entries", version, None, dry_run=False))

    assert views.of_view() == views.direct()
    views.refresh()
    assert views.of_view() == views.direct()


def test_two_first_refreshes_count_no_row_twice(views):
    views.create()
    first, second = Lake(views.storage).view("per_minute"), Lake(views.storage).view("per_minute")
    rows = pa.table({"time_bin": [dt.datetime(2026, 1, 1, tzinfo=dt.UTC)], "msg": ["x"], "n": [1]})
    rows = rows.cast(first.table.snapshot.schema)

    stored = [commit_view(views.storage, one, [rows], operation=REFRESH, removed=()) for one in (first, second)]

    assert stored == [True, False]
    assert len(list(views.storage.list("per_minute"))) == len([0, "log entries", "files"])


def test_three_refreshers_at_once_count_each_row_once(views):
    views.create()
    for number in range(4):
        views.store(number)
        with ThreadPoolExecutor(3) as pool:
            stored = [one.result()["is_stored"] for one in [pool.submit(views.refresh) for _ in range(3)]]
        assert any(stored)

    assert views.of_view() == views.direct()


def test_a_replaced_definition_has_no_rows_of_the_one_before(views):
    views.create()
    views.refresh()

    views.create(definition(extract_query=EXTRACT.replace("count(*)", "2 * count(*)")), replaces=True)

    assert [row[2] for row in views.of_view()] == [2, 2, 2]
    views.create(definition(extract_query=EXTRACT.replace("count(*)", "2 * count(*)")), replaces=True)
    views.refresh()
    assert [row[2] for row in views.of_view()] == [2, 2, 2]


def test_rows_in_a_range_of_times_are_rebuilt(views):
    views.create()
    views.refresh()
    views.store(4)
    middle = views.rows("SELECT max(time_bin) FROM per_minute")[0][0].replace(tzinfo=dt.UTC)

    views.refresh(rebuilt=(middle, middle + dt.timedelta(minutes=1)))

    assert views.of_view() == views.direct()
    assert views.lake.view("per_minute").watermark == views.lake.view("per_minute").source.version


def test_a_time_range_is_about_the_time_column_of_the_view(views):
    views.create()
    views.refresh()
    views.store_at(90)
    begin, end = NOON + dt.timedelta(minutes=60), NOON + dt.timedelta(minutes=120)

    assert len(views.of_view(time_range=TimeRange(begin=begin, end=end))) == 1


def test_a_view_that_was_not_refreshed_for_a_day_is_stale_and_rebuilt(views, monkeypatch):
    views.create()
    views.refresh()
    views.store(5)
    monkeypatch.setattr("micromegas_jupyter.lake.snapshot.MAX_LATE_SECONDS", -1)

    assert views.of_view() == views.direct()
    status = run_round(views.storage).status
    assert (status.stale_views, status.views, status.view_sources) == (
        1,
        ("per_minute",),
        {"per_minute": "log_entries"},
    )
    monkeypatch.undo()
    views.refresh()
    assert run_round(views.storage).status.stale_views == 0
    assert views.of_view() == views.direct()


def test_a_view_whose_source_is_gone_fails_alone(views):
    views.store_table("counted", {"time": [NOON], "n": [1]})
    extract = "SELECT time AS time_bin, 'x' AS msg, n FROM counted"
    views.create(definition(name="lost", extract_query=extract))
    views.create()
    views.refresh("lost")
    views.tables.drop("counted")

    with pytest.raises(Unavailable, match="there is no table counted"):
        views.rows("SELECT * FROM lost")
    with pytest.raises(UsageError, match="there is no table counted"):
        views.refresh("lost")
    views.store(7)
    assert views.of_view() == views.direct()
    status = run_round(views.storage).status
    assert [name for name, one in status.tables.items() if one.error] == ["lost"]
    assert status.views == ("per_minute",)

    views.store_table("counted", {"time": [NOON], "n": [5]})
    assert [row[2] for row in views.rows("SELECT * FROM lost")] == [5]


def lose_source(views):
    """Leave a view, with rows and a retention, whose source is gone."""
    views.store_table("counted", {"time": [NOON], "n": [1]})
    views.create(definition(name="lost", extract_query="SELECT time AS time_bin, 'x' AS msg, n FROM counted"))
    views.refresh("lost")
    views.tables.set_retention("lost", 1)
    views.tables.drop("counted")


def test_a_view_whose_source_is_gone_is_maintained_all_the_same(views):
    lose_source(views)

    status = run_round(views.storage, clock=later(days=5)).status

    assert status.done["deleted_rows"] == 1
    assert "there is no table counted" in status.tables["lost"].error


def test_a_view_in_place_of_the_source_of_another_one_is_not_its_source(views):
    lose_source(views)
    views.create(definition(name="counted"))
    views.refresh("counted")
    views.store(1, 7)

    with pytest.raises(Unavailable, match="counted is itself a materialized view"):
        views.rows("SELECT * FROM lost")
    with pytest.raises(MicromegasError, match="itself"):
        views.refresh("lost")
    assert views.rows("SELECT CAST(time_bin AS TIMESTAMP) AS t, msg, n FROM counted") == views.direct()


def test_a_view_whose_column_is_gone_fails_alone(views):
    views.store_table("counted", {"time": [NOON], "n": [1]})
    views.create(definition(name="lost", extract_query="SELECT time AS time_bin, 'x' AS msg, n FROM counted"))
    views.refresh("lost")
    views.store_table("counted", {"time": [NOON], "m": [1]}, mode="replace")

    with pytest.raises(UnsupportedStatement, match="view lost no longer fits its source"):
        views.rows("SELECT * FROM lost")
    with pytest.raises(MicromegasError):
        views.refresh("lost")
    assert views.rows("SELECT table_name FROM information_schema.tables WHERE table_name = 'lost'") == [("lost",)]


def test_a_retention_of_a_view_is_about_its_time_column(views):
    views.create()
    views.refresh()
    views.tables.set_retention("per_minute", 1)

    run_round(views.storage, clock=later(days=30))

    assert views.of_view() == []


def test_the_watermark_outlives_checkpoints_and_the_cleanup_of_the_log(views):
    views.create()
    views.refresh()
    settings = MaintenanceSettings(checkpoint_commits=1)

    for number in range(2):  # the second checkpoint lets the log before the first one go
        run_round(views.storage, settings=settings, clock=later(days=10 + 10 * number))
    (view,) = [one for one in views.lake.snapshot() if one.name == "per_minute"]

    assert not view.materialized.is_stale
    assert Lake(views.storage).view("per_minute").watermark is not None
    assert views.of_view() != []


def test_files_and_log_of_a_source_wait_for_a_view_for_a_day(views):
    views.create()
    views.tables.set_undo_hours("log_entries", 1)
    views.refresh()
    run_round(views.storage)  # which learns of the view
    views.store(9)
    optimize(views.storage, "log_entries")

    clock = FakeClock(dt.datetime.now(dt.UTC) + dt.timedelta(hours=20))
    run_round(views.storage, settings=MaintenanceSettings(checkpoint_commits=1), clock=clock)

    assert views.of_view() == views.direct()
    assert not views.lake.view("per_minute").facts.is_stale


def test_a_damaged_definition_concerns_no_other_table(views):
    views.create()
    views.create(definition(name="other"))
    views.tables._set_properties("per_minute", {VIEW_PROPERTY: "CREATE MATERIALIZED VIEW per_minute WITH (color = 1)"})

    with pytest.raises(Unavailable):
        views.of_view()
    assert views.rows("SELECT sum(n) FROM other") == [(3,)]
    status = run_round(views.storage, settings=MaintenanceSettings(checkpoint_commits=1)).status
    errors = {name: one.error for name, one in status.tables.items() if one.error}
    assert errors == {"per_minute": "The definition of the materialized view per_minute is corrupted."}
    assert views.storage.read("per_minute/_delta_log/_last_checkpoint") is not None
    with pytest.raises(UsageError, match="is corrupted"):
        optimize(views.storage, "per_minute")


def test_a_copy_of_a_lake_has_its_views(views, tmp_path):
    views.create()
    views.refresh()
    views.store(5)
    shutil.copytree(tmp_path / "lake", tmp_path / "copy")
    views.store(6)
    copy = Views(tmp_path / "copy")

    assert copy.lake.view("per_minute").watermark is not None
    assert copy.of_view() == copy.direct() != views.of_view()
    copy.refresh()
    assert copy.of_view() == copy.direct()
    assert not copy.lake.view("per_minute").facts.is_stale
    copy.writer.close()


@pytest.fixture
def two_at_most(monkeypatch):
    monkeypatch.setattr("micromegas_jupyter.lake.tables.MAX_VIEWS", 2)


@pytest.mark.usefixtures("two_at_most")
def test_a_lake_has_so_many_views_at_most_whoever_creates_them(views):
    def create(number):
        other = Views(views.storage.uri)
        try:
            other.create(definition(name=f"view_{number}"))
        except ResourcesExhausted as error:
            return error.what
        finally:
            other.writer.close()

    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(create, range(4))]

    assert (
        sorted(map(str, found)) == ["None"] * 2 + ["There are already 2 materialized views, which is the maximum."] * 2
    )
    (name, another) = [one for one in views.tables.list() if one.startswith("view_")]
    views.create(definition(name=name), replaces=True)
    views.tables.drop_view(another)
    views.create()


@pytest.mark.usefixtures("two_at_most")
def test_a_dropped_view_is_restored_only_if_there_is_room(views):
    for name in ("one", "two"):
        views.create(definition(name=name))
    views.tables.drop_view("one")
    views.create()
    version = RestoreRequest("one", 0, None, dry_run=False)

    with pytest.raises(ResourcesExhausted, match="2 materialized views"):
        restore_table(views.tables, version)
    views.tables.drop_view("two")
    restore_table(views.tables, version)

    assert views.rows("SELECT n FROM one") == views.rows("SELECT n FROM per_minute")


@pytest.mark.parametrize("is_replaced", [True, False])
def test_a_refresh_of_a_view_that_is_dropped_or_replaced_meanwhile_stores_nothing(views, is_replaced):
    views.create()
    view = Lake(views.storage).view("per_minute")
    rows = pa.table({"time_bin": [NOON], "msg": ["x"], "n": [1]}).cast(view.table.snapshot.schema)

    def change():
        yield rows
        if is_replaced:
            views.create(replaces=True)
        else:
            views.tables.drop_view("per_minute")
            views.create()

    assert not commit_view(views.storage, view, change(), operation=REFRESH, removed=())
    assert views.of_view() == views.direct()
    assert Lake(views.storage).view("per_minute").watermark is None


def test_deletion_vectors_of_another_program_make_a_view_stale(views):
    views.create()
    views.refresh()
    delete_rows(views.storage, "log_entries", lambda *_: [0])

    assert views.lake.view("per_minute").facts.is_stale
    assert views.of_view() == views.direct()
    views.refresh()
    assert views.of_view() == views.direct()
    assert len(views.direct()) == 2


@pytest.mark.parametrize(("mode", "is_rebuilt"), [({"delta.columnMapping.mode": "name"}, True), ({}, False)])
def test_a_view_is_rebuilt_if_columns_of_its_source_may_have_been_renamed(mode, is_rebuilt):
    file = {"path": "a.parquet", "dataChange": True}

    added = _added_files([{"metaData": {"configuration": mode}}, {"add": file}])

    assert added == (None if is_rebuilt else [file])
