"""Audit events of access: one line for each decision about a credential, and never a credential among them.

A line is one JSON object on the logger `micromegas_jupyter.audit.access`, next to the audit of queries; its facts are
also fields of the log record. Where lines go is for whoever adds a handler. Other events (keys that arrive, a
configuration that changes) are logged by `micromegas_jupyter.access`, in fixed sentences with facts as fields.

A credential that a validator knows already (`cached_context`) leaves no line: the audit of queries names the caller.
"""

import contextlib
import logging
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Final

from micromegas_jupyter.access.audit_lines import encode_line, presentable, utc_text
from micromegas_jupyter.access.call_facts import CallFacts, current_call
from micromegas_jupyter.access.credential import token_name
from micromegas_jupyter.access.decision import NOTHING_CLAIMED, Accepted, Claimed, Decision, Refused
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import Rejected, Unavailable

LOGGER = logging.getLogger("micromegas_jupyter.access")
AUDIT_LOGGER: Final = logging.getLogger("micromegas_jupyter.audit.access")
# The root logger's default would hide the lines from handlers that are there.
AUDIT_LOGGER.setLevel(logging.INFO)

_SUMMARY_SECONDS = 1.0
_LATEST_SUMMARY_SECONDS = 10.0
_MAX_REASONS = 64


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

    def record_decision(self, decision: Decision, token: object) -> None:
        """Write one finding. A log handler that fails changes nothing about the finding."""
        if isinstance(decision, Accepted) and not _is_heard(logging.INFO):
            return
        who, code = decision.claimed, None
        if isinstance(decision, Accepted):
            context = decision.context
            who = Claimed(issuer=context.issuer, subject=context.subject, key_id=decision.claimed.key_id)
        else:
            code = Rejected.code if isinstance(decision, Refused) else Unavailable.code
        self.record(
            AccessEvent(
                outcome=decision.outcome, reason=decision.reason, code=code, who=who, credential=token_name(token)
            )
        )

    def record(self, event: AccessEvent) -> None:
        """Write one event, with what is known of the call."""
        # A failing log sink neither opens the door nor closes it.
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
