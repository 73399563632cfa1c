"""Log records as JSON, one object per line, without secrets; how they look to a person is `cli.log_lines`' job."""

import json
import logging
from datetime import UTC, datetime
from typing import Final

from micromegas_jupyter.access.audit_lines import utc_text
from micromegas_jupyter.telemetry import MASK, bound_text, is_secret_property, redact_secrets

AUDIT_LOGGER: Final = "micromegas_jupyter.audit"

_MAX_MESSAGE_BYTES: Final = 16 * 1024
_MAX_FACTS: Final = 32
_MAX_FACT_BYTES: Final = 1024
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_UNPRINTABLE: Final = "(a value that cannot be shown)"
_encode: Final = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


class JsonFormatter(logging.Formatter):
    """Makes one line of printable ASCII of a record.

    Members: `time` (RFC 3339, UTC), `level`, `logger`, `message`; `facts`, what came with the record; `exception`, a
    traceback; of an audit record `audit`, its object, in place of message and facts.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        members: dict[str, object] = {
            "time": utc_text(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname,
            "logger": record.name,
        }
        audit = _audit_of(record) if is_audit(record) else None
        if audit is not None:
            members["audit"] = audit
        else:
            members["message"] = _clean(_message(record), _MAX_MESSAGE_BYTES)
            facts = {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
            if facts:
                members["facts"] = {
                    bound_text(name, max_bytes=128): _fact(name, value)
                    for name, value in list(facts.items())[:_MAX_FACTS]
                }
        if record.exc_info and record.exc_info[0] is not None:
            members["exception"] = _clean(self.formatException(record.exc_info), _MAX_MESSAGE_BYTES)
        return _encode(members).replace("\x7f", "\\u007f")


def is_audit(record: logging.LogRecord) -> bool:
    """Tell whether a record is a line of an audit."""
    return record.name == AUDIT_LOGGER or record.name.startswith(f"{AUDIT_LOGGER}.")


def _audit_of(record: logging.LogRecord) -> dict[str, object] | None:
    try:
        found: object = json.loads(record.getMessage())
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit the message, or that cannot be shown
        return record.msg if isinstance(record.msg, str) else _UNPRINTABLE


def _fact(name: str, value: object) -> object:
    if is_secret_property(name):
        return MASK
    if value is None or isinstance(value, (bool, int)):
        return value
    try:
        return _clean(str(value), _MAX_FACT_BYTES)
    except Exception:  # noqa: BLE001 - the value's own `__str__`
        return _UNPRINTABLE


def _clean(text: str, max_bytes: int) -> str:
    # Cut before, so that what is looked through is bounded, and after, so that what is shown is.
    return bound_text(redact_secrets(text[:max_bytes]), max_bytes=max_bytes)
