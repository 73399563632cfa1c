"""Thins out a line's points so that what is drawn looks as if all had been drawn.

Of each stretch of time the first, the last, the lowest and the highest point stay (M4: Jugel et al., VLDB 2014): a line
through them covers the same pixels. No peak is lost.
"""

from __future__ import annotations

import numpy as np

MAX_POINTS = 2_000

_POINTS_OF_A_STRETCH = 4


def thinned(times: np.ndarray, values: np.ndarray, *, begin: int, end: int, max_points: int) -> np.ndarray:
    """Return the indices, ascending, of at most `max_points` points.

    Args:
        times: Ascending whole numbers from `begin` to `end`.
        values: Finite numbers, one for each time.
        begin: Where the first stretch begins.
        end: Where the last stretch ends.
        max_points: At least four.
    """
    if len(times) <= max_points:
        return np.arange(len(times))
    stretches = max_points // _POINTS_OF_A_STRETCH
    share = (times - begin).astype(np.float64) / (float(end - begin) or 1.0)
    stretch = np.minimum((share * stretches).astype(np.int64), stretches - 1)
    by_value = np.lexsort((values, stretch))
    # Both orders have the stretches one after the other, at the same places.
    firsts = np.flatnonzero(np.diff(stretch, prepend=-1))
    lasts = np.append(firsts[1:], len(stretch)) - 1
    return np.unique(np.concatenate((firsts, lasts, by_value[firsts], by_value[lasts])))
