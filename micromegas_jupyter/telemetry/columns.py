"""The Arrow types that the tables of the data model share, and arrays of them.

What each table is made of stands in `tables`.
"""

from collections.abc import Iterable, Mapping

import pyarrow as pa

DICTIONARY = pa.dictionary(pa.int32(), pa.utf8())
TIMESTAMP = pa.timestamp("ns", tz="+00:00")
PROPERTIES = pa.map_(pa.utf8(), pa.utf8())


def build_dictionary(values: Iterable[str]) -> pa.Array:
    """Return dictionary-encoded text, one entry for each value."""
    return pa.array(values, pa.utf8()).dictionary_encode()


def build_constant_dictionary(value: str, length: int) -> pa.Array:
    """Return dictionary-encoded text that is `value` in all `length` rows."""
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), length), pa.array([value], pa.utf8()))


def build_properties(rows: Iterable[Mapping[str, str]]) -> pa.Array:
    """Return one property set for each row."""
    return pa.array([list(properties.items()) for properties in rows], PROPERTIES)


def build_constant_properties(properties: Mapping[str, str], length: int) -> pa.Array:
    """Return the same property set in all `length` rows."""
    return build_properties([properties]).take(pa.repeat(pa.scalar(0, pa.int32()), length))


def build_constant_timestamp(time_ns: int, length: int) -> pa.Array:
    """Return the same time (nanoseconds since 1970 UTC) in all `length` rows."""
    return pa.repeat(pa.scalar(time_ns, TIMESTAMP), length)
