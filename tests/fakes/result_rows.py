"""A result of a million rows with a column of each kind, as a notebook cell makes it."""

import numpy as np
import pyarrow as pa

LEVELS = ("INFO", "WARN", "ERROR", "FATAL", "DEBUG")
BATCH_ROWS = 65_536


def many_rows(rows=1_000_000):
    """Return rows in batches, as they come from a server."""
    random = np.random.default_rng(1)
    numbers = np.arange(rows)
    texts = [None if number % 50 == 0 else f"request {number % 5000} took {number % 97} ms" for number in range(rows)]
    table = pa.table(
        {
            "time": pa.array(
                1795800000000000000 + np.cumsum(random.integers(0, 10**9, rows)), pa.timestamp("ns", "UTC")
            ),
            "level": pa.array(np.array(LEVELS)[numbers % len(LEVELS)]).dictionary_encode(),
            "msg": texts,
            "process_id": random.integers(0, 2**63, rows),
            "hash_of": random.integers(0, 2**64 - 1, rows, dtype=np.uint64),
            "size_bytes": random.lognormal(10, 3, rows).astype("i8"),
            "value": numbers / 4,
            "price": pa.array(random.integers(0, 10**9, rows)).cast(pa.decimal128(20, 0)).cast(pa.decimal128(24, 4)),
            "ok": numbers % 2 == 0,
            "json": [f'{{"a": {number % 100}, "b": [1, 2]}}' for number in numbers],
            "tags": pa.StructArray.from_arrays([pa.array(numbers % 100), pa.array(numbers / 2)], ["a", "b"]),
            "day": pa.array((numbers % 20_000).astype("i4")).cast(pa.date32()),
        }
    )
    return pa.Table.from_batches(table.to_batches(max_chunksize=BATCH_ROWS))
