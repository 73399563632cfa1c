"""Whose queries may have ended a worker, as the worker tells it: for the log, and to have that caller wait."""

import logging
from collections.abc import Callable, Sequence
from typing import Final

from micromegas_jupyter.assembly.workers.peer import Facts
from micromegas_jupyter.assembly.workers.process import WorkerProcess
from micromegas_jupyter.assembly.workers.restraint import Caller, Restraint
from micromegas_jupyter.seams import Clock

_MOST_QUERIES: Final = 64
_MOST_SHOWN: Final = 8
_SHOWN: Final = ("user", "query_id", "sql_hash")
_LOG: Final = logging.getLogger("micromegas_jupyter.supervisor")


class Blame:
    """Counts queries that ended a worker, and has all workers restrain a caller who has too many.

    Covered by its supervisor's lock.

    Args:
        restraint: The count.
        workers: Returns the workers that answer calls.
        clock: Measures.
    """

    def __init__(self, restraint: Restraint, *, workers: Callable[[], Sequence[WorkerProcess]], clock: Clock) -> None:
        self._restraint = restraint
        self._workers = workers
        self._clock = clock

    def note(self, queries: Sequence[Facts]) -> None:
        """Count the end of a worker against the caller of these queries, where there is no doubt about who that is."""
        caller = only_caller(queries)
        if caller is None or not self._restraint.note(caller, self._clock.monotonic()):
            return
        _LOG.warning(
            "A caller's queries had to be ended too often; the caller has to wait.", extra=describe_queries(queries)
        )
        for worker in self._workers():
            self.tell(worker)

    def tell(self, worker: WorkerProcess) -> None:
        """Tell a worker who has to wait."""
        for caller, seconds in self._restraint.waiting(self._clock.monotonic()).items():
            worker.tell("restrain", caller=caller, seconds=seconds)


def read_queries(told: Facts) -> tuple[Facts, ...]:
    """Return the queries that a worker names, the likeliest first."""
    found = told.get("queries")
    return tuple(one for one in found if isinstance(one, dict))[:_MOST_QUERIES] if isinstance(found, list) else ()


def only_caller(queries: Sequence[Facts]) -> Caller | None:
    """Return the one caller whose queries these are; None when there are several, or one that nobody knows."""
    callers: set[Caller | None] = set()
    for query in queries:
        match query.get("caller"):
            case [str(issuer), str(subject)]:
                callers.add((issuer, subject))
            case _:
                callers.add(None)
    return callers.pop() if len(callers) == 1 else None


def describe_queries(queries: Sequence[Facts]) -> Facts:
    """Return facts for the log: `user`, `query_id`, `sql_hash` where all have the same one; several as `candidates`."""
    shared: dict[str, object] = {}
    for name in _SHOWN:
        values = [query.get(name) for query in queries]
        if values and values[0] and all(value == values[0] for value in values):
            shared[name] = values[0]
    if len(queries) < 2:  # noqa: PLR2004 - one query's facts say all
        return shared
    shown = [" ".join(str(query.get(name)) for name in _SHOWN) for query in queries]
    more = [f"and {len(shown) - _MOST_SHOWN} more"] if len(shown) > _MOST_SHOWN else []
    return {**shared, "candidates": "; ".join([*shown[:_MOST_SHOWN], *more])}
