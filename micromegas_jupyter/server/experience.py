"""Remembers which statements were quick although their plans look heavy: a filter may leave little of a large table.

It never makes a small statement a heavy one. On a busy machine anything may take long, and a statement that was once
unlucky would then wait behind all the heavy ones. What a plan tells is the engine's answer.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

from micromegas_jupyter.engine import WorkClass, sql_hash
from micromegas_jupyter.server.admission import LONG_SECONDS, CallerKey

_QUICK_SECONDS: Final = 0.1
_MOST_KEPT: Final = 4096

_Name = tuple[CallerKey, str]


class Experience:
    """Corrects the class of statements that their callers ran before, by fingerprints. Belongs to one event loop."""

    def __init__(self) -> None:
        self._quick: OrderedDict[_Name, None] = OrderedDict()

    def correct(self, sql: str, planned: WorkClass, caller: CallerKey) -> WorkClass:
        """Return the class of a statement: small when its caller's last run was quick, else what its plan says."""
        is_known = planned is WorkClass.HEAVY and (caller, sql_hash(sql)) in self._quick
        return WorkClass.SMALL if is_known else planned

    def watch(
        self, sql: str, planned: WorkClass, caller: CallerKey, worked_seconds: Callable[[], float]
    ) -> AbstractContextManager[None]:
        """Take note of the run of a statement in the body.

        Args:
            sql: The statement.
            caller: Who runs it; nobody learns from what others ran.
            planned: What its plan says.
            worked_seconds: Tells how long the engine worked, waits for turns and for the client left out.
        """
        return self._watch(sql, caller, worked_seconds) if planned is WorkClass.HEAVY else nullcontext()

    @contextmanager
    def _watch(self, sql: str, caller: CallerKey, worked_seconds: Callable[[], float]) -> Iterator[None]:
        is_complete = False
        try:
            yield
            is_complete = True
        finally:
            self._note((caller, sql_hash(sql)), worked_seconds(), is_complete=is_complete)

    def _note(self, name: _Name, seconds: float, *, is_complete: bool) -> None:
        if seconds >= LONG_SECONDS:
            self._quick.pop(name, None)
        elif is_complete and seconds <= _QUICK_SECONDS:
            self._quick[name] = None
            self._quick.move_to_end(name)
            if len(self._quick) > _MOST_KEPT:
                self._quick.popitem(last=False)
