"""Log levels: upstream's numbers and the way to them from Python's `logging`.

Which records are kept is the recorder's choice; this module only numbers them.
"""

import enum
import logging


class Level(enum.IntEnum):
    """Severity of a log entry as the column `level` of `log_entries` holds it; a lower number is worse."""

    FATAL = 1
    ERROR = 2
    WARN = 3
    INFO = 4
    DEBUG = 5
    TRACE = 6


_FROM_LOGGING = (
    (logging.CRITICAL, Level.FATAL),
    (logging.ERROR, Level.ERROR),
    (logging.WARNING, Level.WARN),
    (logging.INFO, Level.INFO),
    (logging.DEBUG, Level.DEBUG),
)


def level_from_logging(levelno: int) -> Level:
    """Return the level of a `logging` number; one that lies between two names counts as the lower name."""
    for threshold, level in _FROM_LOGGING:
        if levelno >= threshold:
            return level
    return Level.TRACE
