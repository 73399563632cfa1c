"""Arrow rows become a pandas DataFrame with upstream's types, or with Arrow's.

Small answers are converted at once; large ones column by column while they arrive, so that the rows do not stand in
memory twice. How the rows got here is not this module's business, and what a column is made of is `frame_columns`'.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from micromegas_jupyter.client.frame_columns import Column, make_column
from micromegas_jupyter.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

ARROW_DTYPES: Final = "pyarrow"

_SMALL_BYTES: Final = 4 * 1024 * 1024
# A frame of more blocks than this warns its owner of fragmentation when a column is added.
_MAX_COLUMNS: Final = 64


def check_dtype_backend(dtype_backend: str | None) -> str | None:
    """Return the argument.

    Raises:
        UsageError: It is neither None nor `"pyarrow"`.
    """
    if dtype_backend not in {None, ARROW_DTYPES}:
        raise UsageError("dtype_backend is not known.", remedy=f'Give "{ARROW_DTYPES}", or leave it out.')
    return dtype_backend


def to_frame(table: pa.Table, *, dtype_backend: str | None = None) -> "pd.DataFrame":
    """Return the table as a DataFrame that can be written to.

    Dictionaries of lists, structs and unions are decoded, as pandas cannot hold them; others become categoricals.

    Args:
        table: The rows.
        dtype_backend: As for `FrameBuilder`.

    Raises:
        UsageError: As `check_dtype_backend`.
    """
    return build_frame(table.schema, table.to_batches(), dtype_backend=dtype_backend)


def build_frame(
    schema: pa.Schema, batches: Iterable[pa.RecordBatch], *, dtype_backend: str | None = None
) -> "pd.DataFrame":
    """Return batches as a DataFrame; each is let go before the next is asked for. Arguments as for `FrameBuilder`."""
    builder = FrameBuilder(schema, dtype_backend=dtype_backend)
    for batch in batches:
        builder.add(batch)
    return builder.finish()


class FrameBuilder:
    """Makes a DataFrame of batches as they come.

    Args:
        schema: The schema of every batch.
        dtype_backend: None for NumPy's types as upstream's client gives them, `"pyarrow"` for `pandas.ArrowDtype`,
            which keeps the rows as they came.

    Raises:
        UsageError: As `check_dtype_backend`.
    """

    def __init__(self, schema: pa.Schema, *, dtype_backend: str | None = None) -> None:
        self._schema = schema
        self._has_arrow_dtypes = check_dtype_backend(dtype_backend) == ARROW_DTYPES
        # pandas' own metadata may move columns into an index, which takes the whole table.
        has_metadata = schema.metadata is not None and b"pandas" in schema.metadata
        self._may_stream = not (self._has_arrow_dtypes or has_metadata or len(schema) > _MAX_COLUMNS)
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = 0
        self._columns: list[Column] | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        """Take the next batch."""
        if self._columns is not None:
            _add(self._columns, batch)
            return
        self._waiting.append(batch)
        self._waiting_bytes += pa.ipc.get_record_batch_size(batch)
        if self._may_stream and self._waiting_bytes > _SMALL_BYTES:
            self._begin_streaming()

    def finish(self) -> "pd.DataFrame":
        """Return the frame of all batches; called once."""
        if self._columns is None:
            return self._convert_at_once()
        import pandas as pd

        columns, self._columns = self._columns, None
        # By number, as names may occur twice; not in blocks, as making those would copy every value.
        frame = pd.DataFrame({index: column.finish() for index, column in enumerate(columns)}, copy=False)
        frame.columns = pd.Index(self._schema.names)
        return frame

    def _begin_streaming(self) -> None:
        decoded = _decoded_schema(self._schema)
        dtypes = decoded.empty_table().to_pandas().dtypes
        self._columns = [make_column(field, dtype) for field, dtype in zip(decoded, dtypes, strict=True)]
        self._waiting.reverse()
        while self._waiting:
            _add(self._columns, self._waiting.pop())

    def _convert_at_once(self) -> "pd.DataFrame":
        table = pa.Table.from_batches(self._waiting, self._schema)
        self._waiting = []
        for index, field in enumerate(_decoded_schema(self._schema)):
            if field.type != table.schema.field(index).type:
                decoded = [_decode(chunk) for chunk in table.column(index).chunks]
                table = table.set_column(index, field, pa.chunked_array(decoded, type=field.type))
        if self._has_arrow_dtypes:
            import pandas as pd

            with_arrow_dtypes: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
            return with_arrow_dtypes
        # A small table is converted before another thread has even woken up. Blocks are not split: split ones would
        # be read-only views of Arrow's memory.
        is_small = self._waiting_bytes <= _SMALL_BYTES
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
