"""What the validators count, in the Prometheus data model.

Where the numbers are read is the server's job. Counting on the path of every call is a step of an iterator, which
is atomic and costs next to nothing; everything else happens when somebody reads.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import count

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# Reason codes and issuers come from code and configuration; a validator from elsewhere may have other ideas.
_MAX_LABEL_SETS = 256
_OTHER = "other"
# Alerts ask for the increase of these; a series that is not there yet has none, and its first event would be missed.
_ALERTED_DECISIONS = (
    ("refused", "internal_error"),
    ("refused", "signature_wrong"),
    ("refused", "algorithm_not_allowed"),
    ("undecided", "keys_unavailable"),
)
_RELOAD_OUTCOMES = ("in_force", "refused", "failed")
_LATENCY_BUCKETS_SECONDS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.005, 0.025, 0.1, 1.0, 10.0)


class Tally:
    """A number that many threads count up; counting takes no lock."""

    __slots__ = ("_lock", "_next", "_reads", "add")

    def __init__(self) -> None:
        self._next = count()
        self._lock = threading.Lock()
        self._reads = 0
        self.add: Callable[[], int] = self._next.__next__

    def value(self) -> int:
        """Return how often `add` was called."""
        with self._lock:
            # Looking at the iterator moves it, so the looks are taken off again.
            seen = next(self._next) - self._reads
            self._reads += 1
            return seen


class AccessMetrics(Collector):
    """The numbers of one server's validators; safe to share between threads.

    One lock guards the known labels. However many labels there are, memory stays bounded: what
    comes after the first few hundred is counted as `other`.

    Attributes:
        registry: Where a reader finds them.
        cache_hits: Counts credentials that were known already.
        cache_misses: Counts credentials that had to be looked at.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.cache_hits = Tally()
        self.cache_misses = Tally()
        self._lock = threading.Lock()
        self._key_ages: Mapping[str, Callable[[], float | None]] = {}
        self._counted_decisions: dict[tuple[str, str], Counter] = {}
        self._issuers: set[str] = set()
        self._reloads = {outcome: Tally() for outcome in _RELOAD_OUTCOMES}
        self._in_force_seconds: float | None = None
        self._decisions = Counter(
            "micromegas_access_decisions",
            "Credentials that were looked at, by outcome and reason.",
            ["outcome", "reason"],
            registry=self.registry,
        )
        self._latency = Histogram(
            "micromegas_access_decision_seconds",
            "How long looking at a credential took, known ones left out.",
            buckets=_LATENCY_BUCKETS_SECONDS,
            registry=self.registry,
        )
        self._key_fetches = Counter(
            "micromegas_access_key_fetches",
            "Fetches of an issuer's keys, by issuer and outcome.",
            ["issuer", "outcome"],
            registry=self.registry,
        )
        self._rate_limited = Counter(
            "micromegas_access_rate_limited",
            "Calls that came too often, by what was counted.",
            ["by"],
            registry=self.registry,
        )
        self.registry.register(self)
        for outcome, reason in _ALERTED_DECISIONS:
            self._new_decision(outcome, reason)

    def count_decision(self, outcome: str, reason: str, seconds: float) -> None:
        """Count one finding: `accepted`, `refused` or `undecided`, with its reason code (empty when accepted)."""
        counter = self._counted_decisions.get((outcome, reason))
        if counter is None:
            counter = self._new_decision(outcome, reason)
        counter.inc()
        self._latency.observe(seconds)

    def count_key_fetch(self, issuer: str, *, succeeded: bool) -> None:
        """Count one fetch of an issuer's keys."""
        self._key_fetches.labels(self._issuer_label(issuer), "succeeded" if succeeded else "failed").inc()

    def expect_key_fetches(self, issuer: str) -> None:
        """Report the fetches of an issuer's keys from now on, also while there were none."""
        label = self._issuer_label(issuer)
        for outcome in ("succeeded", "failed"):
            self._key_fetches.labels(label, outcome)

    def count_reload(self, outcome: str) -> None:
        """Count one reload of the configuration: `in_force`, `refused` or `failed`."""
        self._reloads[outcome].add()

    def note_in_force(self, loaded_at: datetime) -> None:
        """Report since when the configuration is in force; from then on, reloads are reported too."""
        self._in_force_seconds = loaded_at.timestamp()

    def count_rate_limited(self, by: str) -> None:
        """Count one refused call: by `identity` or by `address`."""
        self._rate_limited.labels(by).inc()

    def watch_keys(self, ages_seconds: Mapping[str, Callable[[], float | None]]) -> None:
        """Report the age of these issuers' keys from now on, and of no others."""
        self._key_ages = ages_seconds

    def collect(self) -> Iterator[Metric]:
        """Yield the numbers that are not counters of the registry's own."""
        for name, text, tally in (
            ("hits", "Credentials that were known already.", self.cache_hits),
            ("misses", "Credentials that had to be looked at.", self.cache_misses),
        ):
            yield CounterMetricFamily(f"micromegas_access_cache_{name}", text, value=tally.value())
        ages = GaugeMetricFamily(
            "micromegas_access_key_set_age_seconds", "How old an issuer's keys are.", labels=["issuer"]
        )
        for issuer, age_seconds in self._key_ages.items():
            age = age_seconds()
            if age is not None:
                ages.add_metric([issuer], age)
        yield ages
        if self._in_force_seconds is not None:
            yield from self._reload_metrics(self._in_force_seconds)

    def _reload_metrics(self, in_force_seconds: float) -> Iterator[Metric]:
        reloads = CounterMetricFamily(
            "micromegas_access_reloads", "Reloads of the access configuration, by outcome.", labels=["outcome"]
        )
        for outcome, tally in self._reloads.items():
            reloads.add_metric([outcome], tally.value())
        yield reloads
        yield GaugeMetricFamily(
            "micromegas_access_configuration_in_force_timestamp_seconds",
            "Since when the access configuration is in force, in seconds of Unix time.",
            value=in_force_seconds,
        )

    def _issuer_label(self, issuer: str) -> str:
        with self._lock:
            if issuer not in self._issuers and len(self._issuers) >= _MAX_LABEL_SETS:
                issuer = _OTHER
            self._issuers.add(issuer)
        return issuer

    def _new_decision(self, outcome: str, reason: str) -> Counter:
        with self._lock:
            is_full = len(self._counted_decisions) >= _MAX_LABEL_SETS
            counter: Counter = self._decisions.labels(outcome, _OTHER if is_full else reason)
            if not is_full:
                self._counted_decisions[outcome, reason] = counter
            return counter
