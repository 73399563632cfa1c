"""Log severities; has no heavy imports, because the command's help lists the levels."""

import enum
from typing import Final


class Level(enum.IntEnum):
    """A log entry's severity as in the `level` column of `log_entries`; lower numbers are more severe."""

    FATAL = 1
    ERROR = 2
    WARNING = 3
    INFO = 4
    DEBUG = 5
    TRACE = 6


LEVEL_NAMES: Final = tuple(level.name.lower() for level in Level)


def level_from_logging(levelno: int) -> Level:
    """Return the level for a `logging` number; a number between two levels counts as the less severe one."""
    return Level(6 - min(max(levelno // 10, 0), 5))


def parse_level(text: str) -> Level | None:
    """Return the level for a number, a name, or the beginning of a name; None if there is no such level.

    >>> parse_level("warn")
    <Level.WARNING: 3>
    """
    word = text.strip().lower()
    return next((one for one in Level if word and (word == str(int(one)) or one.name.lower().startswith(word))), None)
