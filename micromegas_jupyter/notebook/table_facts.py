"""How many rows a table has and which time they cover: one statement for each table, asked only when a person looks.

Counting may be dear, so every question has a deadline, and few are open at a time.
"""

from __future__ import annotations

import contextvars
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.notebook.sql_words import name_in_sql
from micromegas_jupyter.notebook.words import printable, rows_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    import pyarrow as pa

    from micromegas_jupyter.notebook.parts import Client
    from micromegas_jupyter.notebook.server_schema import Table

FACTS_SECONDS: Final = 20.0
"""How long a server may take to count."""

MAX_OPEN_QUESTIONS: Final = 4

_PREFERRED_COLUMNS: Final = ("time", "insert_time")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFacts:
    """What a table holds.

    Attributes:
        rows: How many rows.
        time_column: The column whose range was asked for; empty when the table has no times.
        first: The earliest time in it; None when there is none.
        last: The latest.
    """

    rows: int
    time_column: str = ""
    first: datetime | None = None
    last: datetime | None = None

    @property
    def line(self) -> str:
        """The facts in one line."""
        if self.first is None or self.last is None:
            return rows_text(self.rows)
        zone = " UTC" if self.first.tzinfo is not None else ""
        first, last = (moment.strftime("%Y-%m-%d %H:%M:%S") for moment in (self.first, self.last))
        return f"{rows_text(self.rows)} · {printable(self.time_column)} from {first} to {last}{zone}"


def fetch_facts(client: Client, table: Table) -> TableFacts:
    """Ask a server what a table holds.

    Raises:
        MicromegasError: It did not answer, or not in time.
    """
    time_column = _time_column(table)
    name = "" if time_column is None else name_in_sql(time_column)
    sql = f"SELECT count(*) AS n{f', min({name}), max({name})' if name else ''} FROM {name_in_sql(table.name)}"  # noqa: S608 - names as the server told them, quoted
    with client.open_query(sql, limit=1, timeout_seconds=FACTS_SECONDS) as reader:
        answer = reader.read_all()
    rows = int(answer.column(0)[0].as_py())
    if time_column is None:
        return TableFacts(rows=rows)
    first, last = (_moment(answer.column(index)) for index in (1, 2))
    return TableFacts(rows=rows, time_column=time_column, first=first, last=last)


class FactsDesk:
    """Asks for the facts of tables in the background.

    Args:
        client: Whom to ask.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._open: set[str] = set()

    def ask(self, table: Table, tell: Callable[[str, str], None]) -> None:
        """Have a table's facts asked for, unless they are already; returns at once.

        Args:
            table: The table.
            tell: Told its name and the line, on a thread of its own.
        """
        with self._lock:
            if table.name in self._open:
                return
            is_busy = len(self._open) >= MAX_OPEN_QUESTIONS
            if not is_busy:
                self._open.add(table.name)
        if is_busy:
            tell(table.name, "Other tables are being counted. Close this one and open it again.")
            return
        # ipykernel 7 finds the cell that a widget's message belongs to in a context variable.
        context = contextvars.copy_context()
        threading.Thread(
            target=context.run, args=(self._answer, table, tell), name="micromegas-table-facts", daemon=True
        ).start()

    def _answer(self, table: Table, tell: Callable[[str, str], None]) -> None:
        try:
            line = fetch_facts(self._client, table).line
        except MicromegasError as error:
            line = f"Not counted: {printable(error.what)}"
        finally:
            with self._lock:
                self._open.discard(table.name)
        tell(table.name, line)


def _time_column(table: Table) -> str | None:
    times = [column.name for column in table.columns if column.type_text.lower().startswith("timestamp")]
    return next((name for name in _PREFERRED_COLUMNS if name in times), next(iter(times), None))


def _moment(column: pa.ChunkedArray) -> datetime | None:
    import pyarrow as pa

    # Python's times end at microseconds.
    try:
        moment: datetime | None = column.cast(pa.timestamp("us", column.type.tz), safe=False)[0].as_py()
    except (ValueError, OverflowError):
        return None  # a year that Python's times do not reach
    return moment
