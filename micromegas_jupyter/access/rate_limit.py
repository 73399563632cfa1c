"""How often an identity may call, and how often an address may be refused: token buckets in bounded memory."""

import math
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from micromegas_jupyter.access.metrics import AccessMetrics
from micromegas_jupyter.config.access import RateLimits
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.errors import ResourcesExhausted

ONE_DAY_SECONDS = 24 * 3600.0
MAX_REMEMBERED = 100_000


class DailyTurns:
    """Gives each name one turn a day. One lock guards the memory, which is bounded; the oldest turns are forgotten.

    Outlives the validators that ask, so that a reload repeats no warning.
    """

    def __init__(self, clock: Clock, *, max_remembered: int = MAX_REMEMBERED) -> None:
        self._clock = clock
        self._max_remembered = max_remembered
        self._lock = threading.Lock()
        self._next_at: OrderedDict[bytes, float] = OrderedDict()

    def take(self, name: bytes) -> tuple[bool, float]:
        """Return whether it is this name's turn now, and the monotonic time of its next one."""
        with self._lock:
            now = self._clock.monotonic()
            next_at = self._next_at.get(name)
            if next_at is not None and now < next_at:
                return False, next_at
            self._next_at[name] = now + ONE_DAY_SECONDS
            self._next_at.move_to_end(name)
            while len(self._next_at) > self._max_remembered:
                self._next_at.popitem(last=False)
            return True, now + ONE_DAY_SECONDS


Key = TypeVar("Key", bound=Hashable)

# Whoever has one IPv6 address has at least the 2**64 of its network (RFC 6177).
_IPV6_NETWORK_BYTES = 8
# RFC 4291 section 2.5.5.2.
_IPV4_MAPPED = bytes(10) + b"\xff\xff"
# Of a credential that could not be checked, a quarter counts: whoever tries again in an outage is still answered, and
# a flood of forged tokens that name a provider which does not answer comes to an end.
_UNDECIDED_SHARE = 0.75


class TokenBuckets(Generic[Key]):
    """One token bucket for each key; safe to share between threads.

    Of a bucket only the moment is kept at which it will be full again, so a bucket that is full needs no memory. When
    there are too many, the one that was used least recently is forgotten, which can only be in its user's favour.

    Args:
        per_second: Tokens that come back, lasting.
        burst: Tokens of a full bucket.
        max_tracked: Buckets that are remembered.
        clock: Tells the time.
    """

    def __init__(self, *, per_second: float, burst: int, max_tracked: int, clock: Clock) -> None:
        self._seconds_per_token = 1.0 / per_second
        self._lead_seconds = (burst - 1) * self._seconds_per_token
        self._max_tracked = max_tracked
        self._monotonic = clock.monotonic
        self._lock = threading.Lock()
        self._full_at: OrderedDict[Key, float] = OrderedDict()

    def __len__(self) -> int:
        with self._lock:
            return len(self._full_at)

    def take(self, key: Key) -> float:
        """Take a token and return 0, or return how many seconds it is until there is one."""
        now = self._monotonic()
        with self._lock:
            full_at = self._full_at.pop(key, now)
            wait_seconds = full_at - now - self._lead_seconds
            if wait_seconds > 0:
                self._full_at[key] = full_at
                return wait_seconds
            # Taking the key out and putting it back makes it the one that was used last.
            self._full_at[key] = max(now, full_at) + self._seconds_per_token
            if len(self._full_at) > self._max_tracked:
                self._full_at.popitem(last=False)
            return 0.0

    def give_back(self, key: Key, *, share: float = 1.0) -> None:
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
        self._limits = self._read_limits()
        self._fill_buckets()

    def _fill_buckets(self) -> None:
        limits = self._limits
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
        if limits is not self._limits:
            is_changed, self._limits = limits != self._limits, limits
            if is_changed:
                self._fill_buckets()

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

        Counted in advance, for of many that arrive together none is refused yet.

        Raises:
            ResourcesExhausted: Too many were refused, so this one is not to be looked at.
        """
        self._follow_changes()
        wait_seconds = self._refusals.take(_network_of(client_address))
        if wait_seconds:
            raise self._too_often("Too many credentials from your address were refused.", wait_seconds, by="address")

    def forgive_refusal(self, client_address: str, *, is_accepted: bool = True) -> None:
        """Take the count back: the credential was accepted; of one that was not decided, most of it."""
        share = 1.0 if is_accepted else _UNDECIDED_SHARE
        self._refusals.give_back(_network_of(client_address), share=share)

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
