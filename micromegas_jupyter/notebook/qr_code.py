"""A QR code of an address, as a drawing that a browser understands.

Which address is worth a code, and what stands beside it, is the caller's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

QUIET_MODULES = 4
"""The white frame that a scanner needs (ISO/IEC 18004, section 9.1)."""

# A longer address makes a code that a telephone cannot read off a screen at this size.
_MAX_CHARACTERS = 512
_MAX_KEPT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class QrCode:
    """A QR code.

    Attributes:
        side_modules: Width and height in modules, with the white frame.
        path: Its dark modules as the data of an SVG path, one unit a module.
    """

    side_modules: int
    path: str


@lru_cache(maxsize=_MAX_KEPT)
def build_qr_code(address: str) -> QrCode | None:
    """Return the code of an address, None for one that is empty or too long to be read off a screen."""
    if not 0 < len(address) <= _MAX_CHARACTERS:
        return None
    import segno

    symbol = segno.make_qr(address, error="m")
    rows = [bytes(row) for row in symbol.matrix]
    return QrCode(
        side_modules=len(rows) + 2 * QUIET_MODULES,
        path="".join(_row_path(row, y) for y, row in enumerate(rows, start=QUIET_MODULES)),
    )


def _row_path(row: bytes, y: int) -> str:
    drawn = ""
    x = QUIET_MODULES
    for is_dark, modules in groupby(row):
        width = len(list(modules))
        if is_dark:
            drawn += f"M{x} {y}h{width}v1h-{width}z"
        x += width
    return drawn
