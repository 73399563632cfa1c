"""The columns of a table's rows as SQL sees them: those of its files, or of the merge over them.

Reading the rows is `tables`' job.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pyarrow as pa
from datafusion import DataFrame, SessionContext

from micromegas_jupyter.engine.names import quoted

if TYPE_CHECKING:
    from micromegas_jupyter.contracts import TableSnapshot


def visible_schema(snapshot: TableSnapshot) -> pa.Schema:
    """Return the columns that a condition on the table is about; kept per schema."""
    return merged_schema(snapshot.schema, snapshot.merge_sql, snapshot.raw_name)


@functools.lru_cache(maxsize=256)
def merged_schema(schema: pa.Schema, merge_sql: str | None, raw_name: str | None) -> pa.Schema:
    """Return the schema of a table's rows in the engine, after the merge if it has one."""
    context = SessionContext()
    rows = no_rows(context, schema)
    if merge_sql is not None and raw_name is not None:
        context.register_table(quoted(raw_name), rows.into_view())
        rows = context.sql(merge_sql)
    return rows.schema()


def no_rows(context: SessionContext, schema: pa.Schema) -> DataFrame:
    """Return a frame without rows."""
    return context.read_batch(pa.RecordBatch.from_pylist([], schema=schema))
