"""Prepared statements that wait to be run: who made them, their SQL and the parameters bound to them.

Planning and running them is `queries`' job.
"""

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Final

import pyarrow as pa

from micromegas_jupyter.errors import ResourcesExhausted, UsageError
from micromegas_jupyter.seams import Clock, Randomness
from micromegas_jupyter.server.admission import CallerKey
from micromegas_jupyter.server.identifiers import new_statement_handle

_MAX_BYTES_PER_CALLER: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedStatement:
    """One prepared statement; `last_used` is monotonic seconds."""

    caller: CallerKey
    sql: str = field(repr=False)
    parameters: pa.RecordBatch | None = field(default=None, repr=False)
    last_used: float

    @property
    def size_bytes(self) -> int:
        """What the statement takes in memory, roughly."""
        return len(self.sql) + (self.parameters.get_total_buffer_size() if self.parameters is not None else 0)


class PreparedStatements:
    """Keeps prepared statements, each for the caller who made it. Belongs to one event loop.

    Args:
        max_statements: How many in all.
        max_per_caller: How many of one caller; a new one replaces the longest unused.
        idle_seconds: How long an unused one is kept.
        clock: Tells how long a statement has been unused.
        randomness: Makes handles unguessable.
    """

    def __init__(
        self,
        *,
        max_statements: int,
        max_per_caller: int,
        idle_seconds: float,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._max_statements = max_statements
        self._max_per_caller = max_per_caller
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._randomness = randomness
        self._statements: OrderedDict[bytes, PreparedStatement] = OrderedDict()  # the longest unused first

    def __len__(self) -> int:
        return len(self._statements)

    def add(self, sql: str, caller: CallerKey) -> bytes:
        """Keep a statement and return its handle.

        Raises:
            ResourcesExhausted: Other callers' statements fill the store.
        """
        self._expire()
        own = [handle for handle, kept in self._statements.items() if kept.caller == caller]
        if len(own) >= self._max_per_caller:
            del self._statements[own[0]]
        elif len(self._statements) >= self._max_statements:
            raise ResourcesExhausted(
                "The server keeps as many prepared statements as it may.", remedy="Try later.", limit="prepared"
            )
        handle = new_statement_handle(sql, self._randomness)
        self._statements[handle] = PreparedStatement(caller=caller, sql=sql, last_used=self._clock.monotonic())
        return handle

    def get(self, handle: bytes, caller: CallerKey) -> PreparedStatement:
        """Return a caller's own statement.

        Raises:
            UsageError: There is none with this handle; another caller's counts as none.
        """
        self._expire()
        kept = self._statements.get(handle)
        if kept is None or kept.caller != caller:
            raise UsageError(
                "The prepared statement is not known: it was closed, or was not used for too long.",
                remedy="Prepare the statement again.",
            )
        return self._store(handle, kept)

    def bind(self, handle: bytes, parameters: pa.RecordBatch | None, caller: CallerKey) -> None:
        """Bind parameters to a caller's own statement, in place of those bound before.

        Raises:
            UsageError: There is no such statement.
            ResourcesExhausted: The caller's statements hold too much.
        """
        bound = replace(self.get(handle, caller), parameters=parameters)
        others = sum(
            kept.size_bytes for key, kept in self._statements.items() if kept.caller == caller and key != handle
        )
        if others + bound.size_bytes > _MAX_BYTES_PER_CALLER:
            raise ResourcesExhausted(
                "Your prepared statements hold too many parameters.", remedy="Close those that you no longer need."
            )
        self._store(handle, bound)

    def close(self, handle: bytes, caller: CallerKey) -> None:
        """Forget a caller's own statement; one that is not there is as good as closed."""
        kept = self._statements.get(handle)
        if kept is not None and kept.caller == caller:
            del self._statements[handle]

    def _store(self, handle: bytes, statement: PreparedStatement) -> PreparedStatement:
        used = replace(statement, last_used=self._clock.monotonic())
        self._statements[handle] = used
        self._statements.move_to_end(handle)
        return used

    def _expire(self) -> None:
        oldest_allowed = self._clock.monotonic() - self._idle_seconds
        while self._statements:
            handle, kept = next(iter(self._statements.items()))
            if kept.last_used >= oldest_allowed:
                return
            del self._statements[handle]
