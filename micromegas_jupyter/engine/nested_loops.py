"""Finds the plans with a join that compares each row with each other row, which must not write to disk.

DataFusion 55 reads the left side of such a join anew when it does not fit into memory and there is room on disk.
But a scan gives each of its files once, and a join below it all its rows: what was read before is missing or counted
twice, and nothing says so. Without room on disk the join ends for want of memory.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.engine.errors import is_engine_failure

if TYPE_CHECKING:
    from datafusion import DataFrame

# A literal with a line break could look like a line of its own; then a statement is looked at that need not be.
_JOINING: Final = re.compile(r"^ *(?:(?:\w+ )+Join:|Subquery:)", re.MULTILINE)
_STEP: Final = "NestedLoopJoinExec"


def may_nest_loops(frame: DataFrame, plan_text: str) -> bool:
    """Return whether there is such a join in what would run; also where that cannot be told.

    Args:
        frame: What would run. It is planned to the end, which takes as long as planning it did so far.
        plan_text: Its plan, which was not optimised, one step a line.
    """
    if _JOINING.search(plan_text) is None:
        return False
    try:
        return _STEP in frame.execution_plan().display_indent()
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        return True  # whoever runs it is told why it cannot run
