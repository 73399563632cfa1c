"""How log records look on a terminal: their sentence, then the facts that came with it."""

import logging
from datetime import UTC, datetime

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_MAX_FACT_CHARACTERS = 256
_AUDIT = "micromegas_jupyter.audit"


class FactsFormatter(logging.Formatter):
    """Appends a record's extra fields as `name=value`; what comes from outside cannot break the line.

    Audit lines hold their facts themselves, so none is added to them.

    Args:
        shows_time: Whether a line begins with its time (RFC 3339, UTC).
    """

    def __init__(self, *, shows_time: bool = False) -> None:
        super().__init__("%(levelname)s %(name)s %(message)s")
        self._shows_time = shows_time

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        time = [time_text(datetime.fromtimestamp(record.created, UTC))] if self._shows_time else []
        if record.name == _AUDIT or record.name.startswith(f"{_AUDIT}."):
            return " ".join([*time, super().format(record)])
        facts = [f"{name}={_fact(value)}" for name, value in record.__dict__.items() if name not in _STANDARD]
        return " ".join([*time, super().format(record), *facts])


def time_text(moment: datetime) -> str:
    """Return an aware UTC moment as lines begin with it (RFC 3339, milliseconds)."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fact(value: object) -> str:
    text = str(value)[:_MAX_FACT_CHARACTERS]
    return text if text and text.isprintable() and " " not in text else ascii(text)


def log_to_terminal(level: int) -> None:
    """Write records of at least `level` to standard error from now on.

    A log that tells more than warnings is one that is read later, so its lines have a time.
    """
    handler = logging.StreamHandler()
    handler.setLevel(level)
    handler.setFormatter(FactsFormatter(shows_time=level < logging.WARNING))
    logging.getLogger().addHandler(handler)
