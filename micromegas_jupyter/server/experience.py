"""Remembers how long statements worked, since their plans do not tell all: a filter may leave nothing of a large table.

What a plan tells is the engine's answer.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from micromegas_jupyter.engine import WorkClass, sql_hash
from micromegas_jupyter.server.admission import LONG_SECONDS

_QUICK_SECONDS: Final = 0.1
_MOST_KEPT: Final = 4096


class Experience:
    """Corrects the class of statements that ran before, by their fingerprints. Belongs to one event loop."""

    def __init__(self) -> None:
        self._found: OrderedDict[str, WorkClass] = OrderedDict()

    def correct(self, sql: str, planned: WorkClass) -> WorkClass:
        """Return the class of a statement: what its last run showed, else what its plan says."""
        return self._found.get(sql_hash(sql), planned)

    @contextmanager
    def watch(self, sql: str, worked_seconds: Callable[[], float]) -> Iterator[None]:
        """Take note of the run of a statement in the body.

        Args:
            sql: The statement.
            worked_seconds: Tells how long the engine worked, waits for turns and for the client left out.
        """
        is_complete = False
        try:
            yield
            is_complete = True
        finally:
            seconds = worked_seconds()
            if seconds >= LONG_SECONDS:
                self._keep(sql, WorkClass.HEAVY)
            elif is_complete and seconds <= _QUICK_SECONDS:
                self._keep(sql, WorkClass.SMALL)

    def _keep(self, sql: str, found: WorkClass) -> None:
        name = sql_hash(sql)
        self._found[name] = found
        self._found.move_to_end(name)
        if len(self._found) > _MOST_KEPT:
            self._found.popitem(last=False)
