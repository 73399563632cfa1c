"""How often an identity may call, and how often an address may be refused: token buckets in bounded memory."""

import math
import socket
import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from cachetools import LRUCache

from micromegas_jupyter.access.metrics import AccessMetrics
from micromegas_jupyter.config.access import RateLimits
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import ResourcesExhausted

Key = TypeVar("Key", bound=Hashable)

# Whoever has one IPv6 address has at least the 2**64 of its network (RFC 6177).
_IPV6_NETWORK_BYTES = 8
# RFC 4291 section 2.5.5.2.
_IPV4_MAPPED = bytes(10) + b"\xff\xff"
# Of a credential that could not be checked, a quarter counts: whoever tries again in an outage still gets an answer,
# and a flood of forged tokens that name a provider which does not answer comes to an end.
_UNDECIDED_SHARE = 0.75


class TokenBuckets(Generic[Key]):
    """One token bucket for each key; safe to share between threads.

    A bucket is stored as the time at which it will be full again, so a full one needs no memory. When there are too
    many, the least recently used one is forgotten, which can only be in its user's favor.

    Args:
        per_second: Tokens that come back per second.
        burst: Tokens of a full bucket.
        max_tracked: Buckets that are remembered.
        clock: Tells the time.
    """

    def __init__(self, *, per_second: float, burst: int, max_tracked: int, clock: Clock) -> None:
        self._seconds_per_token = 1.0 / per_second
        self._burst_seconds = (burst - 1) * self._seconds_per_token
        self._monotonic = clock.monotonic
        self._lock = threading.Lock()
        self._full_at: LRUCache[Key, float] = LRUCache(max_tracked)

    def __len__(self) -> int:
        with self._lock:
            return len(self._full_at)

    def take(self, key: Key) -> float:
        """Take a token and return 0, or return how many seconds it is until there is one."""
        now = self._monotonic()
        with self._lock:
            full_at = max(now, self._full_at.get(key, now))
            wait_seconds = full_at - now - self._burst_seconds
            if wait_seconds > 0:
                return wait_seconds
            self._full_at[key] = full_at + self._seconds_per_token
            return 0.0

    def release(self, key: Key, *, share: float = 1.0) -> None:
        """Put back a token that was taken, or a share of it."""
        now = self._monotonic()
        with self._lock:
            full_at = self._full_at.get(key, now) - self._seconds_per_token * share
            if full_at > now:
                self._full_at[key] = full_at
            else:
                self._full_at.pop(key, None)


class CallLimits:
    """The limits of one server.

    Args:
        limits: The numbers, or where to read those that count now; when they change, all buckets are full again.
        clock: Tells the time.
        metrics: Counts calls that are turned away.
    """

    def __init__(
        self, limits: RateLimits | Callable[[], RateLimits], *, clock: Clock, metrics: AccessMetrics | None = None
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._read_limits = limits if callable(limits) else lambda: limits
        self._use(self._read_limits())

    def _use(self, limits: RateLimits) -> None:
        self._limits = limits
        self._calls: TokenBuckets[tuple[str, str]] = TokenBuckets(
            per_second=limits.calls_per_second,
            burst=limits.burst_calls,
            max_tracked=limits.max_tracked,
            clock=self._clock,
        )
        self._refusals: TokenBuckets[str | bytes] = TokenBuckets(
            per_second=limits.refusals_per_second,
            burst=limits.burst_refusals,
            max_tracked=limits.max_tracked,
            clock=self._clock,
        )

    def _follow_changes(self) -> None:
        limits = self._read_limits()
        if limits is not self._limits and limits != self._limits:
            self._use(limits)

    def count_call(self, issuer: str, subject: str) -> None:
        """Count a call of an identity.

        Raises:
            ResourcesExhausted: It calls too often.
        """
        self._follow_changes()
        wait_seconds = self._calls.take((issuer, subject))
        if wait_seconds:
            raise self._too_often("You call this server too often.", wait_seconds, by="identity")

    def count_refusal(self, client_address: str) -> None:
        """Count a credential from an address as refused, before it is looked at.

        Counted in advance, since of many that arrive together none is refused yet.

        Raises:
            ResourcesExhausted: Too many were refused, so this one is not to be looked at.
        """
        self._follow_changes()
        wait_seconds = self._refusals.take(_network_of(client_address))
        if wait_seconds:
            raise self._too_often("Too many credentials from your address were refused.", wait_seconds, by="address")

    def forgive_refusal(self, client_address: str, *, is_accepted: bool = True) -> None:
        """Take the count back: the credential was accepted. If it was not decided, take most of it back."""
        share = 1.0 if is_accepted else _UNDECIDED_SHARE
        self._refusals.release(_network_of(client_address), share=share)

    def _too_often(self, what: str, wait_seconds: float, *, by: str) -> ResourcesExhausted:
        if self._metrics is not None:
            self._metrics.count_rate_limited(by)
        # Rounded up: whoever waits that long must not come too early.
        retry_after_seconds = math.ceil(wait_seconds * 1000) / 1000
        return ResourcesExhausted(
            what,
            remedy=f"Try again in {retry_after_seconds:g} seconds.",
            retry_after_seconds=retry_after_seconds,
            limit="call_rate",
        )


def _network_of(client_address: str) -> str | bytes:
    """Return what shares a bucket: an IPv4 address, an IPv6 network, or all that is not known."""
    if ":" not in client_address:
        return client_address
    try:
        packed = socket.inet_pton(socket.AF_INET6, client_address)
    except OSError:
        return client_address
    if packed.startswith(_IPV4_MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[len(_IPV4_MAPPED) :])
    return packed[:_IPV6_NETWORK_BYTES]
