"""Formatting for cells: numbers, times, text from elsewhere, tables and errors."""

from __future__ import annotations

import html
import unicodedata
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from micromegas_jupyter.config import decoding
from micromegas_jupyter.errors import MicromegasError, QueryCancelled, QueryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from micromegas_jupyter.config.client import ClientSettings

_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB")
_BYTE_STEP = 1000
_SHORT_ID_CHARACTERS = 8
_MAX_NAME_CHARACTERS = 120
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
# Unicode Bidirectional Algorithm (UAX 9), explicit formatting characters and marks.
_DIRECTION_CHARACTERS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_MINUTE_SECONDS = 60
_TWO_HOURS_MINUTES = 120
_MAX_SENTENCE_CHARACTERS = 2000
_EXCERPT_BEFORE = 80
_EXCERPT_AFTER = 40
_INDENT = "    "
_MAX_UNBROKEN_CHARACTERS = 24


def count_text(count: int) -> str:
    """Return a count with separators: `1,842,113`."""
    return f"{count:,}"


def rows_text(count: int) -> str:
    """Return `1 row` or `1,842,113 rows`."""
    return "1 row" if count == 1 else f"{count:,} rows"


def bytes_text(size_bytes: int) -> str:
    """Return a size in decimal units: `131 MB`, `1.4 kB`, `12 B`."""
    size = float(size_bytes)
    unit = 0
    # 999.5 would be written as 1000 of the unit below.
    while size >= _BYTE_STEP - 0.5 and unit < len(_BYTE_UNITS) - 1:
        size /= _BYTE_STEP
        unit += 1
    digits = 1 if unit and size < 9.95 else 0  # noqa: PLR2004 - 9.95 is written as 10
    return f"{size:,.{digits}f} {_BYTE_UNITS[unit]}"


def seconds_text(seconds: float) -> str:
    """Return a duration: `0.02 s`, `4.1 s`, `2 min 05 s`."""
    seconds = max(seconds, 0.0)
    if seconds < 0.1:  # noqa: PLR2004 - below a tenth one digit would say nothing
        return f"{seconds:.2f} s"
    if seconds < _MINUTE_SECONDS - 0.05:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), _MINUTE_SECONDS)
    return f"{minutes} min {rest:02d} s"


def remaining_text(seconds: float) -> str:
    """Return a remaining time in its largest unit, rounded down: `3 h`, `58 min`, `42 s`; or `expired`."""
    remaining = int(seconds)
    if remaining <= 0:
        return "expired"
    if remaining < _MINUTE_SECONDS:
        return f"{remaining} s"
    minutes = remaining // _MINUTE_SECONDS
    return f"{minutes} min" if minutes < _TWO_HOURS_MINUTES else f"{minutes // 60} h"


def time_text(time: datetime, *, now: datetime) -> str:
    """Return a time in UTC, with its date when it is more than a day away: `15:42 UTC`."""
    return time.strftime("%H:%M UTC" if abs(time - now) < timedelta(hours=24) else "%Y-%m-%d %H:%M UTC")


def host_text(url: str) -> str:
    """Return a URL's host and port, by which people know it, with control characters written out."""
    return printable(decoding.host_text(url))


def provider_text(issuer: str | None) -> str:
    """Return the host of the issuer where people sign in; without one only the Hub knows it."""
    return host_text(issuer) if issuer else "JupyterHub's identity provider"


def where_text(issuer: str, server: str) -> str:
    """Return where somebody is signed in, and for what: ` at id.example.com (for lake.example.com:50051)`.

    Args:
        issuer: Host and port of the identity provider; empty when there is none.
        server: Host and port of the Flight SQL server.
    """
    return (f" at {issuer}" if issuer else "") + f" (for {server})"


def sign_in_text(settings: ClientSettings) -> str:
    """Return where the settings sign somebody in, as `where_text` does."""
    return where_text(host_text(settings.issuer or ""), host_text(settings.uri))


def short_query_id(query_id: str) -> str:
    """Return the beginning of a query's id, for a line."""
    return printable(query_id[:_SHORT_ID_CHARACTERS])


def printable(text: str) -> str:
    r"""Return text from elsewhere with control and direction characters written out (`\x1b`).

    A log message or a server's sentence could otherwise move a terminal's cursor or reorder a line.
    """
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _UNSAFE_CATEGORIES or character in _DIRECTION_CHARACTERS
        else character
        for character in text
    )


def cut(text: str, max_characters: int) -> str:
    """Return at most `max_characters` of the text, ending in an ellipsis when something is left out."""
    return text if len(text) <= max_characters else text[: max_characters - 1] + "…"


def shown_name(text: str) -> str:
    """Return a name from elsewhere, fit to be shown."""
    return cut(printable(text), _MAX_NAME_CHARACTERS)


def terminal_width(text: str) -> int:
    """Return how many character cells the text takes: East Asian wide characters take two, accents none."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


@contextmanager
def errors_as_lines(*, sql: str | None = None, traceback: bool = False) -> Iterator[None]:
    """Have IPython show the package's errors as lines instead of a traceback; an interrupt becomes `QueryCancelled`.

    Args:
        sql: The statement that `line` and `column` of a `QueryError` point into.
        traceback: Leave the errors unchanged.
    """
    try:
        yield
    except MicromegasError as error:
        if not traceback and "_render_traceback_" not in vars(error):
            show_as_lines(error, error_lines(error, sql=sql))
        raise
    except KeyboardInterrupt as interrupt:
        if traceback:
            raise
        stopped = QueryCancelled("Interrupted.")
        show_as_lines(stopped, ["✗ interrupted"])
        raise stopped from interrupt


def show_as_lines(error: BaseException, lines: Sequence[str]) -> None:
    """Give the error the methods that IPython calls: text in place of a traceback, and escaped HTML."""
    shown = list(lines)
    vars(error)["_render_traceback_"] = lambda: shown
    vars(error)["_repr_html_"] = lambda: lines_html(shown)


def error_lines(error: MicromegasError, *, sql: str | None = None) -> list[str]:
    """Return the error's lines; one line when there is neither a position in the SQL nor a query to name."""
    sentence = "✗ " + cut(printable(f"{error.what} {error.remedy}".strip()), _MAX_SENTENCE_CHARACTERS)
    excerpt = _excerpt(error, sql)
    if not excerpt and error.query_id is None:
        return [f"{sentence} · {error.code}"]
    query = "" if error.query_id is None else f"query {short_query_id(error.query_id)} · "
    return [sentence, *excerpt, f"  {query}{error.code} · docs/errors.md#{error.code.lower()}"]


def lines_html(lines: Sequence[str]) -> str:
    """Return the lines as escaped HTML."""
    return text_html("\n".join(lines), style="color:var(--jp-error-color0,inherit)")


def text_html(text: str, *, style: str = "") -> str:
    """Return text as escaped HTML that keeps its lines."""
    return f'<pre style="white-space:pre-wrap;{style}">{html.escape(text)}</pre>'


def _excerpt(error: MicromegasError, sql: str | None) -> list[str]:
    if not isinstance(error, QueryError) or sql is None or error.line is None or error.column is None:
        return []
    source = sql.split("\n")
    if not 1 <= error.line <= len(source):
        return []
    text = source[error.line - 1].replace("\t", " ").rstrip("\r")
    before = min(max(error.column - 1, 0), len(text))
    first = max(0, before - _EXCERPT_BEFORE)
    start = "…" if first else ""
    end = "…" if len(text) > before + _EXCERPT_AFTER else ""
    left = start + printable(text[first:before])
    right = printable(text[before : before + _EXCERPT_AFTER]) + end
    caret = " " * terminal_width(left) + f"^ line {error.line}, column {error.column}"
    return [_INDENT + left + right, _INDENT + caret]


@dataclass(frozen=True, slots=True, repr=False)
class PlainText:
    """Text of several lines; what could steer a terminal or a page is written out when it is shown."""

    text: str

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return "\n".join(printable(line) for line in self.text.split("\n"))

    def _repr_html_(self) -> str:
        return text_html(repr(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTable:
    """A table of printable text, which IPython shows as the value of a cell.

    Attributes:
        head: The names of the columns.
        rows: The lines, each as long as the head.
        note: A sentence below the table; empty for none.
        right: The names of right-aligned columns.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    right: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        from tabulate import tabulate

        lines = []
        if self.rows:
            sides = ["right" if name in self.right else "left" for name in self.head]
            table = tabulate(self.rows, self.head, tablefmt="simple", disable_numparse=True, colalign=sides)
            lines = [line.rstrip() for line in table.split("\n")]
        return "\n".join([*lines, self.note] if self.note else lines)

    def _repr_html_(self) -> str:
        table = ""
        if self.rows:
            head = "".join(f'<th scope="col"{self._style(name, name)}>{html.escape(name)}</th>' for name in self.head)
            body = "".join(f"<tr>{self._cells(row)}</tr>" for row in self.rows)
            table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        note = f'<p style="margin:0.3em 0;opacity:0.8">{html.escape(self.note)}</p>' if self.note else ""
        return f'<div class="micromegas-table" style="overflow-x:auto">{table}{note}</div>'

    def _cells(self, row: Sequence[str]) -> str:
        return "".join(
            f"<td{self._style(name, text)}>{html.escape(text)}</td>" for name, text in zip(self.head, row, strict=True)
        )

    def _style(self, name: str, text: str) -> str:
        side = "right" if name in self.right else "left"
        white_space = "pre" if len(text) <= _MAX_UNBROKEN_CHARACTERS else "pre-wrap"
        return f' style="text-align:{side};white-space:{white_space}"'
