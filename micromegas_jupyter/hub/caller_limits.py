"""How often the Hub is asked whose a token is: in moderation, whoever sends what; and the audit log, which says so.

What a token may do is `rights`' to say. All tables are bounded; of what is forgotten, the Hub is asked as of new.
"""

from __future__ import annotations

import hashlib
import logging
import math
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from cachetools import LRUCache, TTLCache

from micromegas_jupyter.access.audit import encode_line, presentable, utc_text
from micromegas_jupyter.access.rate_limit import CallLimits, TokenBuckets
from micromegas_jupyter.config.access import RateLimits
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.errors import ResourcesExhausted
from micromegas_jupyter.hub.refusals import Refused, invalid_token, slow_down, too_many_unknown_tokens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tornado.httputil import HTTPServerRequest

    from micromegas_jupyter.core.protocols import Secret
    from micromegas_jupyter.hub.hub_api import TokenOwner

AUDIT_LOGGER: Final = "micromegas_jupyter.audit.hub"
_AUDIT: Final = logging.getLogger(AUDIT_LOGGER)
_AUDIT.setLevel(logging.INFO)

CALLS_PER_SECOND: Final = 5.0
BURST_CALLS: Final = 300
"""Of one person."""

UNKNOWN_PER_SECOND: Final = 2.0
BURST_UNKNOWN: Final = 100
"""Tokens from one address that the Hub does not know."""

ALL_UNKNOWN_PER_SECOND: Final = 20.0
BURST_ALL_UNKNOWN: Final = 500
"""The same from everywhere."""

UNKNOWN_SECONDS: Final = 10.0
"""How long the Hub is not asked again about a token that it did not know."""

AUDIT_PAUSE_SECONDS: Final = 10.0
"""How often it is said that calls were turned away."""

MAX_TRACKED: Final = 10_000

_ALL: Final = "all"
_FORWARDED: Final = "X-Forwarded-For"


def client_address(request: HTTPServerRequest) -> str:
    """Return where a call comes from: who connected, or whom a proxy on this machine names.

    A proxy adds its own caller at the end of the header; what stands before that, anybody can write.
    """
    peer = str(request.remote_ip)
    forwarded = ",".join(request.headers.get_list(_FORWARDED)).rpartition(",")[2].strip()
    try:
        return str(ip_address(forwarded)) if ip_address(peer).is_loopback else peer
    except ValueError:
        return peer


class CallerLimits:
    """Asks the Hub whose tokens are, for one event loop.

    A token that the Hub has known before is asked about as often as its person may call, so nobody who works is kept
    out by a flood of others, whatever address the flood comes from.
    """

    def __init__(self, *, audit: HubAudit, clock: Clock) -> None:
        self._audit = audit
        self._clock = clock
        self._of_people: TokenBuckets[str] = TokenBuckets(
            per_second=CALLS_PER_SECOND, burst=BURST_CALLS, max_tracked=MAX_TRACKED, clock=clock
        )
        self._of_all: TokenBuckets[str] = TokenBuckets(
            per_second=ALL_UNKNOWN_PER_SECOND, burst=BURST_ALL_UNKNOWN, max_tracked=1, clock=clock
        )
        numbers = RateLimits(
            refusals_per_second=UNKNOWN_PER_SECOND, burst_refusals=BURST_UNKNOWN, max_tracked=MAX_TRACKED
        )
        self._of_addresses = CallLimits(numbers, clock=clock)
        self._known: LRUCache[bytes, str] = LRUCache(MAX_TRACKED)
        self._unknown: TTLCache[bytes, bool] = TTLCache(MAX_TRACKED, UNKNOWN_SECONDS, timer=clock.monotonic)
        self._turned_away = 0
        self._next_line_at = 0.0

    async def owner_of(
        self, token: Secret | None, *, address: str, ask: Callable[[Secret], Awaitable[TokenOwner | None]]
    ) -> TokenOwner:
        """Return who bears a token, as the Hub says now.

        Args:
            token: The token; None when the call came with none that could be one.
            address: Where the call comes from.
            ask: Asks the Hub.

        Raises:
            Refused: There is no such token, it or others from there come too often, or the Hub does not answer.
        """
        digest = b"" if token is None else hashlib.sha256(token.reveal().encode()).digest()
        name = self._known.get(digest)
        if name is not None:
            self._take_call(name)
        else:
            self._take_unknown(address)
        if token is None or digest in self._unknown:
            raise invalid_token()
        try:
            owner = await ask(token)
        except Refused:
            self._give_back(address, is_new=name is None)
            raise
        if owner is None:
            self._known.pop(digest, None)
            self._unknown[digest] = True
            raise invalid_token()
        if name is None:
            self._give_back(address, is_new=True)
            self._take_call(owner.name)
        self._known[digest] = owner.name
        return owner

    def _take_call(self, name: str) -> None:
        wait_seconds = self._of_people.take(name)
        if wait_seconds:
            raise slow_down(math.ceil(wait_seconds))

    def _take_unknown(self, address: str) -> None:
        # Counted before the Hub is asked: of many that arrive together none is known to be refused yet.
        try:
            self._of_addresses.count_refusal(address)
        except ResourcesExhausted as exhausted:
            raise self._turn_away(address, exhausted.retry_after_seconds or 1.0) from None
        wait_seconds = self._of_all.take(_ALL)
        if wait_seconds:
            raise self._turn_away(address, wait_seconds)

    def _give_back(self, address: str, *, is_new: bool) -> None:
        if is_new:
            self._of_addresses.forgive_refusal(address)
            self._of_all.release(_ALL)

    def _turn_away(self, address: str, wait_seconds: float) -> Refused:
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
