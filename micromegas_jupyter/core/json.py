"""JSON that means one thing only: no duplicate names, no NaN or Infinity, no half characters, bounded depth."""

import json
import re
from collections.abc import Callable

MAX_DEPTH = 32

# A string (an unfinished one runs to the end of the text), or one bracket. Each character is looked at once.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.|\\\Z)*+(?:"|\Z)|[\[\]{}]', re.DOTALL)


class JsonError(ValueError):
    """The text is not acceptable JSON; `args[0]` says why and where, without repeating the text."""


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
