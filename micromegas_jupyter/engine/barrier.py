"""Keeps what a caller wrote away from rows that the caller must not see.

A predicate that fails on a value (a cast, a division) tells about the row it was evaluated on, and DataFusion moves
predicates and expressions as far down as it can. No single node of DataFusion stops all of them:

- a LIMIT stops filters while the logical plan is optimised, but becomes a property of the filter below it in the
  physical plan, and `SELECT shown, CAST(secret AS INT) + x` is then computed below that filter;
- UNNEST of a list with one element keeps its place in the physical plan, where neither expressions nor filters that
  are made while the query runs pass it, but in the logical plan filters do.

Both together stop everything; tests look at the plans and at what is evaluated. Statements that cannot fail on any
value need none of this, see `leakproof`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import pyarrow as pa
from datafusion import col, lit
from datafusion import functions as f

from micromegas_jupyter.engine.errors import is_engine_failure
from micromegas_jupyter.engine.scanner import quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from datafusion import DataFrame, SessionContext

_log = logging.getLogger(__name__)

_ALL_ROWS: Final = (1 << 63) - 1
_SAMPLE: Final = {"shown": [True, False], "text": ["1", "hidden"], "number": [1, 0]}
_TELLING: Final = (
    "SELECT shown, CAST(text AS INT) + number FROM sample",
    "SELECT shown FROM sample WHERE CAST(text AS INT) = 1",
    "SELECT shown FROM sample WHERE 1 / number = 1 ORDER BY CAST(text AS INT) LIMIT 1",
    "SELECT a.shown FROM sample a JOIN sample b ON CAST(a.text AS INT) = 1 / b.number",
)


def behind_barrier(rows: DataFrame) -> DataFrame:
    """Return `rows` such that nothing which is put on top is evaluated on rows that are not in them."""
    names = rows.schema().names
    mark = "mark"
    while mark in names:
        mark += "_"
    doubled = rows.with_column(mark, f.make_array(lit(True))).unnest_columns(mark)
    return doubled.select(*(col(quoted(name)) for name in names)).limit(_ALL_ROWS)


def barrier_holds(context: SessionContext, barrier: Callable[[DataFrame], DataFrame] = behind_barrier) -> bool:
    """Return whether statements that fail on a hidden row of a sample do not, behind `barrier`."""
    rows = context.read_batch(pa.record_batch(_SAMPLE)).filter(col("shown"))
    context.register_table("sample", barrier(rows).into_view())
    try:
        for sql in _TELLING:
            context.sql(sql).collect()
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        _log.error("the barrier before filtered rows failed its self-test")
        return False
    return True
