"""Says in the log and in the metrics what becomes of an issuer's keys.

What happens to them is `key_source`'s job.
"""

import enum
import logging
import threading

from micromegas_jupyter.access.audit import record_event
from micromegas_jupyter.access.key_policy import KeyPolicy
from micromegas_jupyter.access.metrics import AccessMetrics
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.oidc.keys import KeySet


class _Freshness(enum.IntEnum):
    FRESH = 0
    STALE = 1
    EXPIRED = 2


_SENTENCES = {
    _Freshness.STALE: "An issuer does not answer; its last keys are used beyond their refresh interval.",
    _Freshness.EXPIRED: "An issuer does not answer, and its last keys are too old to be used.",
}


class KeyEvents:
    """Records what happens to one issuer's keys; each change between fresh, stale and expired leaves one event.

    One lock guards which of the three it is.
    """

    def __init__(self, issuer: str, *, policy: KeyPolicy, metrics: AccessMetrics | None) -> None:
        self._issuer = issuer
        self._policy = policy
        self._metrics = metrics
        self._lock = threading.Lock()
        self._freshness = _Freshness.FRESH

    def record_failure(self, error: BaseException) -> None:
        """Record that a fetch failed."""
        if self._metrics is not None:
            self._metrics.count_key_fetch(self._issuer, succeeded=False)
        # Sentences of other libraries may hold anything, so of their errors only the kind is told.
        reason, detail = type(error).__name__, None
        if isinstance(error, MicromegasError):
            reason, detail = error.code, error.what
        record_event(
            logging.WARNING,
            "An issuer's keys could not be fetched.",
            issuer=self._issuer,
            reason=reason,
            detail=detail,
        )

    def record_arrival(self, fetched: KeySet, *, previous: KeySet | None, previous_age_seconds: float) -> None:
        """Record that a fetch brought keys."""
        if self._metrics is not None:
            self._metrics.count_key_fetch(self._issuer, succeeded=True)
        with self._lock:
            was, self._freshness = self._freshness, _Freshness.FRESH
        if was is not _Freshness.FRESH:
            record_event(
                logging.INFO,
                "An issuer answers again; its keys are fresh.",
                issuer=self._issuer,
                age_seconds=round(previous_age_seconds),
            )
        if previous is None or _key_ids(previous) != _key_ids(fetched):
            record_event(
                logging.INFO if fetched.keys else logging.WARNING,
                "An issuer's keys changed.",
                issuer=self._issuer,
                usable=len(fetched.keys),
                ignored=fetched.ignored_count,
            )

    def record_age(self, age_seconds: float) -> None:
        """Record that no newer keys could be had than those of this age."""
        found = _Freshness.FRESH
        if age_seconds >= self._policy.stale_limit_seconds:
            found = _Freshness.EXPIRED
        elif age_seconds >= self._policy.refresh_interval_seconds:
            found = _Freshness.STALE
        with self._lock:
            if found <= self._freshness:
                return
            self._freshness = found
        record_event(logging.WARNING, _SENTENCES[found], issuer=self._issuer, age_seconds=round(age_seconds))


def _key_ids(keys: KeySet) -> list[str | None]:
    return [key.key_id for key in keys.keys]
