"""Functions for administrators: which they are, and how the messages of those that change the lake become rows.

What changes the lake runs in the ingest process, when the front has found its call in a statement; what it says goes
with the statement to the engine. A statement that is only planned has no messages yet.
"""

from collections.abc import Sequence
from typing import Final

import pyarrow as pa
from datafusion import SessionContext

from micromegas_jupyter.engine.calls import Call, lift_calls
from micromegas_jupyter.engine.functions.denials import DENIAL_NAMES
from micromegas_jupyter.engine.functions.listings import VIEW_DEFINITIONS_FUNCTION
from micromegas_jupyter.engine.partition_calls import MESSAGE_FUNCTIONS, PARTITION_NAMES
from micromegas_jupyter.engine.scanner import Scan, quoted
from micromegas_jupyter.errors import PermissionDenied

_FOR_ADMINISTRATORS: Final = DENIAL_NAMES | PARTITION_NAMES | {VIEW_DEFINITIONS_FUNCTION}
_MESSAGES: Final = pa.schema(
    [pa.field("time", pa.timestamp("ns", "+00:00"), nullable=False), pa.field("msg", pa.string(), nullable=False)]
)


def check_administrator(scanned: Scan) -> None:
    """Check that a statement calls no function for administrators."""
    calls = lift_calls(scanned, _FOR_ADMINISTRATORS)
    if calls:
        raise PermissionDenied(
            f"Only administrators may call {calls[0].function}.",
            reason="not_administrator",
            remedy="Ask one of the server's administrators to do it.",
        )


def register_messages(session: SessionContext, calls: Sequence[Call], messages: Sequence[tuple[int, str]]) -> None:
    """Register the tables that stand in for calls of functions which change the lake."""
    for call in calls:
        if call.function in MESSAGE_FUNCTIONS:
            rows = [{"time": time, "msg": text} for time, text in messages]
            batch = pa.RecordBatch.from_pylist(rows, schema=_MESSAGES)
            session.register_table(quoted(call.stand_in), session.read_batch(batch).into_view())
