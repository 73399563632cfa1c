"""Whether a terminal can show a QR code, or rewrite a line; the picture itself is `redirect.terminal_qr`'s."""

import shutil
from collections.abc import Mapping
from typing import TextIO

from micromegas_jupyter.redirect.terminal_qr import shows_qr


def can_show_qr(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether a stream is a terminal that shows block characters in colours."""
    return stream.isatty() and shows_qr(environ, encoding=stream.encoding)


def is_capable_terminal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether a stream is a terminal that can rewrite a line."""
    return stream.isatty() and environ.get("TERM", "") not in {"", "dumb"}


def terminal_columns() -> int:
    """Return how wide the terminal is."""
    return shutil.get_terminal_size().columns
