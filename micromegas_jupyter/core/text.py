"""Text for people: sizes, durations, what an error points at, and text from elsewhere made safe to show."""

import json
import unicodedata
from collections.abc import Mapping
from typing import Final, TextIO

from micromegas_jupyter.errors import MicromegasError, QueryError

_BYTE_UNITS: Final = ("B", "kB", "MB", "GB", "TB")
_BYTE_STEP: Final = 1000
_SHORT_ID_CHARACTERS: Final = 8
_UNSAFE_CATEGORIES: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
# Unicode Bidirectional Algorithm (UAX 9), explicit formatting characters and marks.
_DIRECTION_CHARACTERS: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_MINUTE_SECONDS: Final = 60
_EXCERPT_BEFORE: Final = 80
_EXCERPT_AFTER: Final = 40
_INDENT: Final = "    "
_MAX_SHOWN_CHARACTERS: Final = 80


encode_json: Final = json.JSONEncoder(ensure_ascii=False).encode
"""Return a value as JSON on one line."""


def cell_text(value: object) -> str:
    """Return one value of a row as text without line breaks or control characters; nothing for None."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else encode_json(value)
    return text if text.isprintable() else printable(text)


def rows_text(count: int) -> str:
    """Return `1 row` or `1,842,113 rows`."""
    return "1 row" if count == 1 else f"{count:,} rows"


def files_text(count: int) -> str:
    """Return `1 file` or `812 files`."""
    return "1 file" if count == 1 else f"{count:,} files"


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


def short_query_id(query_id: str) -> str:
    """Return the beginning of a query's id, for a line."""
    return printable(query_id[:_SHORT_ID_CHARACTERS])


def printable(text: str) -> str:
    r"""Return text from elsewhere with what would move a cursor or reorder a line written out (`\x1b`)."""
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _UNSAFE_CATEGORIES or character in _DIRECTION_CHARACTERS
        else character
        for character in text
    )


def cut(text: str, max_characters: int) -> str:
    """Return at most `max_characters` of the text, ending in an ellipsis when something is left out."""
    return text if len(text) <= max_characters else text[: max_characters - 1] + "…"


def shown(text: str) -> str:
    """Return how a sentence quotes a text of somebody else that is not secret: escaped and cut."""
    return repr(text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[:_MAX_SHOWN_CHARACTERS]}…")


def terminal_width(text: str) -> int:
    """Return how many character cells the text takes: East Asian wide characters and emoji take two, accents none."""
    if text.isascii():
        return len(text)
    from wcwidth import width  # its tables take time to load

    return width(text)


def has_color(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether colour is for this stream: a terminal that has it, and a person who has not turned it off."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM", "") not in {"", "dumb"}


def statement_excerpt(error: MicromegasError, sql: str | None) -> list[str]:
    """Return the line of the SQL that an error points at, and a caret below the place; nothing without a place."""
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
