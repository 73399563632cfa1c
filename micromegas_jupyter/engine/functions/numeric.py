"""SQL functions of numbers and colors, for charts and maps; a color is 0xRRGGBBAA."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_Numbers = npt.NDArray[Any]
_TOP_BYTE = 255.0


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


def rgba(*channels: _Numbers) -> _Numbers:
    """Return the color of four ratios."""
    return _pack([one * _TOP_BYTE for one in channels])


def lerp_color(first: _Numbers, second: _Numbers, ratio: _Numbers) -> _Numbers:
    """Return the color at a ratio of the way from one to another."""
    share = np.clip(ratio, 0.0, 1.0)
    ends = [[(color >> shift & 0xFF).astype(np.float64) for shift in (24, 16, 8, 0)] for color in (first, second)]
    return _pack([lerp(start, end, share) for start, end in zip(*ends, strict=True)])


def _pack(channels: list[_Numbers]) -> _Numbers:
    color = np.zeros(len(channels[0]), np.uint32)
    for channel in channels:
        byte = np.nan_to_num(np.clip(channel + 0.5, 0.0, _TOP_BYTE), nan=0.0).astype(np.uint32)
        color = (color << np.uint32(8)) | byte
    return color
