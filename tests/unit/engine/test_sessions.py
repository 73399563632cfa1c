"""Sessions share one memory pool; one is reused when its statement has left nothing in it."""

import os
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from micromegas_jupyter.core.protocols import TableAccess, TableSnapshot
from micromegas_jupyter.errors import InvalidStatement
from tests.fakes.fixed_tables import CALLER, data_files
from tests.unit.engine.conftest import SMALL, Asker, asking

ROWS = pa.table({"id": [1, 2, 3], "owner": ["alice", "bob", "bob"]})
NOBODY = replace(CALLER, subject="nobody", table_access=TableAccess(filters={"others": ()}))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "things.parquet"
    pq.write_table(ROWS, path)
    return path


@pytest.fixture
def ask(file):
    tables = [TableSnapshot(name=name, schema=ROWS.schema, files=data_files(file)) for name in ("things", "others")]
    with asking(tables, **SMALL) as asker:
        yield asker


def kept(ask):
    return len(ask.engine._sessions.free)


@pytest.mark.parametrize("sql", ["SELECT current_user AS u FROM things", "SELECT count(*) FROM my_rights()"])
def test_a_session_with_a_callers_own_functions_is_not_used_again(ask, sql):
    assert ask.rows(sql)

    assert kept(ask) == 0


def test_tables_of_one_caller_are_not_there_for_the_next(ask):
    nobody = Asker(ask.engine, ask.tables, NOBODY)
    listing = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1"
    ask.rows("SELECT * FROM things")
    ask.rows("SHOW TABLES")

    assert kept(ask) == 1
    with pytest.raises(InvalidStatement):
        nobody.rows("SELECT * FROM things")
    assert nobody.rows(listing) == [{"table_name": "others"}]
    assert ask.rows(listing) == [{"table_name": "others"}, {"table_name": "things"}]


def test_a_file_that_was_written_anew_is_read_anew(ask, file):
    sql = "SELECT id FROM things WHERE id > 0 ORDER BY id"
    assert [row["id"] for row in ask.rows(sql)] == [1, 2, 3]
    before = file.stat()

    for first in (4, 7):  # of the same size, and changed at another time
        pq.write_table(ROWS.set_column(0, "id", [[first, first + 1, first + 2]]), file)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + first * 1_000_000))

        assert [row["id"] for row in ask.rows(sql)] == [first, first + 1, first + 2]
    pq.write_table(ROWS.slice(0, 1), file)

    assert [row["id"] for row in ask.rows(sql)] == [1]
    assert kept(ask) == 1


ALICE = replace(CALLER, subject="alice", table_access=TableAccess(filters={"things": ("owner = 'alice'",)}))


def test_rows_that_a_caller_may_not_see_stay_hidden(ask):
    alice = Asker(ask.engine, ask.tables, ALICE)
    sql = "SELECT id FROM things ORDER BY id"

    for _ in range(3):
        assert len(ask.rows(sql)) == 3
        assert alice.rows(sql) == [{"id": 1}]
    assert kept(ask) > 0
