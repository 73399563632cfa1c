"""Columns of views (`string_view`, `binary_view`) from somebody else: how much they stand for, and no trap in them.

A view is a length and a place, and many may share one place. What stands in the slots of null values is not looked at
by Arrow's validation, and some of its functions follow it all the same.

Source: Arrow columnar format, "Variable-size Binary View Layout".
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_BYTES = 16


def is_view(kind: pa.DataType) -> bool:
    """Whether values of this type are views."""
    return bool(pa.types.is_string_view(kind) or pa.types.is_binary_view(kind))


def view_lengths(array: pa.Array) -> npt.NDArray[np.int32]:
    """Return the length that each view announces, also those of null values."""
    return _views(array)[:, 0]


def clean_views(array: pa.Array) -> pa.Array:
    """Return the same values with empty views where they are null; their content need not have been validated."""
    views = np.where(array.is_valid().to_numpy(zero_copy_only=False)[:, np.newaxis], _views(array), np.int32(0))
    validity = array.is_valid().buffers()[1] if array.null_count else None
    return pa.Array.from_buffers(
        array.type, len(array), [validity, pa.py_buffer(np.ascontiguousarray(views)), *array.buffers()[2:]]
    )


def _views(array: pa.Array) -> npt.NDArray[np.int32]:
    buffer = array.buffers()[1]
    if buffer is None:
        return np.zeros((len(array), _BYTES // 4), np.int32)
    end = (array.offset + len(array)) * _BYTES
    return np.frombuffer(buffer, np.int32, count=end // 4).reshape(-1, _BYTES // 4)[array.offset :]
