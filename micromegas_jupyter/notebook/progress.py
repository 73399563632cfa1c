"""How far a query is, and the lines that say so; showing them and running the query are others' jobs."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from micromegas_jupyter.notebook.words import bytes_text, left_text, rows_text, seconds_text, short_query_id

if TYPE_CHECKING:
    from datetime import datetime

    from micromegas_jupyter.client import QueryReader
    from micromegas_jupyter.seams import Clock


class Ending(StrEnum):
    """How a query ended."""

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    """Its reader was closed or dropped before the last row."""


class Progress:
    """How far one query is; written by the thread that reads it, read by the line's.

    Args:
        clock: Measures, from now on.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = clock.monotonic()
        self._first_seconds: float | None = None
        self._reader: QueryReader | None = None
        self._token_ends_at: datetime | None = None

    @property
    def query_id(self) -> str | None:
        """The server's id of the query; None before the server has begun to answer."""
        return None if self._reader is None else self._reader.query_id

    @property
    def rows(self) -> int:
        """How many rows have arrived."""
        return 0 if self._reader is None else self._reader.rows

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._clock.monotonic() - self._started

    def note_opened(self, reader: QueryReader, *, token_ends_at: datetime | None) -> None:
        """The server has begun to answer, and the token that the query began with ends then."""
        self._reader = reader
        self._token_ends_at = token_ends_at

    def note_batch(self) -> None:
        """A batch has arrived."""
        if self._first_seconds is None:
            self._first_seconds = self.seconds

    def opened_line(self) -> str:
        """Say that rows come when they are asked for."""
        return _joined("▸ rows come as you iterate", self._query())

    def running_line(self) -> str:
        """Say how far it is, and how to end it."""
        return _joined(self.reading_line(), self._token(), "interrupt to cancel")

    def reading_line(self) -> str:
        """Say how far it is."""
        return _joined(f"⏳ {seconds_text(self.seconds)}", self._received(), self._query())

    def done_line(self) -> str:
        """Say that all rows are here."""
        first = "" if self._first_seconds is None else f" (first after {seconds_text(self._first_seconds)})"
        done = f"✓ {rows_text(self.rows)} in {seconds_text(self.seconds)}{first}"
        return _joined(done, bytes_text(0 if self._reader is None else self._reader.bytes_received), self._query())

    def ended_line(self, ending: Ending) -> str:
        """Say how it ended, when that is not with the last row."""
        received = "" if self._reader is None else f", {rows_text(self.rows)} received"
        if self._reader is None and ending is Ending.CANCELLED:
            received = ", before the first row"
        elif self._reader is not None and ending is not Ending.FAILED:
            received += ", stopped on the server"
        sign = "■" if ending is Ending.STOPPED else "✗"
        return _joined(f"{sign} {ending} after {seconds_text(self.seconds)}{received}", self._query())

    def _received(self) -> str:
        if self._reader is None:
            return ""
        return f"{rows_text(self._reader.rows)} · {bytes_text(self._reader.bytes_received)}"

    def _query(self) -> str:
        return "" if self.query_id is None else f"query {short_query_id(self.query_id)}"

    def _token(self) -> str:
        if self._token_ends_at is None:
            return ""
        return f"token {left_text((self._token_ends_at - self._clock.now()).total_seconds())}"


def _joined(*parts: str) -> str:
    return " · ".join(part for part in parts if part)
