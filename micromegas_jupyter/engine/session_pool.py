"""Sessions that a statement has left empty, for the statements after it.

To open a session costs about as much as to plan a small statement, and a new one has not read what the files' footers
say: for a look-up in a large file, that is most of the work. What was measured is in docs/performance.md.

Nothing of one caller may come to another with a session. So only sessions are lent in which nothing but tables is put,
never a function with a caller's values; what a statement could set or create by itself, `sessions.READ_ONLY` refuses;
a session comes back only after the last row was given, never from a statement that failed or was given up; then all its
tables are taken out, and one that still has something in it is not used again. What stays is what the files said, by
path, size and time of change, within a bound; no statement can ask for it.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.engine.errors import is_engine_failure
from micromegas_jupyter.engine.names import quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from datafusion import SessionContext

_log = logging.getLogger(__name__)

#: After so many statements a session is closed, whatever may have gathered in it.
_MOST_USES: Final = 256
_CATALOGS: Final = {"datafusion"}
_SCHEMAS: Final = {"public"}


class SessionPool:
    """Lends sessions, each to one statement at a time; a lock covers those that are free.

    Args:
        open_session: Returns a new one without tables.
        most_kept: How many are free at most; each keeps what footers said.
    """

    def __init__(self, open_session: Callable[[], SessionContext], *, most_kept: int = 4) -> None:
        self._open = open_session
        self._most_kept = most_kept
        self._free: list[LentSession] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._free)

    def lend(self) -> LentSession:
        """Return a session without tables; let it go, or give it back when its statement has given its last row."""
        with self._lock:
            if self._free:
                return self._free.pop()
        return LentSession(self._open(), self)

    def take_back(self, lent: LentSession) -> None:
        """Keep a session for the next statement, if it is empty."""
        if lent.uses >= _MOST_USES or not _is_emptied(lent.session):
            return
        with self._lock:
            if len(self._free) < self._most_kept:
                self._free.append(LentSession(lent.session, self, uses=lent.uses + 1))

    def close(self) -> None:
        """Let the free ones go."""
        with self._lock:
            self._free.clear()


class LentSession:
    """A session for one statement."""

    def __init__(self, session: SessionContext, pool: SessionPool, *, uses: int = 1) -> None:
        self.session = session
        self.uses = uses
        self._pool: SessionPool | None = pool

    def give_back(self) -> None:
        """Say that the statement has given its last row; only the first call counts."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.take_back(self)


def _is_emptied(session: SessionContext) -> bool:
    """Take all tables out of a session; return whether nothing is left in it."""
    try:
        schema = session.catalog().schema()
        for name in schema.table_names():
            session.deregister_table(quoted(name))
        return (
            not schema.table_names()
            and session.catalog().schema_names() == _SCHEMAS
            and session.catalog_names() == _CATALOGS
        )
    except BaseException as error:
        if not is_engine_failure(error):
            raise
        _log.warning("a session could not be emptied", exc_info=error)
        return False
