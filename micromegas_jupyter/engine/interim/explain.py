"""Plans shown to a caller name no file of the server."""

from __future__ import annotations

import re

import pyarrow as pa

_EXPLAIN = re.compile(r"\s*(?:(?:--[^\n]*\n|/\*.*?\*/)\s*)*explain\b", re.IGNORECASE | re.DOTALL)
_FILES = re.compile(r"file_groups=\{.*?\]\]?\}|[\w./%+~@-]*\.parquet(?::[0-9.]+)?|file:/[^\s,\]}]*")


def is_explain(sql: str) -> bool:
    """Whether the statement shows a plan."""
    return _EXPLAIN.match(sql) is not None


def scrub_paths(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch with `…` in place of every file in its texts."""
    columns = [
        pa.array([None if text is None else _FILES.sub("…", text) for text in column.to_pylist()], column.type)
        if pa.types.is_string(column.type)
        else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)
