"""Log records without secrets, as rows for the recorder and as JSON lines, without lines that strangers can trigger."""

import json
import logging
import os
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple

from micromegas_jupyter.access.audit import utc_text
from micromegas_jupyter.core.log_writer import RECEIPT_FIELD
from micromegas_jupyter.telemetry.levels import level_from_logging
from micromegas_jupyter.telemetry.tables import nanoseconds_since_epoch
from micromegas_jupyter.telemetry.text import MASK, bound_text, is_secret_property, redact_secrets

AUDIT_LOGGER: Final = "micromegas_jupyter.audit"
TARGET_FIELD: Final = "log_entries_target"
"""The field of a record whose row has a target other than its logger's name."""
MAX_RECORDS = 50_000
MAX_QUEUED_CHARACTERS = 32 * 1024 * 1024
MAX_MESSAGE_BYTES = 16 * 1024
MAX_AUDIT_LINE_BYTES: Final = 64 * 1024
MAX_TARGET_BYTES = 256
MAX_PROPERTIES = 32
MAX_PROPERTY_NAME_BYTES = 128
MAX_PROPERTY_BYTES = 1024

_END_OF_TIME_NS = 2**63
_UNPRINTABLE = "(a value that cannot be shown)"
# Standard fields, and those that other handlers' formatters add; the rest were passed as `extra`.
_STANDARD_FIELDS = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message", "asctime", "taskName", TARGET_FIELD, RECEIPT_FIELD
}  # fmt: skip
_FORMATTER = logging.Formatter()
_encode: Final = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode

_LOG: Final = logging.getLogger("micromegas_jupyter.server")
_TORNADO: Final = logging.getLogger("tornado.general")
# Prefixes of `tornado.iostream`'s messages about connections, which end with the error, and their replacements.
_CONNECTION_MESSAGES: Final = {
    "SSL Error on ": "A connection to the HTTP port made no TLS.",
    "error on read": "A connection to the HTTP port broke while it was read.",
    "Write error on ": "A connection to the HTTP port broke while it was written to.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRow:
    """One log entry; `target` is the logger's name, and `level` is one of `Level`."""

    time_ns: int
    target: str
    level: int
    msg: str
    properties: Mapping[str, str] = field(default_factory=dict)


class _Captured(NamedTuple):
    """A record as text of limited size, before redaction."""

    time_ns: int
    level: int
    target: str
    text: str
    is_audit: bool
    extra: tuple[tuple[str, str], ...]

    @property
    def characters(self) -> int:
        return len(self.target) + len(self.text) + sum(len(name) + len(value) for name, value in self.extra)


class RecordingHandler(logging.Handler):
    """Queues log records until they are drained; excess records are counted and dropped. Never blocks, never raises.

    The caller's thread only converts a record to bounded text; it is redacted when the queue is drained. The handler's
    lock is re-entrant, because a destructor or a signal handler may log while it is held; it is released while
    application code formats a record. `wake` is called when the queue is half full.
    """

    def __init__(
        self,
        *,
        max_records: int = MAX_RECORDS,
        max_characters: int = MAX_QUEUED_CHARACTERS,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self._max_records = max_records
        self._max_characters = max_characters
        self._wake = wake
        self._queue: list[_Captured] = []
        self._characters = 0
        self._dropped = 0

    def handle(self, record: logging.LogRecord) -> bool:
        """Queue a record that passes the filters, without taking the lock as other handlers do."""
        passed: object = self.filter(record)
        if passed:
            # In Python 3.12 and later, a filter may return a different record.
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record, or count it as dropped."""
        captured = None
        with suppress(Exception):  # the application continues, whatever a record contains
            captured = _capture(record)
        self.acquire()
        try:
            is_half_full = self._enqueue(captured)
        finally:
            self.release()
        if is_half_full:
            self._wake()

    def drain(self) -> tuple[list[LogRow], int]:
        """Return all queued records as rows without secrets, oldest first, and the number of dropped records."""
        self.acquire()
        try:
            queue, dropped = self._queue, self._dropped
            self._queue, self._characters, self._dropped = [], 0, 0
        finally:
            self.release()
        return [_build_row(captured) for captured in queue], dropped

    def _enqueue(self, captured: _Captured | None) -> bool:
        if (
            captured is None
            or len(self._queue) >= self._max_records
            or self._characters + captured.characters > self._max_characters
        ):
            self._dropped += 1
            return False
        self._queue.append(captured)
        self._characters += captured.characters
        return len(self._queue) == self._max_records // 2


def _capture(record: logging.LogRecord) -> _Captured:
    is_of_audit = is_audit(record)
    max_bytes = MAX_AUDIT_LINE_BYTES if is_of_audit else MAX_MESSAGE_BYTES
    text = _message(record)[:max_bytes]
    if len(text) < max_bytes:
        # A traceback references frames and their variables, so it is formatted immediately.
        if record.exc_info and record.exc_info[0] is not None:
            text = f"{text}\n{_FORMATTER.formatException(record.exc_info)}"
        elif record.exc_text:
            text = f"{text}\n{record.exc_text}"
        if record.stack_info:
            text = f"{text}\n{record.stack_info}"
    time_ns = nanoseconds_since_epoch(record.created)
    if not 0 <= time_ns < _END_OF_TIME_NS:
        # Otherwise, storage would reject the record.
        raise ValueError("a record's time does not fit into 64 bits")
    return _Captured(
        time_ns=time_ns,
        level=level_from_logging(record.levelno),
        target=getattr(record, TARGET_FIELD, record.name)[:MAX_TARGET_BYTES],
        text=text[:max_bytes],
        is_audit=is_of_audit,
        extra=tuple(
            (name[:MAX_PROPERTY_NAME_BYTES], _text(value)) for name, value in _extra_fields(record.__dict__).items()
        ),
    )


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit the message, or that cannot be shown
        return record.msg if isinstance(record.msg, str) else _UNPRINTABLE


def _extra_fields(fields: Mapping[str, object]) -> dict[str, object]:
    names = [name for name in fields if name not in _STANDARD_FIELDS]
    return {name: fields[name] for name in names[:MAX_PROPERTIES]}


def _text(value: object) -> str:
    try:
        return str(value)[:MAX_PROPERTY_BYTES]
    except Exception:  # noqa: BLE001 - the application's own `__str__`
        return _UNPRINTABLE


def _build_row(captured: _Captured) -> LogRow:
    return LogRow(
        time_ns=captured.time_ns,
        target=bound_text(captured.target, max_bytes=MAX_TARGET_BYTES),
        level=captured.level,
        msg=_clean_audit(captured.text) if captured.is_audit else _clean(captured.text, MAX_MESSAGE_BYTES),
        properties={
            bound_text(name, max_bytes=MAX_PROPERTY_NAME_BYTES): _property_text(name, value)
            for name, value in captured.extra
        },
    )


def _clean_audit(line: str) -> str:
    """Return an audit line without secrets that is still valid JSON: masking the line itself could break a string."""
    try:
        record: object = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        return _clean(line, MAX_MESSAGE_BYTES)
    cleaned = {name: redact_secrets(value) if isinstance(value, str) else value for name, value in record.items()}
    return _encode(cleaned).replace("\x7f", "\\u007f")


def _property_text(name: str, value: str) -> str:
    return MASK if is_secret_property(name) else _clean(value, MAX_PROPERTY_BYTES)


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of printable ASCII, with its `facts`, or its object for audit lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        members: dict[str, object] = {
            "time": utc_text(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname,
            "logger": record.name,
        }
        audit = _audit_object(record) if is_audit(record) else None
        if audit is not None:
            members["audit"] = audit
        else:
            members["message"] = _clean(_message(record), MAX_MESSAGE_BYTES)
            if facts := _extra_fields(record.__dict__):
                members["facts"] = {
                    bound_text(name, max_bytes=MAX_PROPERTY_NAME_BYTES): _fact(name, value)
                    for name, value in facts.items()
                }
        if record.exc_text or (record.exc_info and record.exc_info[0] is not None):
            text = record.exc_text or self.formatException(record.exc_info)  # type: ignore[arg-type]
            members["exception"] = _clean(text, MAX_MESSAGE_BYTES)
        return _encode(members).replace("\x7f", "\\u007f")


def is_audit(record: logging.LogRecord) -> bool:
    """Whether a record is an audit line."""
    return record.name == AUDIT_LOGGER or record.name.startswith(f"{AUDIT_LOGGER}.")


def _audit_object(record: logging.LogRecord) -> dict[str, object] | None:
    try:
        found: object = json.loads(record.getMessage())
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _fact(name: str, value: object) -> object:
    if value is None or isinstance(value, (bool, int)):
        return MASK if is_secret_property(name) else value
    return _property_text(name, _text(value))


def _clean(text: str, max_bytes: int) -> str:
    # Cut before redaction to limit the search, and afterwards to limit the result.
    return bound_text(redact_secrets(text[:max_bytes]), max_bytes=max_bytes)


def quiet_libraries(environ: MutableMapping[str, str] = os.environ) -> None:
    """Silence gRPC's own lines unless `GRPC_VERBOSITY` is set, and log broken connections to the HTTP port at DEBUG.

    Anyone who reaches a port can provoke these lines, which are not in the log's format. Call it before using gRPC.
    """
    environ.setdefault("GRPC_VERBOSITY", "NONE")
    _TORNADO.addFilter(_without_connections)


def _without_connections(record: logging.LogRecord) -> bool:
    message = str(record.msg)
    ours = next((ours for start, ours in _CONNECTION_MESSAGES.items() if message.startswith(start)), None)
    if ours is None:
        return True
    facts = record.args if isinstance(record.args, tuple) else ()
    client = next((fact[0] for fact in facts if isinstance(fact, tuple) and fact), None)
    why = getattr(facts[-1] if facts else None, "reason", None) or record.getMessage().partition(": ")[2]
    _LOG.debug(ours, extra={"client": client, "why": why})
    return False
