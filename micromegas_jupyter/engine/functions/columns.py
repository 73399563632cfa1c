"""Binary JSON functions on whole columns, evaluated once per distinct value.

Columns are dictionaries, plain binary, or pairs of a key and a value: maps and lists of structs.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from micromegas_jupyter.core import jsonb
from micromegas_jupyter.core.jsonb import MalformedJsonb

TEXT_DICTIONARY: Final = pa.dictionary(pa.int32(), pa.string())
DICTIONARY: Final = pa.dictionary(pa.int32(), pa.binary())
#: DataFusion converts all other binary types to this one; a dictionary stays one buffer.
BYTES: Final = pa.binary_view()
PAIRS: Final = pa.list_(pa.struct([("key", pa.string()), ("value", pa.string())]))
PAIR_DICTIONARY: Final = pa.dictionary(pa.int32(), PAIRS)
_MAX_CACHED: Final = 20_000
_Codes = npt.NDArray[np.int32]
_Value = bytes | str | None


def holds_pairs(kind: pa.DataType) -> bool:
    """Return whether a column type is a map from keys to strings or a list of key-value structs."""
    if pa.types.is_dictionary(kind):
        return not pa.types.is_dictionary(kind.value_type) and holds_pairs(kind.value_type)
    if pa.types.is_map(kind):
        return bool(pa.types.is_string(kind.key_type) and pa.types.is_string(kind.item_type))
    if not pa.types.is_list(kind) or not pa.types.is_struct(kind.value_type):
        return False
    fields = list(kind.value_type)
    is_named = [field.name for field in fields] == ["key", "value"]
    return is_named and all(pa.types.is_string(field.type) for field in fields)


class _Results(NamedTuple):
    """The results for the values of a dictionary: `positions[code]` is the index in `found`, -1 for null."""

    values: pa.Array  # keeps the buffers alive, so that their addresses aren't reused
    texts: Sequence[str | None]
    positions: _Codes
    found: pa.Array

    def are_for(self, values: pa.Array, texts: Sequence[str | None]) -> bool:
        return texts == self.texts and _identity(values) == _identity(self.values)


def _identity(values: pa.Array) -> tuple[object, ...]:
    return len(values), values.offset, *(buffer and buffer.address for buffer in values.buffers())


class PerValue:
    """Applies a function that takes a value, and optionally a string, to columns; malformed bytes result in null.

    Results are cached for later batches, up to a limit, because batches of a file often share their dictionary.
    """

    def __init__(self, function: Callable[..., Hashable], result: pa.DataType) -> None:
        self._function = function
        self._result = result
        self._cache: dict[tuple[_Value, ...], Hashable] = {}
        self._last: _Results | None = None

    def __call__(self, column: pa.Array, *keys: pa.Array) -> pa.Array:
        """Return a column of the result's type."""
        codes, values = _encoded(column)
        texts: list[str | None] = []
        if keys:
            key_codes, key_values = _encoded(keys[0])
            texts = key_values.to_pylist()
            if len(texts) != 1 or key_codes.min(initial=0) < 0:
                return self._by_pair(codes, values.to_pylist(), key_codes, texts)
        used = np.zeros(len(values) + 1, bool)  # the last element is for code -1
        used[codes] = True
        if not used[:-1].all():
            codes = np.append(np.cumsum(used[:-1], dtype=np.int32) - 1, np.int32(-1))[codes]
            values = values.filter(pa.array(used[:-1]))
        last = self._last
        if last is None or not last.are_for(values, texts):
            positions, found = self._results([(value, *texts) for value in values.to_pylist()])
            self._last = last = _Results(values, texts, positions, found)
        return self._spread(codes, last.positions, last.found)

    def _by_pair(
        self, codes: _Codes, values: Sequence[_Value], key_codes: _Codes, texts: Sequence[str | None]
    ) -> pa.Array:
        pairs = codes.astype(np.int64) * max(len(texts), 1) + key_codes
        pairs[(codes < 0) | (key_codes < 0)] = -1
        distinct, pair_codes = np.unique(pairs, return_inverse=True)
        arguments = [
            (None, None) if pair < 0 else (values[pair // len(texts)], texts[pair % len(texts)])
            for pair in distinct.tolist()
        ]
        return self._spread(pair_codes, *self._results(arguments))

    def _results(self, arguments: Sequence[tuple[_Value, ...]]) -> tuple[_Codes, pa.Array]:
        """Return the index of each result (-1 for null), and the array of results."""
        results = list(map(self._apply, arguments))
        if not pa.types.is_dictionary(self._result):
            return np.array([*range(len(results)), -1], np.int32), pa.array(results, self._result)
        positions: dict[Hashable, int] = {}
        codes = [-1 if one is None else positions.setdefault(one, len(positions)) for one in results]
        return np.array([*codes, -1], np.int32), pa.array(list(positions), self._result.value_type)

    def _spread(self, codes: _Codes, positions: _Codes, found: pa.Array) -> pa.Array:
        spread = positions[codes]
        indices = pa.array(spread, mask=spread < 0) if spread.min(initial=0) < 0 else pa.array(spread)
        if pa.types.is_dictionary(self._result):
            return pa.DictionaryArray.from_arrays(indices, found)
        return found.take(indices)

    def _apply(self, arguments: tuple[_Value, ...]) -> Hashable:
        if None in arguments:
            return None
        cache = self._cache
        if arguments in cache:
            return cache[arguments]
        try:
            found = self._function(*arguments)
        except MalformedJsonb:
            found = None
        if len(cache) >= _MAX_CACHED:
            cache.clear()
        cache[arguments] = found
        return found


def _encoded(column: pa.Array) -> tuple[_Codes, pa.Array]:
    """Return a code for each row of a column (-1 for null), and the distinct values as bytes or text."""
    if holds_pairs(column.type):
        column = to_jsonb(column)
    elif not pa.types.is_dictionary(column.type):
        plain = pa.string() if pa.types.is_string(column.type) else pa.binary()
        column = column.cast(plain).dictionary_encode()
    return _codes(column), column.dictionary


def _codes(column: pa.DictionaryArray) -> _Codes:
    found = column.indices.cast(pa.int32())
    codes: _Codes = (found.fill_null(-1) if found.null_count else found).to_numpy()
    return codes


def to_jsonb(column: pa.Array) -> pa.DictionaryArray:
    """Convert a column of pairs or binary JSON to a dictionary of binary JSON."""
    if not holds_pairs(column.type):
        return column if pa.types.is_dictionary(column.type) else column.cast(pa.binary()).dictionary_encode()
    indices, rows = distinct_pairs(column)
    values = [jsonb.encode({pair["key"]: pair["value"] for pair in row if pair["value"] is not None}) for row in rows]
    return pa.DictionaryArray.from_arrays(indices, pa.array(values, pa.binary()))


def distinct_pairs(column: pa.Array) -> tuple[pa.Array, list[list[dict[str, str | None]]]]:
    """Return the distinct rows of a column as key-value pairs, and the index of each row in them."""
    if pa.types.is_dictionary(column.type):
        indices, rows = distinct_pairs(column.dictionary)
        return indices.take(column.indices), rows
    is_map = pa.types.is_map(column.type)
    keys, values = (column.keys, column.items) if is_map else map(column.values.field, (0, 1))
    offsets = column.offsets.to_numpy().astype(np.int64)
    first, last = (int(offsets[0]), int(offsets[-1])) if len(offsets) else (0, 0)
    key_codes, value_codes = (
        _codes(one.slice(first, last - first).dictionary_encode()).astype(np.int64) for one in (keys, values)
    )
    pairs, count = _numbered(key_codes * (last - first + 2) + value_codes + 1)
    starts, lengths = offsets[:-1] - first, np.diff(offsets)
    is_null = column.is_null().to_numpy(zero_copy_only=False)
    rows_found = is_null.astype(np.int64)
    for place in range(lengths.max(initial=0)):
        at = np.minimum(starts + place, max(last - first - 1, 0))
        rows_found, _ = _numbered(rows_found * (count + 1) + np.where(lengths > place, pairs[at] + 1, 0))
    rows_found, total = _numbered(rows_found)
    examples = np.zeros(total, np.int64)
    examples[rows_found] = np.arange(len(rows_found))
    distinct = [
        [dict(zip(("key", "value"), pair, strict=True)) for pair in row or ()] if is_map else row or []
        for row in column.take(pa.array(examples)).to_pylist()
    ]
    return pa.array(rows_found.astype(np.int32), mask=is_null), distinct


def _numbered(numbers: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], int]:
    """Replace numbers with consecutive ones, equal for equal numbers, and return them with the distinct count."""
    found = pa.array(numbers).dictionary_encode()
    return found.indices.to_numpy().astype(np.int64), len(found.dictionary)
