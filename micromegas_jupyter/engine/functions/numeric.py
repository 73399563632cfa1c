"""SQL functions of numbers and colors, for charts and maps; a color is 0xRRGGBBAA."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from micromegas_jupyter.errors import InvalidStatement

_Numbers = npt.NDArray[Any]
_TOP_BYTE = 255.0
_TABULATED: Final = ("viridis", "magma", "inferno", "plasma")
# Of red, green and blue, from the constant term on. Source: https://github.com/d3/d3-scale-chromatic.
_POLYNOMIALS: Final = {
    "cividis": (
        (-4.54, -35.34, 2381.73, -6402.7, 7024.72, -2710.57), (32.49, 170.73, 52.82, -131.46, 176.58, -67.37),
        (81.24, 442.36, -2482.43, 6167.24, -6614.94, 2475.67),
    ),
    "turbo": (
        (34.61, 1172.33, -10793.56, 33300.12, -38394.49, 14825.05),
        (23.31, 557.33, 1225.33, -3574.96, 1073.77, 707.56), (27.2, 3211.1, -15327.97, 27814.0, -22569.18, 6838.66),
    ),
}  # fmt: skip
_MAX_SHOWN: Final = 80
_EXACT: Final = 1e-6  # of a channel: what rounding may take from a whole number


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


def color_scale(names: pa.Array, ratios: pa.Array, alphas: pa.Array) -> pa.Array:
    """Return the colors at ratios of named scales, with these alphas."""
    encoded = names.dictionary_encode()
    scales = [None if name is None else _find_scale(name) for name in encoded.dictionary.to_pylist()]

    def colors(codes: _Numbers, ratio: _Numbers, alpha: _Numbers) -> _Numbers:
        found = np.zeros(len(codes), np.uint32)
        share = np.nan_to_num(np.clip(ratio, 0.0, 1.0), nan=0.0)
        for code, scale in enumerate(scales):
            rows = codes == code
            if scale is not None:
                channels = np.clip(np.floor(scale(share[rows]) + _EXACT), 0.0, _TOP_BYTE)
                found[rows] = _pack([*channels, alpha[rows] * _TOP_BYTE])
        return found

    return vectorized(colors)(encoded.indices, ratios, alphas)


def _find_scale(name: str) -> Callable[[_Numbers], _Numbers]:
    """Return the function from ratios to red, green and blue."""
    scale = name.lower()
    if scale in _TABULATED:
        return functools.partial(_spline, _tables()[_TABULATED.index(scale)])
    if scale in _POLYNOMIALS:
        return functools.partial(_polynomial, np.array(_POLYNOMIALS[scale]).T)
    known = ", ".join((*_TABULATED, *_POLYNOMIALS))
    raise InvalidStatement(f"There is no color scale named {name[:_MAX_SHOWN]!r}.", remedy=f"Use one of {known}.")


@functools.cache
def _tables() -> _Numbers:
    """Return 256 colors of each scale that is tabulated (matplotlib's, which are in the public domain)."""
    data = Path(__file__).with_name("color_scales.rgb").read_bytes()
    return np.frombuffer(data, np.uint8).reshape(len(_TABULATED), -1, 3).astype(np.float64)


def _spline(colors: _Numbers, ratio: _Numbers) -> _Numbers:
    """Return what a uniform cubic B-spline over colors, from the first to the last, has at ratios."""
    first, last = 2 * colors[0] - colors[1], 2 * colors[-1] - colors[-2]
    points = np.vstack([first, colors, last])
    place = ratio * (len(colors) - 1)
    start = np.minimum(place.astype(np.int64), len(colors) - 2)
    t = place - start
    weights = (1 - t) ** 3, 4 - 6 * t**2 + 3 * t**3, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3
    return np.asarray(sum(weight * points[start + step].T for step, weight in enumerate(weights)) / 6)


def _polynomial(coefficients: _Numbers, ratio: _Numbers) -> _Numbers:
    return np.asarray(np.polynomial.polynomial.polyval(ratio, coefficients))


def _pack(channels: list[_Numbers]) -> _Numbers:
    color = np.zeros(len(channels[0]), np.uint32)
    for channel in channels:
        byte = np.nan_to_num(np.clip(channel + 0.5, 0.0, _TOP_BYTE), nan=0.0).astype(np.uint32)
        color = (color << np.uint32(8)) | byte
    return color
