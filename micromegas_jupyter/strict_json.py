"""JSON that means one thing only: no duplicate names, no NaN or Infinity, bounded depth.

Settings and tokens are both read through here. What a decoded value should look like is the caller's rule.
"""

import json
from collections.abc import Iterator

MAX_DEPTH = 32


class JsonError(ValueError):
    """The text is not acceptable JSON; `args[0]` says why and where, without repeating the text."""


def decode_strict_json(text: str, *, max_depth: int = MAX_DEPTH) -> object:
    """Decode JSON text.

    Source: RFC 8259 section 4 leaves duplicate names open; RFC 7515 section 4 and RFC 7519 section 4 ask
    that they be refused.

    Raises:
        JsonError: Not JSON, a duplicate name, a number that is not finite, or nested deeper than `max_depth`.
    """
    _check_depth(text, max_depth)
    try:
        return json.loads(
            text,
            object_pairs_hook=_object_without_duplicates,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except json.JSONDecodeError as error:
        raise JsonError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise JsonError(str(error.args[0]) if isinstance(error, JsonError) else "a number out of range") from None


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


def _check_depth(text: str, max_depth: int) -> None:
    depth = 0
    for character in _structure(text):
        depth += 1 if character in "[{" else -1
        if depth > max_depth:
            raise JsonError(f"nested deeper than {max_depth}")


def _structure(text: str) -> Iterator[str]:
    in_string = escaped = False
    for character in text:
        if in_string:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in "[]{}":
            yield character
