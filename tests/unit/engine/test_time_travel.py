"""`table_at` and `table_history`: earlier versions of tables, and what a caller sees of them."""

import datetime as dt
import itertools
from contextlib import contextmanager
from dataclasses import replace

import pyarrow as pa
import pytest

from micromegas_jupyter.access.write_rights import owner_of
from micromegas_jupyter.core.protocols import TableAccess, WriteAccess, WriteMode, WriteRequest
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.engine.contract import EngineSettings
from micromegas_jupyter.engine.datafusion_engine import DataFusionEngine
from micromegas_jupyter.errors import (
    InvalidStatement,
    MicromegasError,
    PermissionDenied,
    StatementRefused,
    UnsupportedStatement,
)
from micromegas_jupyter.executors.worker import LakeFiles
from micromegas_jupyter.lake import delta_log
from micromegas_jupyter.lake.lake import Lake
from micromegas_jupyter.lake.tables import Tables
from micromegas_jupyter.lake.writer import LakeWriter
from tests.fakes.delta_tables import delete_rows, write_mapped
from tests.fakes.fixed_tables import CALLER
from tests.unit.engine.conftest import Asker

OWNER = replace(CALLER, subject="owner", write_access=WriteAccess(creates=frozenset({"t", "u"})))
ADMIN = replace(CALLER, subject="root", is_admin=True)
READER = replace(CALLER, subject="reader")
FILTERED = replace(CALLER, subject="eve", table_access=TableAccess(filters={"t": ("team = 'red'",)}))
# The decoder cannot evaluate it, so only the barrier keeps what the caller wrote from being evaluated first.
TAGGED = replace(FILTERED, table_access=TableAccess(filters={"t": ("tags[1] = 'red'",)}))
OTHERS = replace(CALLER, subject="bob", table_access=TableAccess(filters={"u": ()}))
ROWS = pa.table({"id": [1, 2, 3, 4], "team": ["red", "blue", "red", "blue"]})
MORE = pa.table({"id": [5, 6], "team": ["red", "blue"]})
AT_0 = "SELECT id FROM table_at('t', 0) ORDER BY id"


class World:
    """A lake with a writer, and an engine over it."""

    def __init__(self, folder):
        self.storage = Storage(folder / "lake")
        self.tables = Tables(self.storage)
        self.writer = LakeWriter(self.storage, interval_seconds=0)
        self.engine = DataFusionEngine(Lake(self.storage), EngineSettings(), files=LakeFiles(self.storage.uri))

    def store(self, rows, mode="append", table="t", caller=OWNER):
        request = WriteRequest(table=table, mode=WriteMode(mode), maker=owner_of(caller), may_read=True)
        write = self.writer.open_write(request, rows.schema)
        for batch in rows.to_batches():
            write.write(batch)
        write.commit()

    def ask(self, sql, caller=OWNER, **options):
        return Asker(self.engine, None, caller).rows(sql, **options)

    def ids(self, sql=AT_0, caller=OWNER, **options):
        return [row["id"] for row in self.ask(sql, caller, **options)]

    def committed_at(self, version):
        return delta_log.committed_at(self.storage, "t", version)


@contextmanager
def world(folder):
    made = World(folder)
    try:
        yield made
    finally:
        made.engine.close()
        made.writer.close()


@pytest.fixture
def lake(tmp_path):
    """A table with four rows, of which two were deleted and two added."""
    with world(tmp_path) as made:
        made.store(ROWS, "create")
        made.tables.delete("t", "id > 2")
        made.store(MORE)
        yield made


def test_each_version_is_read_by_number_and_by_time(lake):
    assert [lake.ids(f"SELECT id FROM table_at('t', {version}) ORDER BY id") for version in range(3)] == [
        [1, 2, 3, 4],
        [1, 2],
        [1, 2, 5, 6],
    ]
    begin, deleted = lake.committed_at(0), lake.committed_at(1)
    before = deleted - dt.timedelta(milliseconds=1)
    for time in (f"'{before.isoformat()}'", f"TIMESTAMP '{before.isoformat()}'", f"TIMESTAMP '{before:%F %T.%f}'"):
        assert lake.ids(AT_0.replace("0)", f"{time})")) == ([1, 2, 3, 4] if before >= begin else [])
    assert lake.ids(AT_0.replace("0)", "now())")) == [1, 2, 5, 6]
    assert lake.ids(AT_0.replace("0)", "'0')")) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id FROM table_at('t', 1 - 1) x ORDER BY x.id",
        "WITH c AS (SELECT * FROM table_at('t', 0)) SELECT id FROM c ORDER BY id",
        "SELECT p.id FROM t RIGHT JOIN table_at('t', 0) p ON t.id = p.id ORDER BY p.id",
        "SELECT id FROM (SELECT id, count(*) FROM table_at('t', 0) GROUP BY id) ORDER BY id",
        "SELECT id FROM table_at('t', 0) EXCEPT SELECT id FROM table_at('t', 1) WHERE id > 2 ORDER BY id",
        "SELECT id FROM TABLE_AT ( 't' || '' , 0 ) /* ' */ ORDER BY id",
    ],
)
def test_a_version_is_a_table_like_any_other(lake, sql):
    assert lake.ids(sql) == [1, 2, 3, 4]


def test_arguments_are_parameters(lake):
    values = pa.RecordBatch.from_pylist([{"0": "t", "1": 0}])
    assert lake.ids("SELECT id FROM table_at(?, ?) ORDER BY id", parameters=values) == [1, 2, 3, 4]
    planned = Asker(lake.engine, None, OWNER).plan("SELECT id FROM table_at('t', ?)")
    assert planned.schema.names == ["id"]
    with pytest.raises(PermissionDenied):
        Asker(lake.engine, None, READER).plan("SELECT id FROM table_at('t', ?)")


def test_owners_and_administrators_travel_and_others_only_if_the_table_allows_it(lake):
    assert lake.ids(caller=ADMIN) == [1, 2, 3, 4]
    for caller, sql in itertools.product(
        (READER, FILTERED), (AT_0, f"EXPLAIN {AT_0}", "SELECT * FROM table_history('t')")
    ):
        with pytest.raises(PermissionDenied) as denied:
            lake.ask(sql, caller)
        assert denied.value.reason == "time_travel_not_allowed"

    lake.tables.set_time_travel("t", "readers")

    assert lake.ids(caller=READER) == [1, 2, 3, 4]
    assert lake.ids(caller=FILTERED) == [1, 3]
    lake.tables.set_time_travel("t", "owners")
    with pytest.raises(PermissionDenied):
        lake.ids(caller=READER)


@pytest.mark.parametrize("sql", ["SELECT * FROM table_at('{}', 0)", "EXPLAIN SELECT * FROM table_history('{}')"])
def test_a_table_that_the_caller_may_not_see_is_like_none(lake, sql):
    lake.tables.set_time_travel("t", "readers")
    lake.store(ROWS, "create", table="u")

    errors = []
    for name in ("t", "z"):
        with pytest.raises(MicromegasError) as refused:
            lake.ask(sql.format(name), OTHERS)
        errors.append((type(refused.value), str(refused.value).replace(f" {name}.", " z."), refused.value.remedy))

    assert errors[0] == errors[1]


LEAKS = [
    "SELECT * FROM table_at('t', 0) ORDER BY 1",
    "SELECT count(*), min(id), max(id) FROM table_at('t', 0)",
    "SELECT p.id FROM table_at('t', 0) AS p WHERE 1 / (CASE WHEN p.team = 'blue' THEN 0 ELSE 1 END) = 1 ORDER BY 1",
    "WITH t AS (SELECT * FROM table_at('t', 0)) SELECT CAST(CASE team WHEN 'blue' THEN 'x' ELSE '1' END AS INT) FROM t",
    "SELECT (SELECT max(id) FROM table_at('t', 0)) AS n",
    "SELECT a.id FROM table_at('t', 0) a LEFT JOIN table_at('t', 2) b ON a.id = b.id ORDER BY 1",
    "SELECT \"table_at_1\".id FROM table_at('t', 0) ORDER BY 1",
    "SELECT id FROM table_at('t', 0) ORDER BY id DESC LIMIT 1",
    "SELECT approx_distinct(id), string_agg(team) FROM table_at('t', 0)",
    "SELECT id FROM table_at('t', 0) WHERE 1 / (id - 7) <> 5 ORDER BY 1",
    "EXPLAIN SELECT id FROM table_at('t', 0)",
    "EXPLAIN ANALYZE SELECT id FROM table_at('t', 0)",
]


def _tagged(rows):
    return rows.append_column("tags", pa.array([[team] for team in rows["team"].to_pylist()]))


@pytest.mark.parametrize("is_deleted", [False, True])
@pytest.mark.parametrize("sql", LEAKS)
def test_hidden_and_deleted_rows_of_a_version_change_nothing_that_a_caller_learns(tmp_path, sql, is_deleted):
    """Two worlds differ in rows that a filter hides, or that vectors had deleted by then: results are the same."""
    outcomes = []
    for number, hidden in enumerate(([7, 8], [70, 80, 90, 100])):
        (folder := tmp_path / str(number)).mkdir()
        with world(folder) as one:
            team = ("blue", "green")[number]  # what fails on hidden rows fails on those of one world
            made = pa.table({"id": [1, *hidden, 3], "team": ["red", *[team] * len(hidden), "red"]})
            one.store(_tagged(made), "create")
            one.store(_tagged(MORE))
            one.tables.set_time_travel("t", "readers")
            if is_deleted:
                delete_rows(one.storage, "t", lambda _path, rows: range(1, rows - 1) if rows > 2 else [])
            asked, caller = (sql.replace(" 0)", " 3)"), READER) if is_deleted else (sql, TAGGED)
            try:
                outcomes.append(one.ask(asked, caller))
            except MicromegasError as error:
                outcomes.append((type(error), str(error)))

    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("mode", ["none", "name", "id"])
def test_a_version_has_its_vectors_and_names_of_columns(tmp_path, mode):
    rows = pa.table({"a": [1, 2, 3], "b": ["1", "x", "3"]})
    with world(tmp_path) as lake:
        if mode == "none":
            lake.store(rows, "create")
        else:
            write_mapped(lake.storage, "t", [rows], mode=mode, physical={"a": "b", "b": "a"})
        delete_rows(lake.storage, "t", lambda _path, _rows: [1])
        delete_rows(lake.storage, "t", lambda _path, _rows: [0, 1])

        def found(version):
            return lake.ask(f"SELECT a, CAST(b AS BIGINT) AS b FROM table_at('t', {version})", ADMIN)

        assert found(1) == [{"a": 1, "b": 1}, {"a": 3, "b": 3}]
        assert found(2) == [{"a": 3, "b": 3}]
        with pytest.raises(MicromegasError):
            found(0)


def test_a_filter_that_does_not_fit_the_columns_of_then_rejects_the_version(lake):
    lake.store(pa.table({"id": [1, 2], "group": ["red", "blue"]}), "replace")
    lake.tables.set_time_travel("t", "readers")
    caller = replace(FILTERED, table_access=TableAccess(filters={"t": ("\"group\" = 'red'",)}))

    assert lake.ids("SELECT id FROM table_at('t', 3)", caller) == [1]
    with pytest.raises(UnsupportedStatement, match="has different columns"):
        lake.ids(caller=caller)


def test_a_filter_with_a_far_time_holds_on_a_version(tmp_path):
    days = pa.array([dt.datetime(2026, 11, 1, tzinfo=dt.UTC), None], pa.timestamp("us", "UTC"))
    with world(tmp_path) as lake:
        lake.store(pa.table({"id": [1, 2], "time": days}), "create")
        lake.tables.set_time_travel("t", "readers")
        access = TableAccess(filters={"t": ("time < '9999-12-31'",)})

        assert lake.ids(caller=replace(READER, table_access=access)) == [1]


@pytest.mark.parametrize(
    ("call", "kind", "what"),
    [
        ("table_at('t', 3)", InvalidStatement, "has no version 3"),
        ("table_at('t', '2020-01-01')", InvalidStatement, "no version as early as 2020-01-01T00:00:00.000Z"),
        ("table_at('t', 'soon')", InvalidStatement, "neither a version nor a time"),
        ("table_at('t', -1)", InvalidStatement, "neither a version nor a time"),
        ("table_at('t', 1.5)", InvalidStatement, "neither a version nor a time"),
        ("table_at('t', '0001-01-01T00:00+05:00')", InvalidStatement, "neither a version nor a time"),
        ("table_at('t', to_timestamp_seconds(99999999999999))", InvalidStatement, "not a constant"),
        ("table_at('t', arrow_cast(2147483647, 'Date32'))", InvalidStatement, "not a constant"),
        ("table_at('t', NULL)", InvalidStatement, "null"),
        ("table_at('t')", InvalidStatement, "takes a table and a version or time"),
        ("table_at('t', (SELECT 1))", InvalidStatement, "not a constant"),
        ("table_at(t, 0)", InvalidStatement, "not a constant"),
        ("table_at('log_stats', 0)", InvalidStatement, "is a view"),
        ("table_history('t', 0)", InvalidStatement, "takes a table"),
        ("table_history('T')", InvalidStatement, "no table named T"),
    ],
)
def test_a_wrong_call_is_rejected(lake, call, kind, what):
    with pytest.raises(kind, match=what):
        lake.ask(f"SELECT * FROM {call}", ADMIN)


def test_a_version_without_its_files_or_log_entries_names_what_was_removed(lake):
    add = delta_log.read_state(lake.storage, "t", 0).files
    lake.storage.delete(f"t/{next(iter(add))[0]}")

    with pytest.raises(InvalidStatement, match=r"files \(.*parquet\) were removed"):
        lake.ids()
    readable = {row["version"]: row["is_readable"] for row in lake.ask("SELECT * FROM table_history('t')")}
    assert readable == {0: False, 1: True, 2: True}
    delta_log.write_checkpoint(lake.storage, "t", delta_log.open_delta(lake.storage, "t"))
    for version in (0, 1):
        lake.storage.delete(f"t/_delta_log/{version:020}.json")
    with pytest.raises(InvalidStatement, match="log entries were removed") as refused:
        lake.ids(AT_0.replace("0)", "1)"))
    assert "version is 2" in refused.value.remedy
    assert lake.ids(AT_0.replace("0)", "2)")) == [1, 2, 5, 6]


def test_the_history_has_what_each_commit_did_and_no_counts_of_hidden_rows(lake):
    lake.tables.set_time_travel("t", "readers")
    sql = "SELECT version, operation, files_added, files_removed, rows_added, rows_removed FROM table_history('t')"

    rows = [tuple(row.values()) for row in lake.ask(f"{sql} ORDER BY version")]

    assert rows == [
        (0, "CREATE TABLE", 1, 0, 4, 0),
        (1, "DELETE", 1, 1, 2, 4),
        (2, "WRITE", 1, 0, 2, 0),
        (3, "SET TBLPROPERTIES", 0, 0, 0, 0),
    ]
    assert {tuple(row.values())[2:] for row in lake.ask(sql, FILTERED)} == {(None,) * 4}
    times = [row["time"] for row in lake.ask("SELECT time FROM table_history('t')")]
    assert times == sorted(times, reverse=True)


def test_what_retention_deleted_does_not_come_back(tmp_path):
    days = [dt.datetime(2026, 11, day, 12, tzinfo=dt.UTC) for day in (1, 2, 3)]
    with world(tmp_path) as lake:
        lake.store(pa.table({"id": [1, 2, 3, 4], "time": pa.array([*days, None], pa.timestamp("us", "UTC"))}), "create")
        lake.tables.delete("t", "time < '2026-11-02T00:00:00Z'", expired_before=dt.date(2026, 11, 2))
        lake.tables.delete("t", "id = 2")

        assert lake.ids() == [2, 3, 4]
        assert lake.ids("SELECT id FROM table_at('t', 0) WHERE 1 / (id - 1) <> 5 ORDER BY 1") == [2, 3, 4]
        assert Asker(lake.engine, None, OWNER).plan(AT_0).reads == {"t": ("id",)}
        assert lake.ask(f"EXPLAIN {AT_0}")[0]["plan_type"] == "logical_plan"
        with pytest.raises(StatementRefused, match="plan aren't shown because one of its tables contains deleted rows"):
            lake.ask(f"EXPLAIN ANALYZE {AT_0}")


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.timestamp("us", "UTC")])
def test_rows_past_the_retention_do_not_come_back_whoever_deleted_them(tmp_path, kind):
    now = dt.datetime.now(dt.UTC)
    times = [now - dt.timedelta(days=10), now, None]
    with world(tmp_path) as lake:
        lake.store(pa.table({"id": [1, 2, 3], "time": pa.array(times, pa.timestamp("us", "UTC")).cast(kind)}), "create")
        lake.tables.delete("t", "id < 3")
        assert lake.ids() == [1, 2, 3]

        lake.tables.set_retention("t", 5)

        assert lake.ids() == [2, 3]


def test_a_table_with_the_name_of_a_stand_in_is_another_one(lake):
    lake.store(pa.table({"id": [9]}), "create", table="table_at_1")

    assert lake.ids() == [1, 2, 3, 4]
    assert lake.ids("SELECT a.id FROM table_at('t', 1) a, table_at_1 ORDER BY 1") == [1, 2]


@pytest.mark.parametrize("more", ["", ", table_at('t', 0)"])
def test_the_tables_of_a_lake_are_listed_with_views_that_call_functions(lake, more):
    found = {row["table_name"] for row in lake.ask(f"SELECT table_name FROM information_schema.tables{more}", ADMIN)}

    assert {"t", "counter_increases", "histogram_increases"} <= found


def test_the_reads_name_the_table(lake):
    asker = Asker(lake.engine, None, OWNER)

    assert asker.plan(AT_0).reads == {"t": ("id",)}
    assert [one.name for one in asker.plan(f"EXPLAIN {AT_0}").explained] == ["t"]
    assert asker.plan("SELECT * FROM table_history('t')").reads == {"t": ()}
    assert asker.plan("SELECT 1 FROM table_history('t')").reads_tables


def test_without_a_lake_there_are_no_earlier_versions(ask):
    for sql in ("SELECT * FROM table_at('log_entries', 0)", "SELECT * FROM table_history('log_entries')"):
        with pytest.raises(UnsupportedStatement, match="requires a lake"):
            ask.rows(sql)
