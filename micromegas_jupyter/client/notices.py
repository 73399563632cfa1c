"""What a server says about its caller's credential beside an answer: told once for each text.

When a server says something is its own rule; how it is shown, that of whoever gives `tell`.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from micromegas_jupyter.flightsql.error_details import printable_text

NOTICE_KEY: Final = "x-micromegas-notice"

_MAX_CHARACTERS: Final = 256
_MAX_TEXTS: Final = 4
_LOG: Final = logging.getLogger("micromegas_jupyter.client")


class Notices:
    """The notices of one client. One lock guards which texts are known; it is free while one is told."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: set[str] = set()
        self._tell: Callable[[str], None] = _log

    def tell_to(self, tell: Callable[[str], None]) -> None:
        """Have `tell` called with each new text, on any thread, in place of a warning in the log."""
        self._tell = tell

    def note(self, headers: Mapping[str, Sequence[str | bytes]]) -> None:
        """Tell a notice that stands in a call's metadata, unless it is known; the sender is not trusted."""
        texts = headers.get(NOTICE_KEY, ())
        if not texts or not isinstance(texts[0], str):
            return
        text = " ".join(printable_text(texts[0][:_MAX_CHARACTERS]).split())
        with self._lock:
            if not text or text in self._known or len(self._known) >= _MAX_TEXTS:
                return
            self._known.add(text)
        # Whoever shows it decides nothing about the call.
        with suppress(Exception):
            self._tell(text)


def _log(text: str) -> None:
    _LOG.warning("The server says: %s", text)
