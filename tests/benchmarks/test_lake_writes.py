"""How many durable writes a lake takes, and how quickly it takes large ones; printed, never judged."""

import threading
import time
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from micromegas_jupyter.core.protocols import WriteMode, WriteRequest
from micromegas_jupyter.core.storage import Storage
from micromegas_jupyter.lake.tables import Tables
from micromegas_jupyter.lake.writer import LakeWriter

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SECONDS = 8
SMALL_APPENDS = 10_000
BULK_ROWS = 10_000_000


def make_rows(count, start=0):
    """Return rows with a time, numbers and a text."""
    numbers = np.arange(start, start + count)
    return pa.table(
        {
            "time": pa.array(1_700_000_000_000_000 + numbers * 1000, pa.timestamp("us", "UTC")),
            "id": numbers,
            "amount": numbers / 3,
            "name": pa.array([f"name-{number % 5000}" for number in range(5000)]).take(pa.array(numbers % 5000)),
        }
    )


@pytest.fixture
def storage(tmp_path):
    return Storage(tmp_path / "lake")


@pytest.mark.parametrize("has_ids", [False, True])
@pytest.mark.parametrize("callers", [1, 8, 64])
def test_acknowledgements(storage, say, callers, has_ids):
    batch = make_rows(100)
    Tables(storage).create("events", batch.schema)
    writer, took = LakeWriter(storage), []
    end = time.perf_counter() + SECONDS

    def call():
        while (start := time.perf_counter()) < end:
            writer.append("events", batch, write_id=uuid.uuid4().hex if has_ids else None).result()
            took.append(time.perf_counter() - start)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    table = DeltaTable(storage.child_uri("events"))
    assert table.count() == 100 * len(took)
    middle, late = np.percentile(took, [50, 99]) * 1000
    say(
        f"{callers} callers{' with ids' * has_ids}: {len(took) / SECONDS:,.0f} durable writes/s of 100 rows, "
        f"{middle:.0f}/{late:.0f} ms (p50/p99), {table.version() / SECONDS:.0f} commits/s"
    )


def test_small_appends(storage, say):
    batch = make_rows(10)
    Tables(storage).create("events", batch.schema)
    writer = LakeWriter(storage)
    start = time.perf_counter()
    for done in [writer.append("events", batch) for _ in range(SMALL_APPENDS)]:
        done.result()
    seconds = time.perf_counter() - start
    writer.close()
    table = DeltaTable(storage.child_uri("events"))
    assert table.count() == 10 * SMALL_APPENDS
    say(f"{SMALL_APPENDS:,} small appends at once: {seconds:.1f} s, {table.version()} commits")


def test_bulk(storage, tmp_path, say):
    rows = make_rows(BULK_ROWS)
    batches = rows.to_batches(max_chunksize=64 * 1024)
    start = time.perf_counter()
    with pq.ParquetWriter(tmp_path / "plain.parquet", rows.schema, compression="zstd") as plain:
        plain.write_table(pa.Table.from_batches(batches), row_group_size=128 * 1024)
    expected = time.perf_counter() - start
    writer = LakeWriter(storage)
    start = time.perf_counter()
    write = writer.open_write(WriteRequest(table="bulk", mode=WriteMode.CREATE), rows.schema)
    for batch in batches:
        write.write(batch)
    assert write.commit() == BULK_ROWS
    seconds = time.perf_counter() - start
    writer.close()
    files = len(DeltaTable(storage.child_uri("bulk")).file_uris())
    say(
        f"{BULK_ROWS:,} rows in {files} files: {seconds:.1f} s, pyarrow alone {expected:.1f} s "
        f"({seconds / expected:.2f} times)"
    )
