"""A QR code for a terminal, as lines of text; which address is worth a code is the caller's business."""

import io
from collections.abc import Mapping

BORDER_MODULES = 2
# A longer address makes a code that a telephone cannot read off a screen at this size.
MAX_CHARACTERS = 512
QR_CAPTION = "The page to open, with the code filled in:"
"""What stands above the picture of an address that already holds the code."""

# Bright white on black, whatever the terminal's own colours are: light on dark is what the drawing means.
_COLOURS = "\x1b[97;40m"
_USUAL = "\x1b[0m"


def terminal_qr(address: str, *, columns: int) -> list[str]:
    """Return a QR code of the address, line by line; empty when it is missing, too long to scan, or would not fit.

    Args:
        address: What a camera reads.
        columns: How wide the terminal is.
    """
    if not 0 < len(address) <= MAX_CHARACTERS:
        return []
    import segno

    symbol = segno.make_qr(address, error="l")
    if symbol.symbol_size(border=BORDER_MODULES)[0] > columns:
        return []
    drawn = io.StringIO()
    symbol.terminal(drawn, compact=True, border=BORDER_MODULES)
    return [f"{_COLOURS}{line}{_USUAL}" for line in drawn.getvalue().splitlines()]


def shows_qr(environ: Mapping[str, str], *, encoding: str | None) -> bool:
    """Whether a terminal shows block characters in colours, as far as its variables and its encoding say."""
    return (
        environ.get("TERM", "") not in {"", "dumb"}
        and not environ.get("NO_COLOR")
        and (encoding or "").lower().replace("-", "") == "utf8"
    )
