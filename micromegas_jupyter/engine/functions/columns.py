"""Functions of binary JSON over whole columns, which are decided once for each distinct value.

Columns come as dictionaries, as plain bytes, or as pairs of a key and a value: maps and lists of structs.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from micromegas_jupyter.core import jsonb
from micromegas_jupyter.core.jsonb import MalformedJsonb

WORDS: Final = pa.dictionary(pa.int32(), pa.string())
DICTIONARY: Final = pa.dictionary(pa.int32(), pa.binary())
#: What DataFusion converts all other kinds of bytes to; a dictionary stays one buffer.
BYTES: Final = pa.binary_view()
PAIRS: Final = pa.list_(pa.struct([("key", pa.string()), ("value", pa.string())]))
PAIR_DICTIONARY: Final = pa.dictionary(pa.int32(), PAIRS)
_MAX_KEPT: Final = 20_000
_Codes = npt.NDArray[np.int32]
_Value = bytes | str | None


def holds_pairs(kind: pa.DataType) -> bool:
    """Return whether a column of a type holds text by key: a map, or a list of structs of a key and a value."""
    if pa.types.is_dictionary(kind):
        return not pa.types.is_dictionary(kind.value_type) and holds_pairs(kind.value_type)
    if pa.types.is_map(kind):
        return bool(pa.types.is_string(kind.key_type) and _is_text(kind.item_type))
    if not pa.types.is_list(kind) or not pa.types.is_struct(kind.value_type):
        return False
    fields = list(kind.value_type)
    return [field.name for field in fields] == ["key", "value"] and all(_is_text(field.type) for field in fields)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind))


class PerValue:
    """Applies a function of a value, and perhaps of a text beside it, to columns; bytes that are malformed give null.

    Results are kept for the batches that follow, up to a number.
    """

    def __init__(self, function: Callable[..., Hashable], result: pa.DataType) -> None:
        self._function = function
        self._result = result
        self._kept: dict[tuple[_Value, ...], Hashable] = {}

    def __call__(self, column: pa.Array, *keys: pa.Array) -> pa.Array:
        """Return a column of the result's type."""
        codes, values = _encoded(column)
        texts: list[str | None] = [None]
        if keys:
            key_codes, key_values = _encoded(keys[0])
            texts = key_values.to_pylist()
            if len(texts) != 1 or key_codes.min(initial=0) < 0:
                return self._by_pair(codes, values.to_pylist(), key_codes, texts)
        used = _used(codes, len(values))
        found = (values if len(used) == len(values) else values.take(pa.array(used))).to_pylist()
        arguments = [(value, *texts) for value in found] if keys else [(value,) for value in found]
        return self._spread(codes, used, len(values), arguments)

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
        return self._spread(pair_codes.astype(np.int32), np.arange(len(distinct)), len(distinct), arguments)

    def _spread(
        self, codes: _Codes, used: npt.NDArray[np.intp], count: int, arguments: Sequence[tuple[_Value, ...]]
    ) -> pa.Array:
        """Return the results for `arguments`, which are those of the codes in `used`, in the places of the codes."""
        results = [self._apply(one) for one in arguments]
        table = np.full(count + 1, -1, np.int32)  # the last one is for code -1
        if not pa.types.is_dictionary(self._result):
            table[used] = range(len(results))
            return pa.array(results, self._result).take(_indices(table[codes]))
        places: dict[Hashable, int] = {None: -1}
        table[used] = [places.setdefault(one, len(places) - 1) for one in results]
        del places[None]
        return pa.DictionaryArray.from_arrays(_indices(table[codes]), pa.array(list(places), self._result.value_type))

    def _apply(self, arguments: tuple[_Value, ...]) -> Hashable:
        if None in arguments:
            return None
        kept = self._kept
        if arguments in kept:
            return kept[arguments]
        try:
            found = self._function(*arguments)
        except MalformedJsonb:
            found = None
        if len(kept) >= _MAX_KEPT:
            kept.clear()
        kept[arguments] = found
        return found


def _indices(codes: _Codes) -> pa.Array:
    return pa.array(codes, mask=codes < 0) if codes.min(initial=0) < 0 else pa.array(codes)


def _used(codes: _Codes, count: int) -> npt.NDArray[np.intp]:
    seen = np.zeros(count + 1, bool)
    seen[codes] = True
    return np.flatnonzero(seen[:count])


def _encoded(column: pa.Array) -> tuple[_Codes, pa.Array]:
    """Return the codes of a column's rows, -1 for null, and the values that they stand for, bytes or text."""
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
    """Return a column of pairs, or of binary JSON, as a dictionary of binary JSON."""
    if not holds_pairs(column.type):
        return column if pa.types.is_dictionary(column.type) else column.cast(pa.binary()).dictionary_encode()
    indices, rows = distinct_pairs(column)
    values = [jsonb.encode({pair["key"]: pair["value"] for pair in row if pair["value"] is not None}) for row in rows]
    return pa.DictionaryArray.from_arrays(indices, pa.array(values, pa.binary()))


def distinct_pairs(column: pa.Array) -> tuple[pa.Array, list[list[dict[str, str | None]]]]:
    """Return the indices of a column's rows, and the distinct rows that they stand for, as pairs of key and value."""
    if pa.types.is_dictionary(column.type):
        indices, rows = distinct_pairs(column.dictionary)
        return indices.take(column.indices), rows
    is_map = pa.types.is_map(column.type)
    keys, values = (column.keys, column.items) if is_map else map(column.values.field, (0, 1))
    offsets = column.offsets.to_numpy()
    first, last = (int(offsets[0]), int(offsets[-1])) if len(offsets) else (0, 0)
    codes = np.stack([_codes(one.slice(first, last - first).dictionary_encode()) for one in (keys, values)], axis=1)
    data, width = np.ascontiguousarray(codes, np.int32).tobytes(), 2 * codes.itemsize
    ends = ((offsets - first) * width).tolist()
    seen: dict[bytes, int] = {}
    examples: list[int] = []
    indices_found: list[int | None] = []
    for row, is_valid in enumerate(column.is_valid().to_pylist()):
        if not is_valid:
            indices_found.append(None)
            continue
        index = seen.setdefault(data[ends[row] : ends[row + 1]], len(seen))
        if index == len(examples):
            examples.append(row)
        indices_found.append(index)
    rows = [
        [dict(zip(("key", "value"), pair, strict=True)) for pair in row] if is_map else row
        for row in column.take(pa.array(examples, pa.int64())).to_pylist()
    ]
    return pa.array(indices_found, pa.int32()), rows
