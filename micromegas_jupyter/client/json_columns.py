"""Results as DataFrames, and their columns of binary JSON (JSONB) as JSON text.

This project's server gives the type's name in the field's metadata, upstream's does not: there, a column of bytes is
taken for JSONB when its first values all are. A wrong guess loses nothing, since what is not JSONB stays bytes.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from micromegas_jupyter.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

_SAMPLE_ROWS: Final = 10_000
_SAMPLE_VALUES: Final = 100
_LARGE_BYTES: Final = 256 * 1024 * 1024
_BYTES: Final = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)


def shows_json(choice: str) -> bool:
    """Whether `jsonb="json"` was chosen; the other choice is `"bytes"`."""
    if choice not in {"json", "bytes"}:
        raise UsageError("jsonb is not valid.", remedy='Use "json" for JSON text, or "bytes".')
    return choice == "json"


def is_declared_jsonb(field: pa.Field) -> bool:
    """Whether a schema says that a column is JSONB: by the type's name, or as a dictionary, as upstream has it."""
    from micromegas_jupyter.core import jsonb  # few results have such columns

    is_named = jsonb.TYPE_METADATA.items() <= (field.metadata or {}).items()
    return _is_bytes(field.type) and (is_named or pa.types.is_dictionary(field.type))


def holds_jsonb(field: pa.Field, column: pa.ChunkedArray) -> bool:
    """Whether a column is shown as JSON: its first values all are JSONB, or it has none and the schema says so."""
    if not _is_bytes(field.type):
        return False
    rows = column.slice(0, _SAMPLE_ROWS)
    if rows.null_count == len(rows) and column.null_count < len(column):
        rows = column.drop_null().slice(0, _SAMPLE_ROWS)
    values = pa.chunked_array(map(_plain, rows.chunks), pa.large_binary()).drop_null().unique()[:_SAMPLE_VALUES]
    return all(json_text(one) is not None for one in values.to_pylist()) if len(values) else is_declared_jsonb(field)


def json_text(data: bytes) -> str | None:
    """Return JSONB as compact JSON; None for other bytes."""
    from micromegas_jupyter.core import jsonb

    try:
        return jsonb.to_json(jsonb.decode(data))
    except jsonb.MalformedJsonb:
        return None


def json_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of JSONB as a dictionary of JSON texts; other bytes stand as `0x…`."""
    texts, _ = _texts(column)
    return texts


def with_json(table: pa.Table, names: Collection[str | None] | None = None) -> pa.Table:
    """Return a table with JSON text in the columns, all or those of these names, that hold nothing but JSONB."""
    for index, field in enumerate(table.schema):
        column = table.column(index)
        if (names is not None and field.name not in names) or not holds_jsonb(field, column):
            continue
        texts, are_json = _texts(column)
        if are_json:
            if not pa.types.is_dictionary(field.type):
                texts = texts.cast(texts.type.value_type)
            table = table.set_column(index, field.with_type(texts.type), texts)
    return table


def _texts(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, bool]:
    """Return the texts, each distinct value's made once, and whether all of them are JSON."""
    kind = pa.string() if column.get_total_buffer_size() < _LARGE_BYTES else pa.large_string()
    known: dict[bytes, str] = {}
    are_json = True
    chunks = []
    for chunk in column.chunks:
        distinct = chunk if _is_worth_its_dictionary(chunk) else _plain(chunk).dictionary_encode()
        texts = []
        for value in distinct.dictionary.to_pylist():
            text = known.get(value)
            if text is None:
                text = json_text(value)
                if text is None:
                    are_json, text = False, f"0x{value.hex()}"
                known[value] = text
            texts.append(text)
        chunks.append(pa.DictionaryArray.from_arrays(distinct.indices.cast(pa.int32()), pa.array(texts, kind)))
    return pa.chunked_array(chunks, pa.dictionary(pa.int32(), kind)), are_json


def _is_worth_its_dictionary(chunk: pa.Array) -> bool:
    """Whether a dictionary has no more values than rows, as that of some rows of a result may, and none is null."""
    if not pa.types.is_dictionary(chunk.type):
        return False
    return len(chunk.dictionary) <= len(chunk) and not chunk.dictionary.null_count


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(check(kind) for check in _BYTES)


def _plain(chunk: pa.Array) -> pa.Array:
    """Return the bytes of each row."""
    if pa.types.is_dictionary(chunk.type):
        chunk = chunk.dictionary.cast(pa.large_binary()).take(chunk.indices)
    return chunk.cast(pa.large_binary())


ARROW_DTYPES: Final = "pyarrow"

# Equal texts become one object, unless more than this share of a sample differs: looking them up would cost more.
_TEXT_SAMPLE_ROWS: Final = 16 * 1024
_MANY_DIFFERENT: Final = 0.9
_TEXT_CHECKS: Final = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)


def check_dtype_backend(dtype_backend: str | None) -> str | None:
    """Return the argument."""
    if dtype_backend not in {None, ARROW_DTYPES}:
        raise UsageError("dtype_backend is not valid.", remedy=f'Use "{ARROW_DTYPES}", or leave it out.')
    return dtype_backend


def to_frame(table: pa.Table, *, dtype_backend: str | None = None, jsonb: str = "json") -> "pd.DataFrame":
    """Return the table as a DataFrame that can be written to; dictionaries of nested values are decoded.

    `dtype_backend` is None for NumPy's types, or `"pyarrow"`. JSONB becomes JSON text unless `jsonb` is `"bytes"`.
    """
    import pandas as pd

    table = _decode_nested(with_json(table) if shows_json(jsonb) else table)
    frame: pd.DataFrame
    if check_dtype_backend(dtype_backend) == ARROW_DTYPES:
        frame = table.to_pandas(types_mapper=pd.ArrowDtype)
        return frame
    different = [index for index, column in enumerate(table.columns) if _is_different(column)]
    has_index = table.schema.metadata is not None and b"pandas" in table.schema.metadata
    if not different or has_index:  # pandas' own metadata may move columns into an index, which takes the whole table
        frame = table.to_pandas()
        return frame
    # By number, as names may occur twice.
    numbered = table.rename_columns([str(index) for index in range(table.num_columns)])
    others = [index for index in range(table.num_columns) if index not in different]
    parts = [
        numbered.select(different).to_pandas(deduplicate_objects=False),
        *([numbered.select(others).to_pandas()] if others else []),
    ]
    frame = pd.concat(parts, axis="columns")[numbered.column_names]
    frame.columns = pd.Index(table.column_names)
    return frame


def _is_different(column: pa.ChunkedArray) -> bool:
    """Whether nearly all values are different texts."""
    if not any(check(column.type) for check in _TEXT_CHECKS) or not len(column):
        return False
    import pyarrow.compute as pc  # a command, which makes no frames, starts faster without it

    sample = column.slice(0, _TEXT_SAMPLE_ROWS)
    return bool(pc.count_distinct(sample).as_py() > _MANY_DIFFERENT * len(sample))


def _decode_nested(table: pa.Table) -> pa.Table:
    """Return a table without dictionaries of nested values."""
    for index, field in enumerate(table.schema):
        kind = field.type
        if pa.types.is_dictionary(kind) and pa.types.is_nested(kind.value_type):
            # A cast of such a dictionary is not implemented in Arrow, taking by index is.
            chunks = [chunk.dictionary.take(chunk.indices) for chunk in table.column(index).chunks]
            decoded = pa.chunked_array(chunks, type=kind.value_type)
            table = table.set_column(index, field.with_type(kind.value_type), decoded)
    return table
