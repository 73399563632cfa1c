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


def may_mix_types(plan_text: str) -> bool:
    """Return whether an unoptimized plan, one step a line, may announce other types than its result has."""
    return _MIXES_TYPES.search(plan_text) is not None


def with_result_types(session: SessionContext, frame: DataFrame) -> DataFrame:
    """Return `frame`, a statement that is not EXPLAIN, with the schema of its result; `session` is its session."""
    try:
        return session.create_dataframe_from_logical_plan(frame.optimized_logical_plan())
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        return frame  # it fails in the same way when it runs
