"""Says in which order the values of a column stand, so that a browser need not know Arrow's types to sort them.

A browser's numbers are doubles: it would mix up neighbouring 64-bit integers, decimals and nanoseconds.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from micromegas_jupyter.notebook.cell_texts import decoded


def column_order(column: pa.ChunkedArray) -> list[int | None] | None:
    """Return each value's place among the column's values, equal for equal values; None for null and NaN.

    None instead of a list means that the values have no order but that of their texts.
    """
    values = decoded(column).combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    if pa.types.is_float16(values.type):
        values = values.cast(pa.float32())
    if not _is_ordered(values.type):
        return None
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), None, values)
    try:
        places = pc.rank(values, sort_keys="ascending", tiebreaker="dense")  # nulls at the end
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None  # the narrow decimals
    order: list[int | None] = pc.if_else(pc.is_null(values), None, places).to_pylist()
    return order


def _is_ordered(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or (pa.types.is_temporal(kind) and not pa.types.is_interval(kind))
    )
