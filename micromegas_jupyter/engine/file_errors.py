"""What went wrong with a table's file, from the words of the engine's readers.

Somebody else may replace, remove or close a file of a plain folder at any moment, also under a running query. What else
an engine raises is `errors`' job.
"""

import logging
import re
from typing import Final

from micromegas_jupyter.errors import Unavailable

_log = logging.getLogger(__name__)

_LONGEST_LOGGED: Final = 4000
# A file has another size than it had when the folder was looked at, or is not there any more.
_CHANGED: Final = re.compile(r"not found|Out of range of file", re.IGNORECASE)
# What says itself that it is about access or damage, whoever tells it.
_UNREADABLE: Final = re.compile(r"Unable to open file|Permission denied|failed to fill whole buffer")
# What the reader of Parquet says of other things than a file's content: a condition of the statement, or a part of the
# format that it does not know.
_NOT_OF_THE_CONTENT: Final = re.compile(
    r"evaluating filter predicate|\bNYI\b|not (?:yet )?(?:implemented|supported)", re.IGNORECASE
)


def file_gone() -> Unavailable:
    """Return the error for a file that a snapshot names and that is not there any more, or is another one."""
    return Unavailable("A file of a table was removed or replaced while the query began.")


def file_error(text: str) -> Unavailable | None:
    """Return the error for what a reader said of a file; None when it is not understood.

    The log has the reader's words, which name the file; the error has not.
    """
    if _CHANGED.search(text):
        return file_gone()
    return _unreadable(text) if _UNREADABLE.search(text) else None


def parquet_error(text: str) -> Unavailable | None:
    """Return the error for what the reader of Parquet said of a file; None when that is not the file's fault.

    A file that was replaced while it was read looks like a damaged one, and damage shows in as many words as there are
    encodings and compressions.
    """
    return file_error(text) or (None if _NOT_OF_THE_CONTENT.search(text) else _unreadable(text))


def _unreadable(text: str) -> Unavailable:
    _log.error("a file of a table cannot be read", extra={"engine_error": text[:_LONGEST_LOGGED]})
    return Unavailable(
        "A file of a table cannot be read: it was changed meanwhile, it is damaged, or the server may not read it.",
        remedy="Try again. If that does not help, tell the server's administrator, whose log has more.",
    )
