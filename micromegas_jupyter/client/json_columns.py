"""Results as DataFrames."""

from typing import TYPE_CHECKING, Final

import pyarrow as pa

from micromegas_jupyter.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd


def shows_json(choice: str) -> bool:
    """Whether `jsonb="json"` was chosen; the other choice is `"bytes"`."""
    if choice not in {"json", "bytes"}:
        raise UsageError("jsonb is not valid.", remedy='Use "json" for JSON text, or "bytes".')
    return choice == "json"


ARROW_DTYPES: Final = "pyarrow"

# Equal strings become one object, unless more than this share of a sample is distinct, which would make lookups
# slower.
_TEXT_SAMPLE_ROWS: Final = 16 * 1024
_MANY_DIFFERENT: Final = 0.9
_TEXT_CHECKS: Final = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)


def check_dtype_backend(dtype_backend: str | None) -> str | None:
    """Check and return the argument."""
    if dtype_backend not in {None, ARROW_DTYPES}:
        raise UsageError("dtype_backend is not valid.", remedy=f'Use "{ARROW_DTYPES}", or leave it out.')
    return dtype_backend


def to_frame(table: pa.Table, *, dtype_backend: str | None = None, jsonb: str = "json") -> "pd.DataFrame":
    """Return the table as a writable DataFrame; dictionaries of nested values are decoded.

    `dtype_backend` is None for NumPy types, or `"pyarrow"`. JSONB becomes JSON text unless `jsonb` is `"bytes"`.
    """
    import pandas as pd

    if shows_json(jsonb) and any(_holds_bytes(column.type) for column in table.columns):
        from micromegas_jupyter.core.jsonb import with_json  # few results have such columns

        table = with_json(table)
    table = _decode_nested(table)
    frame: pd.DataFrame
    if check_dtype_backend(dtype_backend) == ARROW_DTYPES:
        frame = table.to_pandas(types_mapper=pd.ArrowDtype)
        return frame
    different = [index for index, column in enumerate(table.columns) if _is_different(column)]
    has_index = table.schema.metadata is not None and b"pandas" in table.schema.metadata
    if not different or has_index:  # pandas metadata may move columns into an index, which requires the whole table
        frame = table.to_pandas()
        return frame
    # By number, because names may be duplicated.
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
    """Whether nearly all values are distinct strings."""
    if not any(check(column.type) for check in _TEXT_CHECKS) or not len(column):
        return False
    import pyarrow.compute as pc  # a command that creates no frames starts faster without it

    sample = column.slice(0, _TEXT_SAMPLE_ROWS)
    return bool(pc.count_distinct(sample).as_py() > _MANY_DIFFERENT * len(sample))


def _decode_nested(table: pa.Table) -> pa.Table:
    """Return a table without dictionaries of nested values."""
    for index, field in enumerate(table.schema):
        kind = field.type
        if pa.types.is_dictionary(kind) and pa.types.is_nested(kind.value_type):
            # Arrow can't cast this kind of dictionary, but it can take from it by index.
            chunks = [chunk.dictionary.take(chunk.indices) for chunk in table.column(index).chunks]
            decoded = pa.chunked_array(chunks, type=kind.value_type)
            table = table.set_column(index, field.with_type(kind.value_type), decoded)
    return table


def _holds_bytes(kind: pa.DataType) -> bool:
    return any(check(kind) for check in (*_TEXT_CHECKS[2:], pa.types.is_dictionary, pa.types.is_binary_view))
