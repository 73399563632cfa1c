"""Finds the plans with a join that keeps all rows of its right side, whose conditions must not reach the tables.

DataFusion 55 takes a condition on what such a join gives for one on the table it keeps, where both tables have a column
of that name: `t RIGHT JOIN u … WHERE t.x IS NULL` loses the rows of u whose own x is something. Filters in the reader
do so, and what leaves out parts of files by their statistics. Behind `barrier.keep_apart` it stays above the join.
"""

from __future__ import annotations

import re
from typing import Final

# A full join may be planned as a right one. A literal with a line break could look like a line of its own; then a
# statement reads whole tables that need not.
_RIGHT: Final = re.compile(r"^ *(?:Right|Full) Join:", re.MULTILINE)


def keeps_the_right_side(plan_text: str) -> bool:
    """Return whether there is such a join in a plan, which was not optimised, one step a line."""
    return _RIGHT.search(plan_text) is not None
