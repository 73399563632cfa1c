"""Converts Arrow rows to a pandas DataFrame, group by group while they arrive, so that they are not in memory twice."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from micromegas_jupyter.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd


ARROW_DTYPES: Final = "pyarrow"

_SMALL_BYTES: Final = 16 * 1024 * 1024
_GROUP_BYTES: Final = 8 * 1024 * 1024
# A frame of more blocks than this warns its owner of fragmentation when a column is added.
_MAX_COLUMNS: Final = 64
# Texts are not looked up when more than this share of a sample differs: that costs more than it saves.
_SAMPLE_ROWS: Final = 16 * 1024
_MANY_NEW: Final = 0.9


def check_dtype_backend(dtype_backend: str | None) -> str | None:
    """Return the argument."""
    if dtype_backend not in {None, ARROW_DTYPES}:
        raise UsageError("dtype_backend is not valid.", remedy=f'Use "{ARROW_DTYPES}", or leave it out.')
    return dtype_backend


def to_frame(table: pa.Table, *, dtype_backend: str | None = None) -> "pd.DataFrame":
    """Return the table as a DataFrame that can be written to; dictionaries of nested values are decoded."""
    return build_frame(table.schema, table.to_batches(), dtype_backend=dtype_backend)


def build_frame(
    schema: pa.Schema, batches: Iterable[pa.RecordBatch], *, dtype_backend: str | None = None
) -> "pd.DataFrame":
    """Return batches as a DataFrame; `dtype_backend` is None for NumPy's types, or `"pyarrow"`."""
    has_arrow_dtypes = check_dtype_backend(dtype_backend) == ARROW_DTYPES
    # pandas' own metadata may move columns into an index, which takes the whole table.
    has_metadata = schema.metadata is not None and b"pandas" in schema.metadata
    coming = iter(batches)
    if has_arrow_dtypes or has_metadata or len(schema) > _MAX_COLUMNS:
        table = _decode(pa.Table.from_batches(coming, schema))
        if has_arrow_dtypes:
            import pandas as pd

            return _to_pandas(table, types_mapper=pd.ArrowDtype)
        # Blocks are not split: split ones would be read-only views of Arrow's memory.
        return _to_pandas(table, self_destruct=True)
    waiting = _take(coming, _SMALL_BYTES)
    following = next(coming, None)
    if following is None:
        # A small table is converted before another thread wakes up.
        return _to_pandas(_decode(pa.Table.from_batches(waiting, schema)), use_threads=False)
    waiting.append(following)
    del following
    return _convert_streamed(schema, waiting, coming)


def _take(batches: Iterator[pa.RecordBatch], max_bytes: int) -> list[pa.RecordBatch]:
    """Return the next batches, until they take `max_bytes`."""
    taken: list[pa.RecordBatch] = []
    size = 0
    while size < max_bytes and (batch := next(batches, None)) is not None:
        taken.append(batch)
        size += pa.ipc.get_record_batch_size(batch)
    return taken


def _to_pandas(table: pa.Table, **options: Any) -> "pd.DataFrame":
    frame: pd.DataFrame = table.to_pandas(**options)
    return frame


def _convert_streamed(
    schema: pa.Schema, waiting: list[pa.RecordBatch], coming: Iterator[pa.RecordBatch]
) -> "pd.DataFrame":
    import pandas as pd

    empty = _decode(schema.empty_table())
    columns = [_Column(field, dtype) for field, dtype in zip(empty.schema, empty.to_pandas().dtypes, strict=True)]
    while waiting:
        table = _decode(pa.Table.from_batches(waiting, schema))
        waiting.clear()
        for index, column in enumerate(columns):
            column.add(table.column(index))
        del table
        waiting = _take(coming, _GROUP_BYTES)
    # By number, as names may occur twice; not in blocks, as making those would copy every value.
    frame = pd.DataFrame({index: column.finish() for index, column in enumerate(columns)}, copy=False)
    frame.columns = pd.Index(schema.names)
    return frame


class _Column:
    """One column: numbers, times and texts become NumPy arrays at once; others wait in Arrow's memory for the rest."""

    def __init__(self, field: pa.Field, dtype: Any) -> None:
        """Make a column for a field, whose type in pandas is `dtype` when it has no rows."""
        kind = field.type
        self._field = field
        self._dtype = dtype
        self._is_text = dtype.kind == "O" and any(
            is_kind(kind)
            for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
        )
        is_extension = isinstance(kind, pa.BaseExtensionType)
        self._is_converted = not is_extension and (self._is_text or dtype.kind in "biufmM")
        self._parts: list[Any] = []

    def add(self, values: pa.ChunkedArray) -> None:
        if not self._is_converted:
            self._parts += map(compact, values.chunks)
        elif self._is_text:
            sample = values.slice(0, _SAMPLE_ROWS)
            are_different = pc.count_distinct(sample).as_py() > _MANY_NEW * len(sample)
            self._parts.append(values.to_pandas(deduplicate_objects=not are_different).to_numpy())
        else:
            # Whole numbers with a null among them come as float64, truth values as objects. Those of one batch would be
            # a view that keeps the whole batch.
            array = values.to_numpy()
            self._parts.append(array.copy() if values.num_chunks == 1 else array)

    def finish(self) -> Any:
        import pandas as pd

        parts, self._parts = self._parts, []
        if not self._is_converted:
            column = pa.chunked_array(parts, type=self._field.type)
            parts.clear()
            table = pa.Table.from_arrays([column], schema=pa.schema([self._field]))
            del column
            return table.to_pandas(self_destruct=True).iloc[:, 0].array
        values = np.concatenate(parts)
        if isinstance(self._dtype, pd.DatetimeTZDtype):
            return pd.array(values.view(np.int64), dtype=self._dtype, copy=False)
        return values


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


def _decode(table: pa.Table) -> pa.Table:
    """Return a table without dictionaries of nested values."""
    for index, field in enumerate(table.schema):
        kind = field.type
        if pa.types.is_dictionary(kind) and pa.types.is_nested(kind.value_type):
            # A cast of such a dictionary is not implemented in Arrow, taking by index is.
            chunks = [chunk.dictionary.take(chunk.indices) for chunk in table.column(index).chunks]
            decoded = pa.chunked_array(chunks, type=kind.value_type)
            table = table.set_column(index, field.with_type(kind.value_type), decoded)
    return table
