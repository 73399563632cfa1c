"""Operations on tables judge who owns one by the table as it stands."""

import datetime as dt

import pyarrow as pa
import pytest

from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.errors import PermissionDenied, UsageError
from micromegas_jupyter.lake.operations import check_may_replace, run_operation
from micromegas_jupyter.lake.tables import Tables

SCHEMA = pa.schema([("id", pa.int64())])
DROP = {"table": "orders", "required_owner": "alice"}


def test_a_table_that_another_process_dropped_and_created_again_belongs_to_its_new_owner(tmp_path):
    here, there = Tables(Storage(tmp_path)), Tables(Storage(tmp_path))
    here.create("orders", SCHEMA, owner="alice")
    assert here.owner("orders") == "alice"
    there.drop("orders")
    there.create("orders", SCHEMA, owner="bob")

    with pytest.raises(PermissionDenied):
        run_operation(here, "drop", DROP)
    with pytest.raises(PermissionDenied):
        check_may_replace(here, WriteRequest(table="orders", mode=WriteMode.REPLACE, maker="alice"))

    check_may_replace(here, WriteRequest(table="orders", mode=WriteMode.REPLACE, maker="bob"))
    undo = run_operation(here, "drop", {**DROP, "required_owner": "bob"})
    begin, end = (dt.datetime.fromisoformat(undo[name]) for name in ("undo_to", "undo_until"))
    assert end - begin == dt.timedelta(days=1, milliseconds=1)


def test_on_a_table_of_the_data_model_without_rows_there_is_nothing_to_do(tables):
    assert run_operation(tables, "delete", {"table": "measures", "where": "true"}) == {"deleted_rows": 0}
    assert run_operation(tables, "optimize", {"table": "measures"}) == {"removed_files": 0, "added_files": 0}
    with pytest.raises(UsageError):
        run_operation(tables, "optimize", {"table": "other"})


def _restore(tables, to):
    return run_operation(tables, "restore", {"table": "orders", "to": to})


def test_a_restore_of_columns_alone_can_be_undone(tables):
    tables.create("orders", SCHEMA)
    before = dt.datetime.now(dt.UTC).isoformat()
    tables.add_column("orders", pa.field("price", pa.float64()))

    done = _restore(tables, before)

    assert done["version"] == 2
    assert (_restore(tables, before)["version"], "undo_to" in _restore(tables, before)) == (2, False)
    _restore(tables, done["undo_to"])
    assert [one["name"] for one in tables.describe("orders")["columns"]] == ["id", "price"]


def test_a_restore_of_a_dropped_table_to_an_earlier_state_can_be_undone(tables, store, read):
    store("orders", pa.table({"id": [1, 2]}), "create")
    deleted = run_operation(tables, "delete", {"table": "orders", "where": "id = 1"})
    dropped = run_operation(tables, "drop", {"table": "orders"})

    done = _restore(tables, deleted["undo_to"])

    assert (done["was_dropped"], len(read("orders"))) == (True, 2)
    assert (done["undo_to"], done["undo_until"]) == (dropped["undo_to"], dropped["undo_until"])
    _restore(tables, done["undo_to"])
    assert read("orders")["id"].to_pylist() == [2]
