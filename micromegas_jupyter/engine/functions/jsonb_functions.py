"""SQL functions for binary JSON. Malformed bytes, and values of the wrong kind, result in null."""

import json
from decimal import Decimal

from micromegas_jupyter.core import jsonb
from micromegas_jupyter.engine.functions.json_path import PathError, select
from micromegas_jupyter.errors import InvalidStatement

_MAX_INT64 = (1 << 63) - 1
_MIN_INT64 = -(1 << 63)


def parse(text: str) -> bytes | None:
    """Return JSON text as binary JSON."""
    try:
        return jsonb.encode(json.loads(text))
    except (ValueError, RecursionError):
        return None


def format_json(data: bytes) -> str:
    """Return binary JSON as compact text."""
    return jsonb.to_json(jsonb.decode(data))


def as_string(data: bytes) -> str | None:
    """Return a string."""
    value = jsonb.decode(data)
    return value if isinstance(value, str) else None


def as_f64(data: bytes) -> float | None:
    """Return a number."""
    value = _number(data)
    return None if value is None else float(value)


def as_i64(data: bytes) -> int | None:
    """Return an integer."""
    value = _number(data)
    if value is None or not _MIN_INT64 <= value <= _MAX_INT64 or value != int(value):
        return None
    return int(value)


def _number(data: bytes) -> int | float | Decimal | None:
    value = jsonb.decode(data)
    return value if isinstance(value, int | float | Decimal) and not isinstance(value, bool) else None


def object_keys(data: bytes) -> tuple[str, ...] | None:
    """Return the names of an object's members."""
    found = jsonb.items(data)
    return tuple(found) if isinstance(found, dict) else None


def array_length(data: bytes) -> int | None:
    """Return the number of elements in an array."""
    found = jsonb.items(data)
    return len(found) if isinstance(found, list) else None


def path_query(data: bytes, path: str) -> bytes:
    """Return all results of a path, as an array."""
    return jsonb.array_of(_select(path, data))


def path_query_first(data: bytes, path: str) -> bytes | None:
    """Return the first result of a path."""
    return next(iter(_select(path, data)), None)


def _select(path: str, data: bytes) -> list[bytes]:
    try:
        return select(path, data)
    except PathError as error:
        raise InvalidStatement(
            f"The JSON path cannot be used: {error}.",
            remedy='Use a path such as $.items[*] ? (@.type == "active" && @.size > 10).name.',
        ) from None


def entries(data: bytes) -> tuple[tuple[str, bytes], ...]:
    """Return an object's members, or an array's elements with their positions, as key-value pairs."""
    found = jsonb.items(data)
    if found is None:
        raise InvalidStatement(
            "jsonb_each requires objects or arrays, but a value is neither.",
            remedy="Use the value itself: jsonb_format_json(value).",
        )
    return tuple(found.items()) if isinstance(found, dict) else tuple((str(at), one) for at, one in enumerate(found))


def elements(data: bytes) -> tuple[bytes, ...]:
    """Return an array's elements."""
    found = jsonb.items(data)
    if not isinstance(found, list):
        raise InvalidStatement(
            "jsonb_array_elements requires arrays, but a value isn't one.", remedy="Use jsonb_each for objects."
        )
    return tuple(found)
