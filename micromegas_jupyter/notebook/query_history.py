"""The queries of one notebook, as they were asked for and how they ended; in memory only, and bounded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING

from micromegas_jupyter.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from micromegas_jupyter.notebook.progress import Ending, Progress
    from micromegas_jupyter.notebook.sql_request import SqlRequest

MAX_QUERIES = 200
_MAX_BYTES = 16 * 1024 * 1024
_VALUE_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PastQuery:
    """One query.

    Attributes:
        number: Its number in this notebook, from 1.
        request: What was asked for, with the values of then.
        started_at: When (aware).
        ending: How it ended; None while it runs, and while its reader is open.
        query_id: The server's id; None when there is none, or not yet.
        rows: How many rows have come.
        seconds: How long it took.
    """

    number: int
    request: SqlRequest
    started_at: datetime
    ending: Ending | None = None
    query_id: str | None = None
    rows: int = 0
    seconds: float | None = None


class QueryHistory:
    """Keeps the newest queries. `_lock` guards everything: a reader may end on any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._by_number: dict[int, PastQuery] = {}
        self._bytes = 0
        self._newest = 0

    def begin(self, request: SqlRequest, *, at: datetime) -> int:
        """Note a query that begins, and return its number."""
        with self._lock:
            self._newest += 1
            self._by_number[self._newest] = PastQuery(number=self._newest, request=request, started_at=at)
            self._bytes += _size(request)
            while len(self._by_number) > 1 and (len(self._by_number) > MAX_QUERIES or self._bytes > _MAX_BYTES):
                oldest = self._by_number.pop(next(iter(self._by_number)))
                self._bytes -= _size(oldest.request)
            return self._newest

    def note(
        self, number: int, progress: Progress, ending: Ending | None = None, *, query_id: str | None = None
    ) -> None:
        """Note how far a query is, or how it ended; one that is not kept any more is left aside.

        Args:
            number: Which query.
            progress: How far it is.
            ending: How it ended; None while it goes on.
            query_id: The server's id, when only its refusal tells it.
        """
        with self._lock:
            known = self._by_number.get(number)
            if known is not None:
                self._by_number[number] = replace(
                    known,
                    ending=ending,
                    query_id=progress.query_id or query_id,
                    rows=progress.rows,
                    seconds=progress.seconds,
                )

    def all(self) -> list[PastQuery]:
        """Return the queries that are kept, the oldest first."""
        with self._lock:
            return list(self._by_number.values())

    def get(self, number: int) -> PastQuery:
        """Return one query.

        Raises:
            UsageError: There is none of that number, or it is not kept any more.
        """
        with self._lock:
            known = self._by_number.get(number)
            kept = list(self._by_number)
        if known is not None:
            return known
        if not kept:
            raise UsageError("No query has run in this notebook yet.", remedy="Run one with %%sql.")
        raise UsageError(f"There is no query {number}.", remedy=f"Numbers {kept[0]} to {kept[-1]} are kept.")


def _size(request: SqlRequest) -> int:
    return len(request.sql) + _values_size(request.params)


def _values_size(params: Mapping[str, object]) -> int:
    elements = [element for value in params.values() for element in (value if isinstance(value, tuple) else (value,))]
    return sum(_VALUE_BYTES + (len(one) if isinstance(one, (str, bytes)) else 0) for one in elements)
