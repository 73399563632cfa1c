"""How log records look on a terminal: their sentence, then the facts that came with it."""

import logging

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_MAX_FACT_CHARACTERS = 256


class FactsFormatter(logging.Formatter):
    """Appends a record's extra fields as `name=value`; what comes from outside cannot break the line."""

    def __init__(self) -> None:
        super().__init__("%(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        facts = [f"{name}={_fact(value)}" for name, value in record.__dict__.items() if name not in _STANDARD]
        return " ".join([super().format(record), *facts])


def _fact(value: object) -> str:
    text = str(value)[:_MAX_FACT_CHARACTERS]
    return text if text and text.isprintable() and " " not in text else ascii(text)


def log_to_terminal(level: int) -> None:
    """Write records of at least `level` to standard error from now on."""
    handler = logging.StreamHandler()
    handler.setLevel(level)
    handler.setFormatter(FactsFormatter())
    logging.getLogger().addHandler(handler)
