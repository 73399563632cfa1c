"""A lake in a folder, and what tests do with it."""

import pytest
from deltalake import DeltaTable

from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.lake.tables import Tables
from micromegas_jupyter.lake.writer import LakeWriter


@pytest.fixture
def storage(tmp_path):
    return Storage(tmp_path / "lake")


@pytest.fixture
def tables(storage):
    return Tables(storage)


@pytest.fixture
def writer(storage):
    opened = LakeWriter(storage, interval_seconds=0)
    yield opened
    opened.close()


@pytest.fixture
def store(writer):
    """Stores rows as a caller's upload does, and returns how many."""

    def call(table, rows, mode="append", *, write_id=None, maker=None, most_tables=None):
        request = WriteRequest(
            table=table,
            mode=WriteMode(mode),
            write_id=write_id,
            may_read=True,
            maker=maker,
            most_tables=most_tables,
        )
        write = writer.open_write(request, rows.schema)
        for batch in rows.to_batches():
            write.write(batch)
        return write.commit()

    return call


@pytest.fixture
def read(storage):
    """Reads a table as deltalake does."""

    def call(table):
        return DeltaTable(storage.child_uri(table)).to_pyarrow_table()

    return call
