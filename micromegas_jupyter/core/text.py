"""Text from elsewhere, as strict JSON or made safe to show, and text for people: sizes, durations, excerpts."""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
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
MAX_DEPTH = 32

# A string (an unfinished one runs to the end of the text), or one bracket. Each character is looked at once.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.|\\\Z)*+(?:"|\Z)|[\[\]{}]', re.DOTALL)


class JsonError(ValueError):
    """The text is not JSON that means one thing only; `args[0]` says why and where, without repeating the text.

    Duplicate names, NaN, Infinity, half characters and deep nesting are rejected.
    """


def decode_strict_json(text: str, *, max_depth: int = MAX_DEPTH) -> object:
    """Decode JSON text, or raise `JsonError`.

    Source: RFC 7515 section 4 and RFC 7519 section 4 ask that duplicate names be refused.
    """
    # Most texts have fewer brackets than the limit has levels, and counting them is fast.
    if text.count("[") + text.count("{") > max_depth:
        _check_depth(text, max_depth)
    if text.startswith("\ufeff"):
        raise JsonError("line 1, column 1: a byte order mark")
    try:
        value = _decode(text)
    except json.JSONDecodeError as error:
        raise JsonError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise JsonError(str(error.args[0]) if isinstance(error, JsonError) else "a number out of range") from None
    if "\\u" in text or not text.isascii():
        _check_characters(text, value)
    return value


def _decode(text: str) -> object:
    # Without white space around the value, this spares the decoder's two searches for it.
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        end = -1
    return value if end == len(text) else _DECODER.decode(text)


def _object_without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise JsonError("a name appears twice in one object")
    return found


def _refuse_constant(_constant: str) -> float:
    raise JsonError("NaN and Infinity are not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in {float("inf"), float("-inf")}:
        raise JsonError("a number out of range")
    return number


def _check_characters(text: str, value: object) -> None:
    """Refuse lone surrogates, written out or escaped: they are no characters, and no UTF-8 can carry them."""
    try:
        text.encode("utf-8")
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise JsonError("half of a surrogate pair") from None


def _check_depth(text: str, max_depth: int) -> None:
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        piece = found.group()
        if piece in "[{":
            depth += 1
        elif piece in "]}":
            depth -= 1
        if depth > max_depth:
            raise JsonError(f"nested deeper than {max_depth}")


# Made once: a decoder costs about as much to make as a token costs to decode.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object_without_duplicates, parse_constant=_refuse_constant, parse_float=_finite
)
_scan: Callable[[str, int], tuple[object, int]] = _DECODER.scan_once  # type: ignore[attr-defined] # not in typeshed


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
