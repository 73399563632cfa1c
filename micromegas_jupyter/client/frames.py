"""Converts Arrow rows to a pandas DataFrame with upstream's types, or with Arrow's.

Small answers are converted at once; large ones column by column while they arrive, so that the rows are not in memory
twice. A column makes of its values what `pyarrow.Table.to_pandas` makes of them. No batch is stored: its memory is one
block for all of its columns, which is free again when the last of them is.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from micromegas_jupyter.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd


_GROUP_ROWS: Final = 1024 * 1024
_GROUP_BYTES: Final = 8 * 1024 * 1024
# Which share of values must differ in a small sample, and in a large one, for texts not to be deduplicated.
_SAMPLE_ROWS: Final = 16 * 1024
_LARGE_SAMPLE_ROWS: Final = 256 * 1024
_SOME_NEW: Final = 0.5
_MANY_NEW: Final = 0.9
# Memory that is not written to costs nothing, and few answers need more than this.
_RESERVED_BYTES: Final = 8 * 1024 * 1024


class Column(Protocol):
    """One column: takes its arrays in order, and then returns what a DataFrame holds."""

    def add(self, array: pa.Array) -> None:
        """Copy the values of the next batch."""
        ...

    def finish(self) -> Any:
        """Return all values as an array of NumPy or pandas; called once."""
        ...


def make_column(field: pa.Field, dtype: Any) -> Column:
    """Return a column for the values of a field; `dtype` is its type in pandas when it has no rows."""
    kind = field.type
    if isinstance(kind, pa.BaseExtensionType):
        return _ArrowColumn(field)
    if dtype.kind in "biufmM":
        return _FixedWidthColumn(dtype)
    if _is_text(kind) and dtype.kind == "O":
        return _TextColumn()
    return _ArrowColumn(field)


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
        """Return the array, cut to its length."""
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
    """Numbers, booleans, times and durations: copied once."""

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
    """Return whether so many values differ that looking for equal ones costs more than it saves."""
    return all(
        pc.count_distinct(sample).as_py() > share * len(sample)
        for share, sample in (
            (_SOME_NEW, group.slice(0, _SAMPLE_ROWS)),
            (_MANY_NEW, group.slice(0, _LARGE_SAMPLE_ROWS)),
        )
    )


class _ArrowColumn:
    """Any other type: stored as Arrow values and converted at the end, as the result depends on all of them."""

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


ARROW_DTYPES: Final = "pyarrow"

_SMALL_BYTES: Final = 4 * 1024 * 1024
# A frame of more blocks than this warns its owner of fragmentation when a column is added.
_MAX_COLUMNS: Final = 64


def check_dtype_backend(dtype_backend: str | None) -> str | None:
    """Return the argument."""
    if dtype_backend not in {None, ARROW_DTYPES}:
        raise UsageError("dtype_backend is not valid.", remedy=f'Use "{ARROW_DTYPES}", or leave it out.')
    return dtype_backend


def to_frame(table: pa.Table, *, dtype_backend: str | None = None) -> "pd.DataFrame":
    """Return the table as a DataFrame that can be written to.

    Dictionaries of lists, structs and unions are decoded, as pandas cannot hold them; others become categoricals.
    """
    return build_frame(table.schema, table.to_batches(), dtype_backend=dtype_backend)


def build_frame(
    schema: pa.Schema, batches: Iterable[pa.RecordBatch], *, dtype_backend: str | None = None
) -> "pd.DataFrame":
    """Return batches as a DataFrame.

    `dtype_backend` is None for NumPy's types, as in upstream's client, or `"pyarrow"` for `pandas.ArrowDtype`.
    """
    has_arrow_dtypes = check_dtype_backend(dtype_backend) == ARROW_DTYPES
    # pandas' own metadata may move columns into an index, which takes the whole table.
    has_metadata = schema.metadata is not None and b"pandas" in schema.metadata
    may_stream = not (has_arrow_dtypes or has_metadata or len(schema) > _MAX_COLUMNS)
    coming = iter(batches)
    waiting: list[pa.RecordBatch] = []
    waiting_bytes = 0
    while not may_stream or waiting_bytes <= _SMALL_BYTES:
        batch = next(coming, None)
        if batch is None:
            return _convert_at_once(schema, waiting, waiting_bytes, has_arrow_dtypes=has_arrow_dtypes)
        waiting.append(batch)
        waiting_bytes += pa.ipc.get_record_batch_size(batch)
        del batch  # or it would stay until all are here
    return _convert_streamed(schema, waiting, coming)


def _convert_streamed(
    schema: pa.Schema, waiting: list[pa.RecordBatch], coming: Iterator[pa.RecordBatch]
) -> "pd.DataFrame":
    import pandas as pd

    decoded = _decoded_schema(schema)
    dtypes = decoded.empty_table().to_pandas().dtypes
    columns = [make_column(field, dtype) for field, dtype in zip(decoded, dtypes, strict=True)]
    waiting.reverse()
    while waiting:
        _add(columns, waiting.pop())
    for batch in coming:
        _add(columns, batch)
        del batch
    # By number, as names may occur twice; not in blocks, as making those would copy every value.
    frame = pd.DataFrame({index: column.finish() for index, column in enumerate(columns)}, copy=False)
    frame.columns = pd.Index(schema.names)
    return frame


def _convert_at_once(
    schema: pa.Schema, waiting: list[pa.RecordBatch], waiting_bytes: int, *, has_arrow_dtypes: bool
) -> "pd.DataFrame":
    table = pa.Table.from_batches(waiting, schema)
    waiting.clear()
    for index, field in enumerate(_decoded_schema(schema)):
        if field.type != table.schema.field(index).type:
            decoded = [_decode(chunk) for chunk in table.column(index).chunks]
            table = table.set_column(index, field, pa.chunked_array(decoded, type=field.type))
    if has_arrow_dtypes:
        import pandas as pd

        with_arrow_dtypes: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
        return with_arrow_dtypes
    # A small table is converted before another thread wakes up. Blocks are not split: split ones would be read-only
    # views of Arrow's memory.
    is_small = waiting_bytes <= _SMALL_BYTES
    frame: pd.DataFrame = table.to_pandas(self_destruct=not is_small, use_threads=not is_small)
    return frame


def _add(columns: list[Column], batch: pa.RecordBatch) -> None:
    for column, array in zip(columns, batch.columns, strict=True):
        column.add(_decode(array) if _is_decoded(array.type) else array)


def _is_decoded(kind: pa.DataType) -> bool:
    return bool(pa.types.is_dictionary(kind) and pa.types.is_nested(kind.value_type))


def _decoded_schema(schema: pa.Schema) -> pa.Schema:
    fields = [field.with_type(field.type.value_type) if _is_decoded(field.type) else field for field in schema]
    return pa.schema(fields, schema.metadata)


def _decode(array: pa.DictionaryArray) -> Any:
    # A cast of a dictionary of nested values is not implemented in Arrow, taking by index is.
    return array.dictionary.take(array.indices)
