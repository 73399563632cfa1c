"""Gives a result the types that it will have.

In DataFusion 55.2 (54.1 has this, too), the schema of a DataFrame is that of the plan as it was written. Where UNION
or CASE mixes types, the optimizer converts them afterwards: `SELECT 1 UNION ALL SELECT 2.5` is announced as integers
and returns floats.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.engine.errors import is_engine_failure

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionContext

_MIXES_TYPES: Final = re.compile(r"\bCASE\b|^ *Union\b", re.MULTILINE)


def with_result_types(session: SessionContext, frame: DataFrame, plan_text: str) -> DataFrame:
    """Return `frame` with the schema of its result.

    Args:
        session: The session of `frame`.
        frame: A statement that is not EXPLAIN.
        plan_text: Its unoptimized plan, one step a line.
    """
    if _MIXES_TYPES.search(plan_text) is None:
        return frame
    try:
        return session.create_dataframe_from_logical_plan(frame.optimized_logical_plan())
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        return frame  # it fails in the same way when it runs
