"""Plans that `GetFlightInfo` made to tell a statement's schema, kept for a moment for the `DoGet` of its ticket.

Without them each query of most clients is planned twice. A plan is given to nobody but the caller it was made for, with
all the rights of then, and for nothing but the same request; it is run once. Whether a query is denied is asked anew.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Final

from micromegas_jupyter.contracts import AuthContext
from micromegas_jupyter.engine import PlannedQuery, StatementRequest
from micromegas_jupyter.seams import Clock

#: For so long a plan may lie behind the tables.
KEPT_SECONDS: Final = 2.0
MOST_KEPT: Final = 64
_MOST_SQL_CHARACTERS: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """A plan, whose it is, what it is of, and until when it is kept (monotonic seconds)."""

    caller: AuthContext
    request: StatementRequest
    planned: PlannedQuery = field(repr=False)
    until: float


class KeptPlans:
    """Keeps plans by the ids of their tickets: for two seconds, and the last 64. Belongs to one event loop.

    Args:
        clock: Tells how old a plan is.
        seconds: How long a plan is kept.
    """

    def __init__(self, clock: Clock, *, seconds: float = KEPT_SECONDS) -> None:
        self._clock = clock
        self._seconds = seconds
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()  # the oldest first
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, ticket_id: bytes, planned: PlannedQuery, request: StatementRequest, caller: AuthContext) -> None:
        """Keep a plan that was not run; of long statements, and for several rows of parameters, none is kept."""
        parameters = request.parameters
        if len(request.sql) > _MOST_SQL_CHARACTERS or (parameters is not None and parameters.num_rows != 1):
            return
        until = self._clock.monotonic() + self._seconds
        self._kept[ticket_id] = _Kept(caller=caller, request=request, planned=planned, until=until)
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._forget_old)

    def take(self, ticket_id: bytes, request: StatementRequest, caller: AuthContext) -> PlannedQuery | None:
        """Return the plan of a ticket, to run it; None when it is gone, or was made for another caller or request.

        Args:
            ticket_id: The ticket's id.
            request: What is asked for now.
            caller: Who asks, with the rights that they have now.
        """
        kept = self._kept.pop(ticket_id, None)
        if kept is None or kept.until <= self._clock.monotonic() or kept.caller != caller:
            return None
        return kept.planned if kept.request == replace(request, runs_at_once=False) else None

    def _forget_old(self) -> None:
        """Let go what is too old: a plan holds its tables and, perhaps, a folder for what it spills."""
        self._timer = None
        now = self._clock.monotonic()
        while self._kept:
            oldest = next(iter(self._kept.values()))
            if oldest.until > now:
                self._timer = asyncio.get_running_loop().call_later(oldest.until - now, self._forget_old)
                return
            self._kept.popitem(last=False)
