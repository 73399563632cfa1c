"""Limits on how often the Hub is asked who bears a token, whoever calls, and the audit log."""

from __future__ import annotations

import hashlib
import logging
import math
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from cachetools import LRUCache, TTLCache

from micromegas_jupyter.access.audit import TokenBuckets, encode_line, presentable, utc_text
from micromegas_jupyter.access.validator import CallLimits
from micromegas_jupyter.config.access import RateLimits
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import ResourcesExhausted
from micromegas_jupyter.hub.refusals import Refused, refuse, slow_down, too_many_unknown_tokens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tornado.httputil import HTTPServerRequest

    from micromegas_jupyter.core.system import Secret
    from micromegas_jupyter.hub.hub_api import TokenOwner

AUDIT_LOGGER: Final = "micromegas_jupyter.audit.hub"
_AUDIT: Final = logging.getLogger(AUDIT_LOGGER)
_AUDIT.setLevel(logging.INFO)

# Calls of one person.
CALLS_PER_SECOND: Final = 5.0
BURST_CALLS: Final = 300
# Tokens that the Hub does not recognize: from one address, and from all.
UNKNOWN_PER_SECOND: Final = 2.0
BURST_UNKNOWN: Final = 100
ALL_UNKNOWN_PER_SECOND: Final = 20.0
BURST_ALL_UNKNOWN: Final = 500

UNKNOWN_SECONDS: Final = 10.0
"""How long the Hub is not asked again about a token that it did not recognize."""

AUDIT_PAUSE_SECONDS: Final = 10.0
"""The pause between two audit lines about calls that were turned away."""

MAX_TRACKED: Final = 10_000

_ALL: Final = "all"
_FORWARDED: Final = "X-Forwarded-For"


def client_address(request: HTTPServerRequest) -> str:
    """Return where a call comes from: the peer, or the address that a proxy on this machine names.

    A proxy adds its own caller at the end of the header; anybody can write what stands before that.
    """
    peer = str(request.remote_ip)
    forwarded = ",".join(request.headers.get_list(_FORWARDED)).rpartition(",")[2].strip()
    try:
        return str(ip_address(forwarded)) if ip_address(peer).is_loopback else peer
    except ValueError:
        return peer


class CallerLimits:
    """Asks the Hub who bears a token, within limits; for one event loop.

    A token that the Hub has recognized before counts against its person's limit alone, so a flood of unknown tokens
    locks out nobody who is working, whatever address it comes from.
    """

    def __init__(self, *, audit: HubAudit, clock: Clock) -> None:
        self._audit = audit
        self._clock = clock
        self._people: TokenBuckets[str] = TokenBuckets(
            per_second=CALLS_PER_SECOND, burst=BURST_CALLS, max_tracked=MAX_TRACKED, clock=clock
        )
        self._all_unknown: TokenBuckets[str] = TokenBuckets(
            per_second=ALL_UNKNOWN_PER_SECOND, burst=BURST_ALL_UNKNOWN, max_tracked=1, clock=clock
        )
        limits = RateLimits(
            refusals_per_second=UNKNOWN_PER_SECOND, burst_refusals=BURST_UNKNOWN, max_tracked=MAX_TRACKED
        )
        self._addresses = CallLimits(limits, clock=clock)
        self._known: LRUCache[bytes, str] = LRUCache(MAX_TRACKED)
        self._unknown: TTLCache[bytes, bool] = TTLCache(MAX_TRACKED, UNKNOWN_SECONDS, timer=clock.monotonic)
        self._turned_away = 0
        self._next_line_at = 0.0

    async def fetch_owner(
        self, token: Secret | None, *, address: str, fetch: Callable[[Secret], Awaitable[TokenOwner | None]]
    ) -> TokenOwner:
        """Return who bears a token, according to the Hub right now; raises `Refused`.

        Args:
            token: The token; None when the call came without one.
            address: Where the call comes from.
            fetch: Asks the Hub.
        """
        digest = b"" if token is None else hashlib.sha256(token.reveal().encode()).digest()
        name = self._known.get(digest)
        if name is not None:
            self._take_call(name)
        else:
            self._take_unknown(address)
        if token is None or digest in self._unknown:
            raise refuse("invalid_token")
        try:
            owner = await fetch(token)
        except Refused:
            self._return_unknown(address, is_new=name is None)
            raise
        if owner is None:
            self._known.pop(digest, None)
            self._unknown[digest] = True
            raise refuse("invalid_token")
        if name is None:
            self._return_unknown(address, is_new=True)
            self._take_call(owner.name)
        self._known[digest] = owner.name
        return owner

    def _take_call(self, name: str) -> None:
        wait_seconds = self._people.take(name)
        if wait_seconds:
            raise slow_down(math.ceil(wait_seconds))

    def _take_unknown(self, address: str) -> None:
        # Counted before the Hub answers: many may arrive together.
        try:
            self._addresses.count_refusal(address)
        except ResourcesExhausted as exhausted:
            raise self._refuse_unknown(address, exhausted.retry_after_seconds or 1.0) from None
        wait_seconds = self._all_unknown.take(_ALL)
        if wait_seconds:
            raise self._refuse_unknown(address, wait_seconds)

    def _return_unknown(self, address: str, *, is_new: bool) -> None:
        if is_new:
            self._addresses.forgive_refusal(address)
            self._all_unknown.release(_ALL)

    def _refuse_unknown(self, address: str, wait_seconds: float) -> Refused:
        self._turned_away += 1
        now = self._clock.monotonic()
        if now >= self._next_line_at:
            self._audit.write("calls_turned_away", client_ip=address, calls=self._turned_away)
            self._turned_away, self._next_line_at = 0, now + AUDIT_PAUSE_SECONDS
        return too_many_unknown_tokens(math.ceil(wait_seconds))


class HubAudit:
    """Writes one JSON line for each thing that was given or refused; no line holds a token, a code or a state."""

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock

    def write(self, event: str, **facts: str | int | None) -> None:
        """Write a line; facts that are None are left out."""
        known = {name: presentable(fact) if isinstance(fact, str) else fact for name, fact in facts.items()}
        record = {"event": event, **known, "time": utc_text(self._clock.now())}
        _AUDIT.info("%s", encode_line({name: fact for name, fact in record.items() if fact is not None}))
