"""An Arrow table becomes a pandas DataFrame with upstream's types.

How the table got here is not this module's business.
"""

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import pandas as pd


def to_frame(table: pa.Table) -> "pd.DataFrame":
    """Return the table as a DataFrame; the table's own buffers are given up on the way to save memory.

    Dictionaries of lists, structs and unions are decoded, as pandas cannot hold them; others become categoricals.
    The frame can be written to: blocks are not split, as split ones would be read-only views of Arrow memory.
    """
    for index, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type) and pa.types.is_nested(field.type.value_type):
            table = table.set_column(index, field.name, _decode(table.column(index)))
    frame: pd.DataFrame = table.to_pandas(self_destruct=True)
    return frame


def _decode(column: pa.ChunkedArray) -> pa.ChunkedArray:
    # A cast of a dictionary of nested values is not implemented in Arrow, taking by index is.
    decoded = [chunk.dictionary.take(chunk.indices) for chunk in column.chunks]
    return pa.chunked_array(decoded, type=column.type.value_type)
