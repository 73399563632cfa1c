"""Remembers which statements were quick although their plans look heavy, and which were not although they look small.

It never makes a small statement a heavy one. On a busy machine anything may take long, and a statement that was once
unlucky would then wait behind all the heavy ones. A medium one waits behind others that are over soon, only after
several runs whose steps worked for a while, and no longer once they did not. What a plan tells is the engine's answer.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeVar

from micromegas_jupyter.engine import WorkClass, sql_hash
from micromegas_jupyter.server.admission import LONG_SECONDS, MEDIUM_SECONDS, CallerKey

_QUICK_SECONDS: Final = 0.1
_SLOW_RUNS: Final = 3
_MOST_KEPT: Final = 4096

_T = TypeVar("_T")
_Name = tuple[CallerKey, str]


class Experience:
    """Corrects the class of statements that their callers ran before, by fingerprints. Belongs to one event loop."""

    def __init__(self) -> None:
        self._quick: OrderedDict[_Name, None] = OrderedDict()
        self._slow: OrderedDict[_Name, int] = OrderedDict()

    def correct(self, sql: str, planned: WorkClass, caller: CallerKey) -> WorkClass:
        """Return the class of a statement: heavy when its plan says so and its caller's last run was not quick.

        What is not heavy is medium when the last runs all took a while, else small.
        """
        if not (self._quick or self._slow):
            return planned
        name = (caller, sql_hash(sql))
        if planned is WorkClass.HEAVY and name not in self._quick:
            return planned
        return WorkClass.MEDIUM if self._slow.get(name, 0) >= _SLOW_RUNS else WorkClass.SMALL

    def watch(
        self,
        sql: str,
        planned: WorkClass,
        caller: CallerKey,
        *,
        worked_seconds: Callable[[], float],
        busy_seconds: Callable[[], float | None],
    ) -> "_Watch":
        """Take note of the run of a statement in the body.

        Args:
            sql: The statement.
            caller: Who runs it; nobody learns from what others ran.
            planned: What its plan says.
            worked_seconds: Tells how long the engine worked, waits for turns and for the client left out.
            busy_seconds: Tells afterwards how long the statement's own steps worked, which waits for other statements
                do not lengthen; None when the engine does not tell.
        """
        return _Watch(self, sql, planned, caller, worked_seconds, busy_seconds)

    def note(  # noqa: PLR0913 - one run, with all that counts
        self, sql: str, planned: WorkClass, caller: CallerKey, *, worked: float, busy: float, is_complete: bool
    ) -> None:
        """Take note of one run; what is small and quick is the most common of all, and costs next to nothing here."""
        if self._slow or busy >= MEDIUM_SECONDS or planned is WorkClass.HEAVY:
            name = (caller, sql_hash(sql))
            self._note_pace(name, busy, is_complete=is_complete)
            if planned is WorkClass.HEAVY:
                self._note_quick(name, worked, is_complete=is_complete)

    def _note_pace(self, name: _Name, seconds: float, *, is_complete: bool) -> None:
        if seconds >= MEDIUM_SECONDS:
            self._slow[name] = min(self._slow.get(name, 0) + 1, _SLOW_RUNS)
            self._slow.move_to_end(name)
            _forget_oldest(self._slow)
        elif is_complete:
            self._slow.pop(name, None)

    def _note_quick(self, name: _Name, seconds: float, *, is_complete: bool) -> None:
        if seconds >= LONG_SECONDS:
            self._quick.pop(name, None)
        elif is_complete and seconds <= _QUICK_SECONDS:
            self._quick[name] = None
            self._quick.move_to_end(name)
            _forget_oldest(self._quick)


def _forget_oldest(found: OrderedDict[_Name, _T]) -> None:
    if len(found) > _MOST_KEPT:
        found.popitem(last=False)


class _Watch:
    """Measures one run; there are many of them, and a generator takes several times as long."""

    __slots__ = ("_busy_seconds", "_caller", "_experience", "_planned", "_sql", "_worked_seconds")

    def __init__(  # noqa: PLR0913, PLR0917 - as `Experience.watch`
        self,
        experience: Experience,
        sql: str,
        planned: WorkClass,
        caller: CallerKey,
        worked_seconds: Callable[[], float],
        busy_seconds: Callable[[], float | None],
    ) -> None:
        self._experience = experience
        self._sql = sql
        self._planned = planned
        self._caller = caller
        self._worked_seconds = worked_seconds
        self._busy_seconds = busy_seconds

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        worked, busy = self._worked_seconds(), self._busy_seconds()
        self._experience.note(
            self._sql,
            self._planned,
            self._caller,
            worked=worked,
            busy=worked if busy is None else busy,
            is_complete=kind is None,
        )
