"""Rows that would pass for what the server itself records about its callers.

Who may send such rows all the same is the server's decision.
"""

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from micromegas_jupyter.errors import UsageError

_PACKAGE: Final = "micromegas_jupyter"


def check_targets(rows: pa.RecordBatch) -> None:
    """Check that log entries, with the table's columns, do not come from the server's own loggers.

    Raises:
        UsageError: One does.
    """
    targets = rows.column("target").dictionary
    is_own = pc.or_(pc.equal(targets, _PACKAGE), pc.starts_with(targets, f"{_PACKAGE}."))
    if pc.any(is_own).as_py():
        raise UsageError(
            f"The target {_PACKAGE}, and all below it, is for what the server itself records.",
            remedy="Send other targets, or have an administrator send these rows.",
        )
