"""SQL functions of numbers, for charts and maps."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_Numbers = npt.NDArray[Any]


def vectorized(function: Callable[..., _Numbers]) -> Callable[..., pa.Array]:
    """Return a function of Arrow columns, null where one of them is, for a function of arrays."""

    def call(*columns: pa.Array) -> pa.Array:
        missing = np.logical_or.reduce([one.is_null().to_numpy(zero_copy_only=False) for one in columns])
        with np.errstate(all="ignore"):
            found = function(*(one.fill_null(0).to_numpy() for one in columns))
        return pa.array(found, mask=missing)

    return call


def bin_center(coordinate: _Numbers, size: _Numbers) -> _Numbers:
    """Return the center of the cell, of a grid around zero, that a coordinate is in."""
    return np.asarray(np.floor((coordinate + size * 0.5) / size) * size)


def lerp(start: _Numbers, end: _Numbers, ratio: _Numbers) -> _Numbers:
    """Return what is at a ratio of the way from start to end."""
    return np.asarray(start + (end - start) * ratio)


def unlerp(start: _Numbers, end: _Numbers, value: _Numbers) -> _Numbers:
    """Return at which ratio of the way a value is."""
    return np.asarray((value - start) / (end - start))
