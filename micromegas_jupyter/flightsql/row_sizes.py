"""How much a caller's rows take once nothing in them is shared any more.

A dictionary, or a buffer of views, can be small and stand for gigabytes of text. So rows are measured before anything
unpacks them; whether that is too much is for others to say.
"""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from micromegas_jupyter.errors import ResourcesExhausted, UnsupportedRequest
from micromegas_jupyter.flightsql.views import view_lengths

Sizes = npt.NDArray[np.int64]


def split_rows(batch: pa.RecordBatch, *, max_bytes: int) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Yield the rows in slices that take at most `max_bytes` each, with what they take.

    Args:
        batch: Rows whose content was validated.
        max_bytes: The most that a slice, and so a single row, may take.

    Raises:
        ResourcesExhausted: A row takes more than that.
        UnsupportedRequest: A type whose rows cannot be measured.
    """
    sizes = row_sizes(batch)
    ends = np.cumsum(sizes)
    start = 0
    while start < batch.num_rows:
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + max_bytes, side="right"))
        if stop == start:
            raise ResourcesExhausted(f"A row takes more than {max_bytes:,} bytes.", remedy="Send smaller rows.")
        yield batch.slice(start, stop - start), int(ends[stop - 1]) - before
        start = stop


def row_sizes(batch: pa.RecordBatch) -> Sizes:
    """Return the bytes of each row; a value counts as one at least.

    Raises:
        UnsupportedRequest: A type whose rows cannot be measured.
    """
    total = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        total += _sizes(column)
    return total


def _sizes(array: pa.Array) -> Sizes:
    kind = array.type
    width = _fixed_width(kind)
    if width is not None:
        return np.full(len(array), width, np.int64)
    for is_kind, measure in _MEASURES:
        if is_kind(kind):
            return measure(array)
    return _at_least_one(pc.fill_null(pc.binary_length(array), 0).to_numpy())


def _fixed_width(kind: pa.DataType) -> int | None:
    """Return what every value takes; None when that varies.

    Such values are not looked at: a short message can hold very many of them.
    """
    if pa.types.is_null(kind) or pa.types.is_boolean(kind):
        return 1
    if pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or pa.types.is_fixed_size_binary(kind):
        return max(1, int(kind.bit_width) // 8)
    if pa.types.is_struct(kind) and kind.num_fields:
        widths = [_fixed_width(kind.field(index).type) for index in range(kind.num_fields)]
        known = [width for width in widths if width is not None]
        return sum(known) if len(known) == len(widths) else None
    if pa.types.is_fixed_size_list(kind) and kind.list_size:
        inner = _fixed_width(kind.value_type)
        return None if inner is None else inner * int(kind.list_size)
    _refuse_unmeasurable(kind)
    return None


def _refuse_unmeasurable(kind: pa.DataType) -> None:
    # Those that hold nothing could be there in any number.
    holds_nothing = (pa.types.is_struct(kind) and not kind.num_fields) or (
        pa.types.is_fixed_size_list(kind) and not kind.list_size
    )
    if holds_nothing or not any(is_kind(kind) for is_kind in _VARYING):
        raise UnsupportedRequest(
            f"Columns of type {str(kind)[:80]} are not accepted.", remedy="Send plain values, lists or structs."
        )


def _dictionary_sizes(array: pa.DictionaryArray) -> Sizes:
    values = _sizes(array.dictionary)
    if len(values) == 0:
        return np.ones(len(array), np.int64)  # without values every row is null
    found: Sizes = values[pc.fill_null(array.indices, 0).to_numpy()]
    return found


def _struct_sizes(array: pa.StructArray) -> Sizes:
    total = np.zeros(len(array), np.int64)
    for index in range(array.type.num_fields):
        total += _sizes(array.field(index))
    return total


def _fixed_list_sizes(array: pa.FixedSizeListArray) -> Sizes:
    size = array.type.list_size
    inner = _sizes(array.values)[array.offset * size :][: len(array) * size]
    total: Sizes = np.add.reduce(inner.reshape(len(array), size), axis=1, dtype=np.int64)
    return total


def _list_sizes(array: pa.ListArray) -> Sizes:
    offsets = array.offsets.to_numpy().astype(np.int64)
    width = _fixed_width(array.type.value_type) if not pa.types.is_map(array.type) else None
    if width is not None:
        return _at_least_one(np.diff(offsets) * width)
    inner = np.concatenate([np.zeros(1, np.int64), np.cumsum(_sizes(array.values))])
    return _at_least_one(np.diff(inner[offsets]))


def _view_sizes(array: pa.Array) -> Sizes:
    return _at_least_one(view_lengths(array))


def _at_least_one(sizes: npt.NDArray[np.generic]) -> Sizes:
    return np.maximum(sizes.astype(np.int64), np.int64(1))


_IsKind = Callable[[pa.DataType], bool]
_MEASURES: Final[tuple[tuple[_IsKind, Callable[[pa.Array], Sizes]], ...]] = (
    (pa.types.is_dictionary, _dictionary_sizes),
    (pa.types.is_string_view, _view_sizes),
    (pa.types.is_binary_view, _view_sizes),
    (pa.types.is_list, _list_sizes),
    (pa.types.is_large_list, _list_sizes),
    (pa.types.is_map, _list_sizes),
    (pa.types.is_fixed_size_list, _fixed_list_sizes),
    (pa.types.is_struct, _struct_sizes),
)
_VARYING: Final[tuple[_IsKind, ...]] = (
    *(is_kind for is_kind, _measure in _MEASURES),
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_binary,
    pa.types.is_large_binary,
)
