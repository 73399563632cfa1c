"""Audit lines: one JSON object each, in printable ASCII, with bounded texts, whatever they hold.

What an event says, and on which logger, is for its writer to choose.
"""

import json
from collections.abc import Mapping
from datetime import datetime

MAX_FIELD_CHARACTERS = 256

# Made once: an encoder costs about as much to make as a line costs to write.
_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


def encode_line(record: Mapping[str, object]) -> str:
    """Return the record as one line of JSON: bounded texts (`sql` is bounded by its writer), only printable ASCII."""
    bounded = {
        key: value[:MAX_FIELD_CHARACTERS] if isinstance(value, str) and key != "sql" else value
        for key, value in record.items()
    }
    return _encode(bounded).replace("\x7f", "\\u007f")


def utc_text(moment: datetime) -> str:
    """Return an aware UTC moment in RFC 3339 with milliseconds."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def presentable(fact: str) -> str:
    """Return a text as bounded, printable characters; others stay recognisable as escapes."""
    text = fact[:MAX_FIELD_CHARACTERS]
    if text.isprintable():
        return text
    shown = (
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
    return "".join(shown)[:MAX_FIELD_CHARACTERS]
