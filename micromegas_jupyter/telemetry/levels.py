"""Severities of log entries; loads nothing heavy, because the command's help names them."""

import enum
from typing import Final


class Level(enum.IntEnum):
    """Severity of a log entry as the column `level` of `log_entries` holds it; a lower number is worse."""

    FATAL = 1
    ERROR = 2
    WARNING = 3
    INFO = 4
    DEBUG = 5
    TRACE = 6


LEVEL_NAMES: Final = tuple(level.name.lower() for level in Level)


def level_from_logging(levelno: int) -> Level:
    """Return the level of a `logging` number; one that is between two names counts as the lower name."""
    return Level(6 - min(max(levelno // 10, 0), 5))


def parse_level(text: str) -> Level | None:
    """Return the level that a number, a name, or the beginning of a name stands for; None if there is none.

    >>> parse_level("warn")
    <Level.WARNING: 3>
    """
    word = text.strip().lower()
    return next((one for one in Level if word and (word == str(int(one)) or one.name.lower().startswith(word))), None)
