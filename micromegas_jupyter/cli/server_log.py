"""How log records look on a terminal, and how a server logs: as text or JSON, how much, and where the audit goes.

The options become variables. Executors log nothing themselves: the front logs their warnings.
"""

import argparse
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.errors import ConfigurationError

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_MAX_FACT_CHARACTERS = 256
_AUDIT: Final = "micromegas_jupyter.audit"


class FactsFormatter(logging.Formatter):
    """Appends a record's extra fields as `name=value`; what comes from outside cannot break the line.

    Audit lines hold their facts themselves, so none is added to them.
    """

    def __init__(self, *, shows_time: bool = False) -> None:
        super().__init__("%(levelname)s %(name)s %(message)s")
        self._shows_time = shows_time

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        time = [time_text(datetime.fromtimestamp(record.created, UTC))] if self._shows_time else []
        if not _is_no_audit(record):
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


LOG_FORMAT: Final = "MICROMEGAS_LOG_FORMAT"
LOG_LEVEL: Final = "MICROMEGAS_LOG_LEVEL"
AUDIT_LOG: Final = "MICROMEGAS_AUDIT_LOG"

_FORMATS: Final = ("text", "json")
_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_PACKAGE: Final = "micromegas_jupyter"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """How a server logs.

    Attributes:
        is_json: Whether a line is a JSON object instead of text.
        level: The least level that is shown.
        audit_file: The file that audit lines go to, instead of standard error.
    """

    is_json: bool = False
    level: int = logging.INFO
    audit_file: Path | None = None


def add_log_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--log-format", choices=_FORMATS, help="log lines as text or JSON, default text (MICROMEGAS_LOG_FORMAT)"
    )
    parser.add_argument(
        "--log-level", choices=tuple(_LEVELS), help="the least that is logged, default info (MICROMEGAS_LOG_LEVEL)"
    )
    parser.add_argument(
        "--audit-log",
        metavar="FILE",
        help="append audit lines to a file instead of writing them to standard error (MICROMEGAS_AUDIT_LOG)",
    )


def log_as_arguments_say(arguments: argparse.Namespace) -> None:
    """Log as the options say."""
    chosen = {LOG_FORMAT: arguments.log_format, LOG_LEVEL: arguments.log_level, AUDIT_LOG: arguments.audit_log}
    os.environ.update({name: value for name, value in chosen.items() if value is not None})
    log_as_server(os.environ)


def log_as_server(environ: Mapping[str, str]) -> None:
    """Write records to standard error, and audit lines where they belong, from now on."""
    from micromegas_jupyter.server.library_logs import quiet_libraries

    settings = read_log_settings(environ)
    quiet_libraries()
    terminal = logging.StreamHandler()
    terminal.setLevel(settings.level)
    terminal.setFormatter(_formatter(settings))
    logging.getLogger().addHandler(terminal)
    # The root's default would hide what is told at INFO. What libraries say below WARNING stays hidden.
    logging.getLogger(_PACKAGE).setLevel(min(settings.level, logging.INFO))
    if settings.audit_file is not None:
        from micromegas_jupyter.access.audit import AuditFileHandler

        terminal.addFilter(_is_no_audit)
        logging.getLogger(_AUDIT).addHandler(AuditFileHandler(settings.audit_file))


def tell(line: str, environ: Mapping[str, str] = os.environ) -> None:
    """Say how the server is doing: as a line for people with its time, or as one of the log when that is JSON."""
    if read_log_settings(environ).is_json:
        logging.getLogger(f"{_PACKAGE}.server").info(line)
    else:
        print(time_text(SYSTEM_CLOCK.now()), line, file=sys.stderr)


def read_log_settings(environ: Mapping[str, str]) -> LogSettings:
    """Read the variables."""
    chosen_format = _choice(environ, LOG_FORMAT, _FORMATS, "text")
    level = _choice(environ, LOG_LEVEL, tuple(_LEVELS), "info")
    audit_file = environ.get(AUDIT_LOG)
    return LogSettings(
        is_json=chosen_format == "json",
        level=_LEVELS[level],
        audit_file=Path(audit_file).expanduser() if audit_file else None,
    )


def _choice(environ: Mapping[str, str], name: str, choices: tuple[str, ...], default: str) -> str:
    value = environ.get(name) or default
    if value not in choices:
        raise ConfigurationError(f"{name} has no such value.", key=name, remedy=f"Choose one of: {', '.join(choices)}.")
    return value


def _formatter(settings: LogSettings) -> logging.Formatter:
    if not settings.is_json:
        return _DiscreetFormatter()
    from micromegas_jupyter.server.log_records import JsonFormatter

    return JsonFormatter()


class _DiscreetFormatter(FactsFormatter):
    """Masks what looks like a secret."""

    def __init__(self) -> None:
        super().__init__(shows_time=True)
        from micromegas_jupyter.telemetry import redact_secrets

        self._redact = redact_secrets

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        line = super().format(record)
        return self._redact(line) if _is_no_audit(record) else line


def _is_no_audit(record: logging.LogRecord) -> bool:
    return record.name != _AUDIT and not record.name.startswith(f"{_AUDIT}.")
