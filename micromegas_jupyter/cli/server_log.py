"""How log records look on a terminal, and how a server logs: as text or JSON, how much, and where the audit goes.

Executors log nothing themselves: the front logs their warnings.
"""

import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.core.system import SYSTEM_CLOCK

if TYPE_CHECKING:
    from micromegas_jupyter.config.server import ServerSettings

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_MAX_FACT_CHARACTERS = 256
_PACKAGE: Final = "micromegas_jupyter"
_AUDIT: Final = f"{_PACKAGE}.audit"


class FactsFormatter(logging.Formatter):
    """Appends a record's extra fields as `name=value`; what comes from outside cannot break the line.

    Audit lines hold their facts themselves, so none is added to them.
    """

    def __init__(self, *, shows_time: bool = False, masks_secrets: bool = False) -> None:
        super().__init__("%(levelname)s %(name)s %(message)s")
        self._shows_time = shows_time
        self._masks_secrets = masks_secrets

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        parts = [_time_text(datetime.fromtimestamp(record.created, UTC))] if self._shows_time else []
        parts.append(super().format(record))
        if _is_audit(record):
            return " ".join(parts)
        parts += [f"{name}={_fact(value)}" for name, value in record.__dict__.items() if name not in _STANDARD]
        line = " ".join(parts)
        if not self._masks_secrets:
            return line
        from micromegas_jupyter.telemetry.text import redact_secrets

        return redact_secrets(line)


def _time_text(time: datetime) -> str:
    """Return an aware UTC time as lines begin with it (RFC 3339, milliseconds)."""
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fact(value: object) -> str:
    text = str(value)[:_MAX_FACT_CHARACTERS]
    return text if text and text.isprintable() and " " not in text else ascii(text)


def _is_audit(record: logging.LogRecord) -> bool:
    return record.name == _AUDIT or record.name.startswith(f"{_AUDIT}.")


def log_to_terminal(level: int) -> None:
    """Write records of at least `level` to standard error from now on, as a command for people does."""
    _add_handler(level, FactsFormatter())


def log_as_server(settings: "ServerSettings") -> None:
    """Write records to standard error, and audit lines where they belong, from now on."""
    from micromegas_jupyter.config.server import LogFormat
    from micromegas_jupyter.server.recorder.log_records import JsonFormatter, quiet_libraries

    quiet_libraries()
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    is_json = settings.log_format is LogFormat.JSON
    terminal = _add_handler(level, JsonFormatter() if is_json else FactsFormatter(shows_time=True, masks_secrets=True))
    # The root's default would hide what is logged at INFO. What libraries say below WARNING stays hidden.
    logging.getLogger(_PACKAGE).setLevel(min(level, logging.INFO))
    if settings.audit_log is not None:
        from micromegas_jupyter.access.audit import AuditFileHandler

        terminal.addFilter(lambda record: not _is_audit(record))
        logging.getLogger(_AUDIT).addHandler(AuditFileHandler(settings.audit_log.expanduser()))


def _add_handler(level: int, formatter: logging.Formatter) -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setLevel(level)
    handler.setFormatter(formatter)
    logging.getLogger().addHandler(handler)
    return handler


def notify(settings: "ServerSettings", line: str) -> None:
    """Say how the server is doing: as a line for people with its time, or as a log record when the log is JSON."""
    if settings.log_format == "json":
        logging.getLogger(f"{_PACKAGE}.server").info(line)
    else:
        print(_time_text(SYSTEM_CLOCK.now()), line, file=sys.stderr)
