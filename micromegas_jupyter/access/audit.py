"""Access check output: audit lines, events, Prometheus metrics, and the token buckets that limit them.

Each decision about a credential is one JSON line on the logger `micromegas_jupyter.audit.access`, next to the query
audit, and never contains the credential. The log record has the same facts as fields. Other events (fetched keys, a
changed configuration) are logged to `micromegas_jupyter.access`, as constant sentences with facts as fields. A cached
credential produces no line, because the query audit already identifies the caller.
"""

import collections
import errno
import json
import logging
import os
import socket
import stat
import threading
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec
from cachetools import LRUCache

from micromegas_jupyter.core.log_writer import LogWriter, LogWriterHandler
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import ConfigurationError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

LOGGER: Final = logging.getLogger("micromegas_jupyter.access")
AUDIT_LOGGER: Final = logging.getLogger("micromegas_jupyter.audit.access")
# Otherwise the root logger's default level would hide the lines from existing handlers.
AUDIT_LOGGER.setLevel(logging.INFO)

MAX_FIELD_CHARACTERS = 256
_SUMMARY_SECONDS = 1.0
_MAX_SUMMARY_DELAY_SECONDS = 10.0

_FILE_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_CLOSE_SECONDS: Final = 5.0

# Alerts use the increase of these series. A series must exist before its first event, or the event is missed.
_ALERTED_DECISIONS = (
    ("refused", "internal_error"),
    ("refused", "signature_wrong"),
    ("refused", "algorithm_not_allowed"),
    ("undecided", "keys_unavailable"),
    ("undecided", "key_refetch_due"),
)
_COUNTERS: Final = {
    "decisions": (
        "Checked credentials by outcome (accepted, refused, or undecided) and reason.",
        ("outcome", "reason"),
    ),
    "key_fetches": ("Fetches of an issuer's keys: succeeded or failed.", ("issuer", "outcome")),
    "rate_limited": ("Calls rejected by a rate limit: by identity or by address.", ("by",)),
    "reloads": ("New versions of the configuration: in_force, refused, or failed.", ("outcome",)),
}
_LATENCY_BUCKETS_SECONDS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.005, 0.025, 0.1, 1.0, 10.0)

Key = TypeVar("Key", bound=Hashable)


class AccessMetrics:
    """Metrics for one server's validators; label values are limited to reason codes and configured issuers.

    Counts without the Prometheus library, which only the server installs.
    """

    def __init__(self) -> None:
        self.key_ages: Mapping[str, Callable[[], float | None]] = {}
        self.in_force_since = 0.0
        # No lock, because every call increments one of these; if two threads do so simultaneously, one may be lost.
        self.cache_hits = 0
        self.cache_misses = 0
        self._lock = threading.Lock()
        self._counts: dict[str, collections.Counter[tuple[str, ...]]] = {
            "decisions": collections.Counter(dict.fromkeys(_ALERTED_DECISIONS, 0)),
            "key_fetches": collections.Counter(),
            "rate_limited": collections.Counter(),
            "reloads": collections.Counter({("in_force",): 0, ("refused",): 0, ("failed",): 0}),
        }
        self._latencies = [0] * (len(_LATENCY_BUCKETS_SECONDS) + 1)
        self._latency_seconds = 0.0

    def _count(self, name: str, *labels: str, times: int = 1) -> None:
        with self._lock:
            self._counts[name][labels] += times

    def count_decision(self, outcome: str, reason: str, seconds: float) -> None:
        """Count one decision: `accepted`, `refused`, or `undecided`, with its reason code (empty when accepted)."""
        self._count("decisions", outcome, reason)
        with self._lock:
            self._latencies[bisect_left(_LATENCY_BUCKETS_SECONDS, seconds)] += 1
            self._latency_seconds += seconds

    def count_key_fetch(self, issuer: str, *, succeeded: bool | None) -> None:
        """Count one fetch of an issuer's keys; `succeeded=None` only creates the counters so that they report zero."""
        for outcome, is_it in (("succeeded", succeeded), ("failed", succeeded is False)):
            self._count("key_fetches", issuer, outcome, times=1 if is_it else 0)

    def count_rate_limited(self, by: str) -> None:
        """Count a call that was rejected by a rate limit, either by `identity` or by `address`."""
        self._count("rate_limited", by)

    def count_reload(self, outcome: str) -> None:
        """Count a new configuration version as `in_force`, `refused`, or `failed`."""
        self._count("reloads", outcome)

    @cached_property
    def registry(self) -> "CollectorRegistry":
        """A registry with these metrics, for the Prometheus library."""
        from prometheus_client import CollectorRegistry

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return registry

    def collect(self) -> "Iterator[Metric]":
        """Yield the metrics."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        with self._lock:
            counts = {name: dict(counted) for name, counted in self._counts.items()}
            latencies, latency_seconds = tuple(self._latencies), self._latency_seconds
        for name, (text, labels) in _COUNTERS.items():
            family = CounterMetricFamily(f"micromegas_access_{name}", text, labels=labels)
            for values, count in counts[name].items():
                family.add_metric(values, count)
            yield family
        for name, text, value in (
            ("hits", "Credentials that were found in the cache.", self.cache_hits),
            ("misses", "Credentials that weren't found in the cache.", self.cache_misses),
        ):
            yield CounterMetricFamily(f"micromegas_access_cache_{name}", text, value=value)
        bounds = (*map(str, _LATENCY_BUCKETS_SECONDS), "+Inf")
        yield HistogramMetricFamily(
            "micromegas_access_decision_seconds",
            "Time to check a credential that isn't in the cache.",
            buckets=list(zip(bounds, accumulate(latencies), strict=True)),
            sum_value=latency_seconds,
        )
        yield GaugeMetricFamily(
            "micromegas_access_configuration_in_force_timestamp_seconds",
            "Time when the current configuration took effect, in Unix seconds.",
            value=self.in_force_since,
        )
        ages = GaugeMetricFamily("micromegas_access_key_set_age_seconds", "Age of the keys in use.", labels=["issuer"])
        for issuer, age_seconds in self.key_ages.items():
            age = age_seconds()
            if age is not None:
                ages.add_metric([issuer], age)
        yield ages


class TokenBuckets(Generic[Key]):
    """One token bucket per key; thread-safe.

    A bucket is stored as the time at which it will be full, so full buckets use no memory. If there are too many
    buckets, the least recently used one is dropped, which can only benefit its user.
    """

    def __init__(self, *, per_second: float, burst: int, max_tracked: int, clock: Clock) -> None:
        self._seconds_per_token = 1.0 / per_second
        self._burst_seconds = (burst - 1) * self._seconds_per_token
        self._monotonic = clock.monotonic
        self._lock = threading.Lock()
        self._full_at: LRUCache[Key, float] = LRUCache(max_tracked)

    def take(self, key: Key) -> float:
        """Take a token and return 0, or return the number of seconds until one is available."""
        now = self._monotonic()
        with self._lock:
            full_at = max(now, self._full_at.get(key, now))
            wait_seconds = full_at - now - self._burst_seconds
            if wait_seconds > 0:
                return wait_seconds
            self._full_at[key] = full_at + self._seconds_per_token
            return 0.0

    def release(self, key: Key, *, share: float = 1.0) -> None:
        """Return a token, or a fraction of one, to the bucket."""
        now = self._monotonic()
        with self._lock:
            full_at = self._full_at.get(key, now) - self._seconds_per_token * share
            if full_at > now:
                self._full_at[key] = full_at
            else:
                self._full_at.pop(key, None)


# Created once, because creating an encoder costs about as much as encoding a line.
_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


def encode_line(record: Mapping[str, object]) -> str:
    """Return the record as one line of printable ASCII JSON; strings other than `sql` are truncated."""
    bounded = {
        key: value[:MAX_FIELD_CHARACTERS] if isinstance(value, str) and key != "sql" else value
        for key, value in record.items()
    }
    return _encode(bounded).replace("\x7f", "\\u007f")


def utc_text(time: datetime) -> str:
    """Format an aware UTC time as RFC 3339 with milliseconds."""
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def presentable(fact: str) -> str:
    """Truncate a string and escape its unprintable characters."""
    text = fact[:MAX_FIELD_CHARACTERS]
    if text.isprintable():
        return text
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return escaped[:MAX_FIELD_CHARACTERS]


def record_event(level: int, sentence: str, **facts: str | float | None) -> None:
    """Log `sentence` with `facts` as record fields; strings are truncated and printable. Never raises."""
    with suppress(Exception):
        fields = {name: presentable(fact) if isinstance(fact, str) else fact for name, fact in facts.items()}
        LOGGER.log(level, sentence, extra=fields)


# The owner of an IPv6 address controls at least its /64 network (RFC 6177).
_IPV6_NETWORK_BYTES = 8
# RFC 4291 section 2.5.5.2.
_IPV4_MAPPED = bytes(10) + b"\xff\xff"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFacts:
    """Known facts about the call that sent the credential: its method, client address, and ID in other logs."""

    method: str | None = None
    client_address: str | None = None
    call_id: str | None = None


def network_of(client_address: str) -> str | bytes:
    """Return the key for rate limits: an IPv4 address, an IPv6 network, or one key for all unknown addresses."""
    if ":" not in client_address:
        return client_address
    try:
        packed = socket.inet_pton(socket.AF_INET6, client_address)
    except OSError:
        return client_address
    if packed.startswith(_IPV4_MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[len(_IPV4_MAPPED) :])
    return packed[:_IPV6_NETWORK_BYTES]


_current_call: ContextVar[CallFacts] = ContextVar("micromegas_call_facts", default=CallFacts())  # noqa: B039 - frozen


@contextmanager
def checking_for(facts: CallFacts) -> Iterator[None]:
    """Add these facts to audit events that are recorded in this context."""
    token = _current_call.set(facts)
    try:
        yield
    finally:
        _current_call.reset(token)


def current_network() -> str | bytes | None:
    """Return the network of the call whose credential is being checked, or None outside of a call."""
    address = _current_call.get().client_address
    return None if address is None else network_of(address)


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """A credential's claims, verified or not; for the audit log only."""

    issuer: str | None = None
    subject: str | None = None
    key_id: str | None = None


NOTHING_CLAIMED = Claimed()


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessEvent:
    """The outcome of checking a credential or call, and its reason."""

    outcome: str
    reason: str | None = None
    code: str | None = None
    who: Claimed = NOTHING_CLAIMED
    credential: str | None = None


class AccessAudit:
    """Writes access events; never blocks on I/O and never raises.

    Events other than acceptances are rate-limited, so that a flood neither fills the disk nor overloads the server.
    Dropped events are counted by reason and reported on a separate line.
    """

    def __init__(
        self, *, clock: Clock = SYSTEM_CLOCK, events_per_second: float = 100.0, burst_events: int = 1000
    ) -> None:
        self._clock = clock
        self._bucket: TokenBuckets[None] = TokenBuckets(
            per_second=events_per_second, burst=burst_events, max_tracked=1, clock=clock
        )
        self._lock = threading.Lock()
        self._left_out: collections.Counter[str] = collections.Counter()
        self._left_out_since = 0.0

    def has_listener(self, outcome: str) -> bool:
        """Return whether events with this outcome are logged; if not, the caller need not build them."""
        return outcome != "accepted" or _has_listener(logging.INFO)

    def record(self, event: AccessEvent) -> None:
        """Write one event with the facts about the call. A failing log sink does not change the decision."""
        with suppress(Exception):
            is_written, left_out = self._admit(event)
            if left_out:
                self._write(logging.WARNING, {"event": "access_left_out", "left_out": left_out})
            if is_written:
                level = logging.WARNING if event.outcome == "undecided" else logging.INFO
                self._write(level, {"event": "access", **_facts_of(event, _current_call.get())})

    def _admit(self, event: AccessEvent) -> tuple[bool, dict[str, int]]:
        """Return whether to write the event, and the counts of dropped events that must be reported now, if any."""
        with self._lock:
            now = self._clock.monotonic()
            is_written = event.outcome == "accepted" or not self._bucket.take(None)
            if not is_written:
                if not self._left_out:
                    self._left_out_since = now
                self._left_out[event.reason or event.outcome] += 1
            # During a long flood, a few events repeatedly get past the limit; one summary per second is enough.
            delay_seconds = _SUMMARY_SECONDS if is_written else _MAX_SUMMARY_DELAY_SECONDS
            if not self._left_out or now - self._left_out_since < delay_seconds:
                return is_written, {}
            left_out, self._left_out = self._left_out, collections.Counter()
            return is_written, dict(left_out)

    def _write(self, level: int, record: dict[str, object]) -> None:
        if not _has_listener(level):
            return
        record["time"] = utc_text(self._clock.now())
        fields = {key: presentable(value) if isinstance(value, str) else value for key, value in record.items()}
        # The code location is useless here, and finding it would cost more than everything else combined.
        line = AUDIT_LOGGER.makeRecord(AUDIT_LOGGER.name, level, "", 0, encode_line(record), (), None, extra=fields)
        AUDIT_LOGGER.handle(line)


def _has_listener(level: int) -> bool:
    # Without handlers, `logging` prints only warnings and above.
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


class AuditFile:
    """A file that several processes append lines to; each batch is appended in a single write.

    The file is opened for each batch, so it follows a rotation. Written lines are in the operating system's cache: they
    survive a crash of this process, but not necessarily a power failure.
    """

    name = "audit file"
    is_durable = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._has_partial_line = False
        os.close(_open_file(path))

    def lost_line(self, count: int) -> str:
        """Return the line that reports how many lines were dropped."""
        return encode_line({"event": "audit_left_out", "left_out": count})

    def report_failure(self, error: OSError) -> None:
        """Log that the file cannot be written."""
        why = "it cannot be opened" if error.errno == errno.EPERM else os.strerror(error.errno or 0)
        LOGGER.error("The audit file cannot be written; new calls are rejected until it can.", extra={"why": why})

    def write(self, lines: list[bytes]) -> int:
        """Append lines and return how many were written completely; raise OSError if none could be written."""
        try:
            descriptor = _open_file(self._path)
        except ConfigurationError as error:
            raise OSError(errno.EPERM, error.what) from None
        try:
            # Start on a new line if a full disk left a partial line.
            prefix = b"\n" if self._has_partial_line else b""
            left = os.write(descriptor, prefix + b"".join(lines)) - len(prefix)
        finally:
            os.close(descriptor)
        count = 0
        while count < len(lines) and left >= len(lines[count]):
            left -= len(lines[count])
            count += 1
        self._has_partial_line = (left > 0) if count else (self._has_partial_line or left > 0)
        if not count:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return count


class AuditFileHandler(LogWriterHandler):
    """Appends each record's message to a file as one line, on a separate thread; calls return once it is written.

    Raises:
        ConfigurationError: The path is a link or not a regular file, has another owner, or cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(LogWriter(AuditFile(path)))

    def close(self) -> None:
        """Write queued lines for at most five seconds. May be called twice."""
        self.writer.close(_CLOSE_SECONDS)
        super().close()


def _open_file(path: Path) -> int:
    try:
        descriptor = os.open(path, _FILE_FLAGS, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"The audit file cannot be opened: {os.strerror(error.errno or 0)}.",
            key="--audit-log",
            remedy="Use a file, not a link, in a folder that this account can write to.",
        ) from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
        os.close(descriptor)
        raise ConfigurationError(
            "The audit file is not a regular file, or another account owns it.",
            key="--audit-log",
            remedy="Use a file that this account owns.",
        )
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        os.fchmod(descriptor, 0o600)
    return descriptor
