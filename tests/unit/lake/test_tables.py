"""Tables of a lake are made, changed and dropped, by several processes at once."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.engine.workarounds.in_lists import check_null_safe
from micromegas_jupyter.errors import ResourcesExhausted, UsageError
from micromegas_jupyter.lake.maintenance import optimize
from micromegas_jupyter.lake.tables import Tables

SCHEMA = pa.schema([("id", pa.int64()), ("name", pa.utf8())])
ROWS = pa.table({"id": [1, 2, 3], "name": ["a", "b", None]}, schema=SCHEMA)


def test_a_new_table_is_one_of_deltas(tables, storage):
    tables.create("t", SCHEMA, owner="me")

    table = DeltaTable(storage.child_uri("t"))

    assert pa.schema(table.schema().to_arrow()) == SCHEMA
    assert table.version() == 0
    assert table.metadata().configuration["delta.logRetentionDuration"] == "interval 1 day"
    assert (tables.list(), tables.owner("t")) == (("t",), "me")


def test_of_many_that_create_a_table_one_does(storage):
    def create(_):
        try:
            Tables(storage).create("t", SCHEMA)
        except UsageError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(create, range(8)))

    assert sum(outcomes) == 1
    assert DeltaTable(storage.child_uri("t")).version() == 0


@pytest.mark.parametrize(
    "name", ["a/b", "../t", "a.b", "_delta_log", "_micromegas", "Ü", "T", "", "1a", "x" * 300, "log_entries", "blocks"]
)
def test_a_bad_name_is_refused(tables, name):
    with pytest.raises(UsageError):
        tables.create(name, SCHEMA)

    assert tables.list() == ()
    if name != "log_entries":
        with pytest.raises(UsageError):
            tables.drop(name)


def test_a_dropped_table_is_gone_and_its_name_free(tables, store, read, storage):
    store("t", ROWS, "create")

    tables.drop("t")

    assert (tables.list(), tables.find("t")) == ((), None)
    for call in (tables.drop, tables.describe, partial(optimize, storage)):
        with pytest.raises(UsageError):
            call("t")
    store("t", ROWS.select(["id"]), "create")
    assert read("t").column_names == ["id"]


def test_of_many_that_drop_a_table_one_does(tables, storage):
    tables.create("t", SCHEMA)

    def drop(_):
        try:
            Tables(storage).drop("t")
        except UsageError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(drop, range(8)))

    assert sum(outcomes) == 1
    assert tables.list() == ()


def test_rows_that_meet_a_condition_are_deleted(tables, store, read):
    store("t", ROWS, "create")

    assert tables.delete("t", "id = 1 OR name IS NULL").rows == 2
    assert tables.delete("t", "id = 1").rows == 0

    assert read("t").to_pydict() == {"id": [2], "name": ["b"]}


@pytest.mark.parametrize(
    "predicate",
    [
        "", "id =", "nope = 1", "id = 'x'", "1", "id", "id = 1; DROP TABLE t", "id = 1) OR (", "sum(id) > 1",
        "id IN (SELECT id FROM t)", "CAST(name AS INT) = 1", "1 / (id - 1) = 1", "f(id)", "id = 1 -- a" * 2000,
        "1 / 0 = 1", "id = 1 AND 1 / 0 = 1", "id / 0 = 1", "name::INTERVAL = INTERVAL '1 hour'",
    ],
)  # fmt: skip
def test_a_bad_condition_is_refused(tables, store, read, predicate):
    store("t", ROWS, "create")

    with pytest.raises(UsageError):
        tables.delete("t", predicate)

    assert read("t").num_rows == 3


def test_an_error_of_a_condition_names_its_cause(tables, store):
    store("t", ROWS, "create")

    with pytest.raises(UsageError, match="divides by zero") as caught:
        tables.delete("t", "id = 1 AND 1 / 0 = 1")

    assert "NULLIF" in caught.value.remedy


@pytest.mark.parametrize(("predicate", "count"), [("CAST(NULL AS BOOLEAN)", 0), ("1 = 2", 0), ("NULL IS NULL", 3)])
def test_a_condition_without_columns_holds_for_all_rows_or_none(tables, store, read, predicate, count):
    store("t", ROWS, "create")

    assert tables.delete("t", predicate).rows == count
    assert read("t").num_rows == 3 - count


def test_a_condition_that_the_library_makes_true_for_null_is_rejected(storage, store, read):
    store("t", pa.table({"id": [None, 1, 2]}), "create")
    tables = Tables(storage, check_condition=check_null_safe)

    with pytest.raises(UsageError, match="several IN lists"):
        tables.delete("t", "id NOT IN (1, 2) OR id NOT IN (3, 4)")

    assert tables.delete("t", "id NOT IN (1, 2) AND id NOT IN (3, 4)").rows == 0
    assert read("t").num_rows == 3


def test_changes_of_many_at_once_are_all_made(storage, tables, store, read):
    store("t", pa.table({"id": range(8)}), "create")

    with ThreadPoolExecutor(4) as pool:
        deleted = list(pool.map(lambda number: Tables(storage).delete("t", f"id = {number}").rows, range(7)))

    assert deleted == [1] * 7
    assert read("t").column("id").to_pylist() == [7]


def test_a_column_is_added(tables, store, read):
    store("t", ROWS, "create")

    tables.add_column("t", pa.field("more", pa.timestamp("ns", "UTC")))
    store("t", pa.table({"id": [4], "more": pa.array([5_000], pa.timestamp("ns", "UTC"))}))

    assert read("t").sort_by("id").column("more").cast(pa.int64()).to_pylist() == [None, None, None, 5]
    for field in (pa.field("MORE", pa.int8()), pa.field("x", pa.time32("s")), pa.field("x", pa.int8(), nullable=False)):
        with pytest.raises(UsageError):
            tables.add_column("t", field)
    with pytest.raises(UsageError):
        tables.add_column("log_entries", pa.field("x", pa.int8()))


def test_a_table_is_described_with_its_history(tables, store, storage):
    store("t", ROWS, "create", maker="me")
    store("t", ROWS)
    tables.set_retention("t", 30)
    assert optimize(storage, "t") == {"removed_files": 2, "added_files": 1}

    found = tables.describe("t")

    assert [found[name] for name in ("owner", "retention_days", "files", "row_count")] == ["me", 30, 1, 6]
    assert [column["name"] for column in found["columns"]] == SCHEMA.names
    versions = tables.history("t", 10)
    assert [version["version"] for version in versions] == [3, 2, 1, 0]
    assert [versions[2]["operation"], versions[3]["operation"]] == ["WRITE", "CREATE TABLE"]
    tables.set_retention("t", None)
    assert tables.describe("t")["retention_days"] is None


def test_tables_are_partitioned_by_dates_and_whole_numbers(tables, store, read):
    schema = pa.schema([("day", pa.date32()), ("id", pa.int64())])
    tables.create("t", schema, partition_by=["day"])
    rows = pa.table({"day": pa.array([1, 2, None, 1], pa.date32()), "id": [1, 2, 3, 4]})

    store("t", rows)

    assert [tables.describe("t")[name] for name in ("partition_by", "files")] == [["day"], 3]
    assert read("t").select(["day", "id"]).sort_by("id") == rows
    for by in (["nope"], ["day", "day"], ["day", "id"]):
        with pytest.raises(UsageError):
            tables.create("u", schema, partition_by=by)
    with pytest.raises(UsageError):
        tables.create("u", SCHEMA, partition_by=["name"])


def test_a_caller_creates_no_more_tables_than_allowed(store):
    for name in ("a", "b"):
        store(name, ROWS, "create", maker="me", most_tables=2)

    with pytest.raises(ResourcesExhausted):
        store("c", ROWS, "create", maker="me", most_tables=2)
    store("c", ROWS, "create", maker="you", most_tables=2)


def test_a_table_with_rules_of_another_writer_is_not_written(tables, store, storage):
    write_deltalake(storage.child_uri("t"), ROWS)
    DeltaTable(storage.child_uri("t")).alter.add_constraint({"positive": "id > 0"})

    with pytest.raises(UsageError):
        store("t", ROWS)
    with pytest.raises(UsageError):
        tables.delete("t", "id = 1")


def test_all_that_is_written_is_for_this_account_only(store, tmp_path):
    store("t", ROWS, "create")
    store("t", ROWS)

    found = [path for path in (tmp_path / "lake").rglob("*") if path.is_file() or path.is_dir()]

    assert {path.stat().st_mode & 0o777 for path in found if path.is_dir()} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in found if path.is_file()} == {0o600}
    assert Path(tmp_path / "lake" / "t" / "_delta_log").is_dir()


def test_of_two_variables_for_one_setting_the_one_of_the_sdks_counts():
    region = {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "us-east-1"}
    endpoint = {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://b"}

    options = Storage("s3://bucket/lake", environ={**region, **endpoint}).options

    assert (options["aws_region"], options["aws_endpoint_url"]) == ("eu-west-1", "http://b")
