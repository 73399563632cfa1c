"""Numeric SQL functions, for charts and maps."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_Numbers = npt.NDArray[Any]


def vectorized(function: Callable[..., _Numbers]) -> Callable[..., pa.Array]:
    """Adapt a function on NumPy arrays to Arrow columns; the result is null if any argument is null."""

    def call(*columns: pa.Array) -> pa.Array:
        missing = np.logical_or.reduce([one.is_null().to_numpy(zero_copy_only=False) for one in columns])
        with np.errstate(all="ignore"):
            found = function(*(one.fill_null(0).to_numpy() for one in columns))
        return pa.array(found, mask=missing)

    return call


def bin_center(coordinate: _Numbers, size: _Numbers) -> _Numbers:
    """Return the center of the grid cell (around zero) that contains a coordinate."""
    return np.asarray(np.floor((coordinate + size * 0.5) / size) * size)


def lerp(start: _Numbers, end: _Numbers, ratio: _Numbers) -> _Numbers:
    """Interpolate linearly from start to end."""
    return np.asarray(start + (end - start) * ratio)


def unlerp(start: _Numbers, end: _Numbers, value: _Numbers) -> _Numbers:
    """Return the relative position of a value between start and end."""
    return np.asarray((value - start) / (end - start))
