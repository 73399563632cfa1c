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
