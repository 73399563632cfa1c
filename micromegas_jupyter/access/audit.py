"""Audit events of access: one JSON line for each decision about a credential, and never a credential among them."""

import contextlib
import json
import logging
import os
import stat
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import ConfigurationError

MAX_FIELD_CHARACTERS = 256

# Made once: an encoder costs about as much to make as a line costs to write.
_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


def encode_line(record: Mapping[str, object]) -> str:
    """Return the record as one line of JSON: bounded texts (`sql` is bounded by its writer), only printable ASCII."""
    bounded = {
        key: value[:MAX_FIELD_CHARACTERS] if isinstance(value, str) and key != "sql" else value
        for key, value in record.items()
    }
    return _encode(bounded).replace("\x7f", "\\u007f")


def utc_text(moment: datetime) -> str:
    """Return an aware UTC moment in RFC 3339 with milliseconds."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def presentable(fact: str) -> str:
    """Return a text as bounded, printable characters; others stay recognisable as escapes."""
    text = fact[:MAX_FIELD_CHARACTERS]
    if text.isprintable():
        return text
    shown = (
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
    return "".join(shown)[:MAX_FIELD_CHARACTERS]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFacts:
    """One call.

    Attributes:
        method: What was called, such as `DoGet`.
        client_address: The client's IP address.
        call_id: The id under which other logs know the call.
    """

    method: str | None = None
    client_address: str | None = None
    call_id: str | None = None


NO_CALL = CallFacts()
_current: ContextVar[CallFacts] = ContextVar("micromegas_call_facts", default=NO_CALL)


def current_call() -> CallFacts:
    """Return the facts of the call that is being checked, or `NO_CALL`."""
    return _current.get()


@contextmanager
def checking_for(facts: CallFacts) -> Iterator[None]:
    """Let audit events that are recorded inside carry these facts."""
    token = _current.set(facts)
    try:
        yield
    finally:
        _current.reset(token)


LOGGER = logging.getLogger("micromegas_jupyter.access")
AUDIT_LOGGER: Final = logging.getLogger("micromegas_jupyter.audit.access")
# The root logger's default would hide the lines from handlers that are there.
AUDIT_LOGGER.setLevel(logging.INFO)

_SUMMARY_SECONDS = 1.0
_LATEST_SUMMARY_SECONDS = 10.0
_MAX_REASONS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """What a credential says of itself, believed or not; for the audit log only.

    Attributes:
        issuer: The token's `iss`, when it is text.
        subject: The token's `sub`, when it is text.
        key_id: The token's `kid`, when it has one.
    """

    issuer: str | None = None
    subject: str | None = None
    key_id: str | None = None


NOTHING_CLAIMED = Claimed()


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessEvent:
    """What became of a credential or of a call, and why.

    Attributes:
        outcome: `accepted`, `refused`, `undecided`; of a call whose caller is known, `forbidden` or `limited`.
        reason: A fixed word; None when accepted.
        code: The error's code, as the client sees it.
        who: The identity; of a credential that was not accepted, what it claims.
        credential: The credential's name: 8 hexadecimal digits of its digest.
    """

    outcome: str
    reason: str | None = None
    code: str | None = None
    who: Claimed = NOTHING_CLAIMED
    credential: str | None = None


class AccessAudit:
    """Writes access events; never blocks on I/O of its own and never raises.

    Events that are not acceptances are limited, so that a flood neither fills a disk nor keeps the server busy; what
    was left out is counted by reason and told in a line of its own. One lock guards the counts; it is free while a
    line is written.

    Args:
        clock: Dates the lines.
        events_per_second: How many limited events are written, lasting.
        burst_events: How many at once.
    """

    def __init__(
        self, *, clock: Clock = SYSTEM_CLOCK, events_per_second: float = 100.0, burst_events: int = 1000
    ) -> None:
        self._clock = clock
        self._events_per_second = events_per_second
        self._burst_events = burst_events
        self._lock = threading.Lock()
        self._room = float(burst_events)
        self._counted_at = clock.monotonic()
        self._left_out: Counter[str] = Counter()
        self._left_out_since = 0.0

    def record(self, event: AccessEvent) -> None:
        """Write one event, with what is known of the call. A failing log sink neither opens the door nor closes it."""
        if event.outcome == "accepted" and not _is_heard(logging.INFO):
            return
        with contextlib.suppress(Exception):
            is_written, left_out = self._admit(event)
            if left_out:
                self._write(logging.WARNING, {"event": "access_left_out", "left_out": left_out})
            if is_written:
                level = logging.WARNING if event.outcome == "undecided" else logging.INFO
                self._write(level, {"event": "access", **_facts_of(event, current_call())})

    def _admit(self, event: AccessEvent) -> tuple[bool, dict[str, int]]:
        """Return whether the event is written, and the counts that are due to be told."""
        with self._lock:
            now = self._clock.monotonic()
            gained = (now - self._counted_at) * self._events_per_second
            self._room, self._counted_at = min(self._room + gained, float(self._burst_events)), now
            has_room = self._room >= 1
            is_limited = event.outcome != "accepted"
            if is_limited and has_room:
                self._room -= 1
            elif is_limited:
                self._leave_out(event.reason or event.outcome, now)
            waited_seconds = now - self._left_out_since if self._left_out else 0.0
            # In a lasting flood there is room for a moment again and again; one summary a second is enough.
            if waited_seconds >= (_SUMMARY_SECONDS if has_room else _LATEST_SUMMARY_SECONDS):
                told, self._left_out = dict(self._left_out), Counter()
                return has_room or not is_limited, told
            return has_room or not is_limited, {}

    def _leave_out(self, reason: str, now: float) -> None:
        if not self._left_out:
            self._left_out_since = now
        is_new_and_one_too_many = reason not in self._left_out and len(self._left_out) >= _MAX_REASONS
        self._left_out["other" if is_new_and_one_too_many else reason] += 1

    def _write(self, level: int, record: dict[str, object]) -> None:
        if not _is_heard(level):
            return
        record["time"] = utc_text(self._clock.now())
        fields = {key: presentable(value) if isinstance(value, str) else value for key, value in record.items()}
        # Where in the code it happened says nothing here, and to find out would cost more than the rest.
        line = AUDIT_LOGGER.makeRecord(AUDIT_LOGGER.name, level, "", 0, encode_line(record), (), None, extra=fields)
        AUDIT_LOGGER.handle(line)


def record_event(level: int, sentence: str, **facts: str | float | None) -> None:
    """Log `sentence` with `facts` as fields of the record, each bounded and in one line. Never raises."""
    with contextlib.suppress(Exception):
        fields = {name: presentable(fact) if isinstance(fact, str) else fact for name, fact in facts.items()}
        LOGGER.log(level, sentence, extra=fields)


def _is_heard(level: int) -> bool:
    """Whether anybody takes lines of that level; without any handler `logging` itself shows warnings, and no more."""
    return AUDIT_LOGGER.isEnabledFor(level) and (level >= logging.WARNING or AUDIT_LOGGER.hasHandlers())


def _facts_of(event: AccessEvent, call: CallFacts) -> dict[str, object]:
    facts = {
        "outcome": event.outcome,
        "reason": event.reason,
        "code": event.code,
        "issuer": event.who.issuer,
        "subject": event.who.subject,
        "kid": event.who.key_id,
        "credential": event.credential,
        "client_ip": call.client_address,
        "method": call.method,
        "query_id": call.call_id,
    }
    return {name: fact for name, fact in facts.items() if fact is not None}


_LOG: Final = logging.getLogger("micromegas_jupyter.access")
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_MAX_WAITING: Final = 10_000
_GATHER_SECONDS: Final = 0.02
_CLOSE_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 1.0


class AuditFileHandler(logging.Handler):
    """Writes each record's message as one line, on a thread of its own, so that a disk that hangs keeps nobody.

    Several processes may write to one file: a line is appended in one step. What finds no room in the queue is counted,
    and told by a line of its own once there is room; so are lines that the disk did not take. One lock covers queue and
    counts; it is free while the file is written.

    Args:
        path: The file; made when missing, for its owner only.

    Raises:
        ConfigurationError: It is a link or no file, belongs to somebody else, or cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._descriptor: int | None = _open(path)
        self._condition = threading.Condition()
        self._waiting: list[str] = []
        self._left_out = 0
        self._is_closing = False
        self._is_failing = False
        self._thread = threading.Thread(target=self._write_until_closed, name="audit-file", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record's line; never blocks and never raises."""
        try:
            line = record.getMessage()
        except Exception:  # noqa: BLE001 - whatever a record holds, the call goes on
            self.handleError(record)
            return
        with self._condition:
            is_first = not self._waiting
            if len(self._waiting) >= _MAX_WAITING:
                self._left_out += 1
            else:
                self._waiting.append(line)
            if is_first:
                self._condition.notify()

    def close(self) -> None:
        """Write what is queued, within five seconds, and close the file. May be called twice."""
        with self._condition:
            self._is_closing = True
            self._condition.notify()
        self._thread.join(_CLOSE_SECONDS)
        super().close()

    def _write_until_closed(self) -> None:
        while True:
            with self._condition:
                while not self._waiting and not self._left_out and not self._is_closing:
                    self._condition.wait()
                # To wake this thread for each line would cost a busy server more than the line.
                self._condition.wait_for(lambda: self._is_closing, _GATHER_SECONDS)
                lines, self._waiting = self._waiting, []
                left_out, self._left_out = self._left_out, 0
                is_last = self._is_closing
            if left_out:
                lines.insert(0, encode_line({"event": "audit_left_out", "left_out": left_out}))
            if lines and not self._append("".join(f"{line}\n" for line in lines)):
                with self._condition:
                    self._left_out += left_out + len(lines) - bool(left_out)
                    if not is_last:  # a disk that is full is asked again now and then, and once more at the end
                        self._condition.wait_for(lambda: self._is_closing, _RETRY_SECONDS)
            if is_last:
                self._shut()
                return

    def _append(self, text: str) -> bool:
        data = text.encode("utf-8", "replace")
        try:
            self._follow_rotation()
            if self._descriptor is None:
                self._descriptor = _open(self._path)
            written = os.write(self._descriptor, data)
            if written < len(data):
                with suppress(OSError):
                    os.write(self._descriptor, b"\n")  # the next line begins on a line of its own
        except (OSError, ConfigurationError) as error:
            self._tell_once(error)
            return False
        if written < len(data):
            self._tell_once(None)
            return False
        self._is_failing = False
        return True

    def _follow_rotation(self) -> None:
        """Close the file when its name now means another one, or none."""
        if self._descriptor is None:
            return
        try:
            named = self._path.lstat()
        except OSError:
            self._shut()
            return
        mine = os.fstat(self._descriptor)
        if (named.st_dev, named.st_ino) != (mine.st_dev, mine.st_ino):
            self._shut()

    def _shut(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _tell_once(self, error: Exception | None) -> None:
        if not self._is_failing:
            self._is_failing = True
            why = (
                os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "it took part of them only"
            )
            _LOG.error("The audit file cannot be written; lines are being lost.", extra={"why": why})


def _open(path: Path) -> int:
    try:
        descriptor = os.open(path, _FLAGS, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"The audit file cannot be opened: {os.strerror(error.errno or 0)}.",
            key="--audit-log",
            remedy="Name a file, not a link, in a folder that this account may write to.",
        ) from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        os.close(descriptor)
        raise ConfigurationError(
            "The audit file is no regular file, or belongs to somebody else.",
            key="--audit-log",
            remedy="Name a file of this account.",
        )
    if found.st_mode & _OTHERS:
        os.fchmod(descriptor, 0o600)
    return descriptor
