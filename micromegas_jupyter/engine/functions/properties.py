"""SQL functions for properties, which map keys to strings and are stored as binary JSON, maps, or lists of pairs."""

import pyarrow as pa

from micromegas_jupyter.core import jsonb
from micromegas_jupyter.engine.functions.columns import PAIRS, PerValue, distinct_pairs, holds_pairs


def get_text(data: bytes, key: str) -> str | None:
    """Return a property as text, falling back to a case-insensitive (ASCII) match; non-string values become JSON."""
    found = jsonb.find(data, key)
    return None if found is None else _text(found)


def count(data: bytes) -> int:
    """Return the number of properties, or 0 if the value is not an object."""
    found = jsonb.items(data)
    return len(found) if isinstance(found, dict) else 0


def _pairs(data: bytes) -> tuple[tuple[str, str], ...] | None:
    found = jsonb.items(data)
    return tuple((key, _text(value)) for key, value in found.items()) if isinstance(found, dict) else None


def _text(data: bytes) -> str:
    value = jsonb.decode(data)
    return value if isinstance(value, str) else jsonb.to_json(value)


class ToPairs:
    """Converts a column to a dictionary of lists of pairs; existing lists of pairs keep their order."""

    def __init__(self) -> None:
        self._of_jsonb = PerValue(_pairs, pa.dictionary(pa.int32(), PAIRS))

    def __call__(self, column: pa.Array) -> pa.DictionaryArray:
        """Convert a column, once per distinct value."""
        if not holds_pairs(column.type):
            return self._of_jsonb(column)
        indices, rows = distinct_pairs(column)
        kept = [[pair for pair in row if pair["value"] is not None] for row in rows]
        return pa.DictionaryArray.from_arrays(indices, pa.array(kept, PAIRS))


class ToArray(ToPairs):
    """Converts a column to plain lists of pairs."""

    def __call__(self, column: pa.Array) -> pa.Array:
        """Return the column without dictionary encoding."""
        found = super().__call__(column)
        return found.dictionary.take(found.indices)
