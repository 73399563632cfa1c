"""The columns of a DataFrame while their values still arrive, each in as little memory as its type allows.

Every class makes of a column what `pyarrow.Table.to_pandas` makes of it; which batches come, and when a table is
converted at once instead, is `frames`' job. The batch that an array came in is never kept: its memory is one piece
for all of its columns, and is free again when the last of them is.
"""

from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_GROUP_ROWS: Final = 1024 * 1024
_GROUP_BYTES: Final = 8 * 1024 * 1024
# A small sample with fewer different values than this needs no second look; in a large one, almost all must differ.
_SAMPLE_ROWS: Final = 16 * 1024
_LARGE_SAMPLE_ROWS: Final = 256 * 1024
_SOME_NEW: Final = 0.5
_MANY_NEW: Final = 0.9
# Memory that is not written to costs nothing, and most answers need no more than this.
_RESERVED_BYTES: Final = 8 * 1024 * 1024


class Column(Protocol):
    """One column: takes its arrays in order, and then gives what a DataFrame holds."""

    def add(self, array: pa.Array) -> None:
        """Take the values of the next batch; the array is not kept."""
        ...

    def finish(self) -> Any:
        """Return all values as an array of NumPy or pandas; called once."""
        ...


def make_column(field: pa.Field, dtype: Any) -> Column:
    """Return a column for the values of a field; `dtype` is what pandas makes of it when it has no rows."""
    kind = field.type
    if isinstance(kind, pa.BaseExtensionType):
        return _KeptColumn(field)
    if _is_fixed_width(kind) and dtype.kind in "biufmM":
        return _FixedWidthColumn(dtype)
    if _is_text(kind) and dtype.kind == "O":
        return _TextColumn()
    return _KeptColumn(field)


def _is_fixed_width(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_timestamp(kind)
        or types.is_duration(kind)
    )


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)
    )


def compact(array: pa.Array) -> pa.Array:
    """Return the same values in memory of their own, as small as Arrow writes them."""
    if pa.types.is_dictionary(array.type):
        # The dictionary came in a message of its own and is shared by all batches.
        return pa.DictionaryArray.from_arrays(compact(array.indices), array.dictionary, ordered=array.type.ordered)
    if isinstance(array.type, pa.BaseExtensionType) or _holds_dictionary(array.type):
        return array
    batch = pa.record_batch([array], names=["values"])
    return pa.ipc.read_record_batch(batch.serialize(), batch.schema).column(0)


def _holds_dictionary(kind: pa.DataType) -> bool:
    return any(
        pa.types.is_dictionary(child) or isinstance(child, pa.BaseExtensionType) or _holds_dictionary(child)
        for child in (kind.field(index).type for index in range(kind.num_fields))
    )


class _Values:
    """A NumPy array that grows; what lies behind its length has never been touched."""

    def __init__(self) -> None:
        self._array: Any = None
        self.length = 0

    def append(self, part: Any) -> None:
        """Copy `part` behind what is there; a part of a wider type makes the whole array one of that type."""
        end = self.length + len(part)
        if self._array is None:
            self._array = np.empty(max(end, _RESERVED_BYTES // part.dtype.itemsize), part.dtype)
        elif end > len(self._array) or self._is_wider(part.dtype):
            grown = np.empty(max(len(self._array), 2 * end if end > len(self._array) else 0), self._wider(part.dtype))
            grown[: self.length] = self._array[: self.length]
            self._array = grown
        self._array[self.length : end] = part
        self.length = end

    def take(self) -> Any:
        """Return the array, cut to its length; the memory behind it is given back."""
        array, self._array = self._array, None
        array.resize(self.length, refcheck=False)
        return array

    def _is_wider(self, dtype: Any) -> bool:
        return bool(self._wider(dtype) != self._array.dtype)

    def _wider(self, dtype: Any) -> Any:
        # Whole numbers with a null among them come as float64, truth values as objects; both stay so.
        held = self._array.dtype
        return dtype if dtype.kind == "O" or (dtype.kind == "f" and held.kind in "iu") else held


class _FixedWidthColumn:
    """Numbers, truth values, times and spans: copied once, from the message to where they stay."""

    def __init__(self, dtype: Any) -> None:
        self._dtype = dtype
        self._values = _Values()

    def add(self, array: pa.Array) -> None:
        self._values.append(array.to_numpy(zero_copy_only=False))

    def finish(self) -> Any:
        import pandas as pd

        values = self._values.take()
        if isinstance(self._dtype, pd.DatetimeTZDtype):
            return pd.array(values.view(np.int64), dtype=self._dtype, copy=False)
        return values


class _TextColumn:
    """Text and bytes as Python objects, made in groups: one object for the equal values of a group.

    Each group is about as large as all before it, so that a value has few objects however many rows there are.
    """

    def __init__(self) -> None:
        self._parts: list[Any] = []
        self._rows = self._bytes = 0
        self._pending: list[pa.Array] = []
        self._pending_rows = self._pending_bytes = 0

    def add(self, array: pa.Array) -> None:
        self._pending.append(compact(array))
        self._pending_rows += len(array)
        self._pending_bytes += self._pending[-1].nbytes
        has_many = self._pending_rows >= max(_GROUP_ROWS, self._rows)
        if has_many or self._pending_bytes >= max(_GROUP_BYTES, self._bytes // 2):
            self._convert()

    def finish(self) -> Any:
        if self._pending:
            self._convert()
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else np.concatenate(parts or [np.empty(0, object)])

    def _convert(self) -> None:
        group = pa.chunked_array(self._pending)
        self._parts.append(group.to_pandas(deduplicate_objects=not _are_different(group)).to_numpy())
        self._rows += self._pending_rows
        self._bytes += self._pending_bytes
        self._pending.clear()
        self._pending_rows = self._pending_bytes = 0


def _are_different(group: pa.ChunkedArray) -> bool:
    """Return whether the values are so different that looking for equal ones costs more than it saves."""
    return all(
        pc.count_distinct(sample).as_py() > share * len(sample)
        for share, sample in (
            (_SOME_NEW, group.slice(0, _SAMPLE_ROWS)),
            (_MANY_NEW, group.slice(0, _LARGE_SAMPLE_ROWS)),
        )
    )


class _KeptColumn:
    """Any other type: kept as Arrow values and converted when all are here, as what they become depends on all."""

    def __init__(self, field: pa.Field) -> None:
        self._field = field
        self._chunks: list[pa.Array] = []

    def add(self, array: pa.Array) -> None:
        self._chunks.append(compact(array))

    def finish(self) -> Any:
        schema = pa.schema([self._field])
        table = pa.Table.from_arrays([pa.chunked_array(self._chunks, type=self._field.type)], schema=schema)
        self._chunks.clear()
        return table.to_pandas(self_destruct=True).iloc[:, 0].array
