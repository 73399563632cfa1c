"""Whose query a task works on, for what is told of it when it does not stop.

The server sets it at the start of a call; the engine only carries it.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryOwner:
    """A query and its caller.

    Attributes:
        query_id: The query's id.
        caller: Issuer and subject; None where nobody is asked who they are.
        user: What the audit calls the caller.
        sql: The statement.
    """

    query_id: str
    caller: tuple[str, str] | None
    user: str
    sql: str = field(repr=False)


#: The query of this task; None outside of calls.
QUERY_OWNER: Final[ContextVar[QueryOwner | None]] = ContextVar("QUERY_OWNER", default=None)
