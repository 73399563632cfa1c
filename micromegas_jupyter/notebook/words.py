"""How figures, names and foreign text are written in a cell; decides nothing about what is shown."""

import unicodedata
from datetime import datetime, timedelta

from micromegas_jupyter.settings import urls

_BYTE_UNITS = ("B", "kB", "MB", "GB", "TB")
_BYTE_STEP = 1000
_SHORT_ID_CHARACTERS = 8
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
# Unicode Bidirectional Algorithm (UAX 9), explicit formatting characters and marks.
_DIRECTION_CHARACTERS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_MINUTE_SECONDS = 60
_TWO_HOURS_MINUTES = 120


def count_text(count: int) -> str:
    """Return a count with separators: `1,842,113`."""
    return f"{count:,}"


def rows_text(count: int) -> str:
    """Return `1 row` or `1,842,113 rows`."""
    return "1 row" if count == 1 else f"{count:,} rows"


def bytes_text(size_bytes: int) -> str:
    """Return a size in decimal units: `131 MB`, `1.4 kB`, `12 B`."""
    size = float(size_bytes)
    unit = 0
    # 999.5 would be written as 1000 of the unit below.
    while size >= _BYTE_STEP - 0.5 and unit < len(_BYTE_UNITS) - 1:
        size /= _BYTE_STEP
        unit += 1
    digits = 1 if unit and size < 9.95 else 0  # noqa: PLR2004 - 9.95 is written as 10
    return f"{size:,.{digits}f} {_BYTE_UNITS[unit]}"


def seconds_text(seconds: float) -> str:
    """Return a duration: `0.02 s`, `4.1 s`, `2 min 05 s`."""
    seconds = max(seconds, 0.0)
    if seconds < 0.1:  # noqa: PLR2004 - below a tenth one digit would say nothing
        return f"{seconds:.2f} s"
    if seconds < _MINUTE_SECONDS - 0.05:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), _MINUTE_SECONDS)
    return f"{minutes} min {rest:02d} s"


def left_text(seconds: float) -> str:
    """Return how long something still holds, in its largest unit, rounded down: `3 h`, `58 min`, `42 s`; or `ended`."""
    left = int(seconds)
    if left <= 0:
        return "ended"
    if left < _MINUTE_SECONDS:
        return f"{left} s"
    minutes = left // _MINUTE_SECONDS
    return f"{minutes} min" if minutes < _TWO_HOURS_MINUTES else f"{minutes // 60} h"


def moment_text(moment: datetime, *, now: datetime) -> str:
    """Return a time in UTC, with its date when it is more than a day away: `15:42 UTC`."""
    form = "%H:%M UTC" if abs(moment - now) < timedelta(hours=24) else "%Y-%m-%d %H:%M UTC"
    return moment.strftime(form)


def host_text(url: str) -> str:
    """Return a URL's host and port, which is what a person knows it by, without what could steer an eye."""
    return printable(urls.host_text(url))


def provider_text(issuer: str | None) -> str:
    """Return where somebody is to sign in: the host of the issuer; without one only the Hub knows which."""
    return host_text(issuer) if issuer else "JupyterHub's identity provider"


def place_text(issuer: str, server: str) -> str:
    """Return where somebody is, or is not, signed in, and for what: ` at id.example.com (for lake.example.com:50051)`.

    Args:
        issuer: Host and port of the identity provider; empty when there is none.
        server: Host and port of the Flight SQL server.
    """
    return (f" at {issuer}" if issuer else "") + f" (for {server})"


def short_query_id(query_id: str) -> str:
    """Return the part of a query's id that a line shows."""
    return printable(query_id[:_SHORT_ID_CHARACTERS])


def printable(text: str) -> str:
    r"""Return foreign text with control and direction characters written out (`\x1b`).

    A log message or a server's sentence could otherwise move a terminal's cursor or reorder a line.
    """
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _UNSAFE_CATEGORIES or character in _DIRECTION_CHARACTERS
        else character
        for character in text
    )


def cut(text: str, max_characters: int) -> str:
    """Return at most `max_characters` of the text, the last of them an ellipsis when something is left out."""
    return text if len(text) <= max_characters else text[: max_characters - 1] + "…"


def terminal_width(text: str) -> int:
    """Return how many character cells the text takes: East Asian wide characters take two, accents none."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )
