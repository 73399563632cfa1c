"""`ProviderClock`: the provider's time, told by this machine's clock and the difference between the two.

Its measurements are the Date headers of the provider's own answers; what the time is used for is the callers' choice.
"""

import math
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta

from micromegas_jupyter.core.http import FormFields, HttpAnswer, ProviderCalls
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.oidc.id_token import CLOCK_REMEDY

# Two clocks are never quite the same: two seconds are no difference. The rest is for the header's whole seconds.
TOLERANCE_SECONDS = 2.5
# A larger difference is not followed. The header is believed because TLS says whose it is, and TLS itself needs a
# clock: on a machine that is days off, certificates that have ended, or were not valid yet, pass for good ones. Token
# checks then fail by themselves, and the person is told to set the clock.
MAX_OFFSET_SECONDS = 24 * 3600.0

_HALF_A_SECOND = timedelta(seconds=0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """When a call began: by this machine's clock, and by its monotonic seconds."""

    at: datetime
    at_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """What is known: the difference, how it was learnt, and whether it is small enough to be followed."""

    offset_seconds: float = 0.0
    is_measured: bool = False
    was_post: bool = False

    @property
    def is_followed(self) -> bool:
        return abs(self.offset_seconds) <= MAX_OFFSET_SECONDS


class ProviderClock:
    """Measures one provider's clock at each of its answers. Safe to use from several threads.

    An answer to a post counts more than a document, which a cache on the way may have kept: once there was one,
    documents are no longer looked at. Only answers that came over TLS, or from loopback, from the provider whose keys
    are believed get here, so nobody who could not forge tokens anyway can move the time.

    Args:
        clock: This machine's clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known = _Measured()

    @property
    def offset_seconds(self) -> float:
        """How far the provider's clock is ahead of this machine's; 0 when unknown, small, or too large to follow."""
        known = self._known
        return known.offset_seconds if known.is_followed else 0.0

    @property
    def measured_offset_seconds(self) -> float | None:
        """The difference as it was measured, also one that is too large to follow; None until there is one."""
        known = self._known
        return known.offset_seconds if known.is_measured else None

    @property
    def remedy(self) -> str:
        """What to do about a token whose times do not fit, in a sentence or two."""
        known = self._known
        if not known.is_measured:
            return CLOCK_REMEDY
        if not known.offset_seconds:
            return "The clocks of this machine and of the identity provider agree: tell whoever runs the provider."
        side = "behind" if known.offset_seconds > 0 else "ahead of"
        difference = f"The clock of this machine is {_shown(known.offset_seconds)} {side} the identity provider's"
        if known.is_followed:
            return f"{difference}, which was allowed for. Set the clock; if that does not help, tell the provider."
        return f"{difference}. Set the clock and sign in again."

    def now(self) -> datetime:
        """Return the provider's time, as far as it is known (aware UTC)."""
        return self._clock.now() + timedelta(seconds=self.offset_seconds)

    def assume(self, offset_seconds: float) -> None:
        """Take a difference that was measured earlier, until there is a measurement; an impossible one is ignored."""
        if not math.isfinite(offset_seconds) or abs(offset_seconds) > MAX_OFFSET_SECONDS:
            return
        with self._lock:
            if not self._known.is_measured:
                self._known = _Measured(offset_seconds=offset_seconds)

    def started(self) -> Start:
        """Return the moment at which a call begins."""
        return Start(at=self._clock.now(), at_seconds=self._clock.monotonic())

    def observe(self, answer: HttpAnswer, *, start: Start, was_post: bool) -> None:
        """Measure by an answer that has just come; one without a date, or that is no success, says nothing.

        Args:
            answer: The answer.
            start: When its request was sent.
            was_post: Whether it answers a post.
        """
        if answer.date is None or not answer.is_success:
            return
        now = self._clock.now()
        trip_seconds = max(0.0, self._clock.monotonic() - start.at_seconds)
        if abs((now - start.at).total_seconds() - trip_seconds) > TOLERANCE_SECONDS:
            return  # the machine slept or its clock was set meanwhile: the date is from before, the clock from after
        half_trip_seconds = trip_seconds / 2
        # The header's second had begun when it was written, about half the round trip ago.
        told = answer.date + _HALF_A_SECOND
        measured = (told - now).total_seconds() + half_trip_seconds
        tolerance = TOLERANCE_SECONDS + half_trip_seconds
        with self._lock:
            known = self._known
            if known.was_post and not was_post:
                return
            if abs(measured) <= tolerance:
                measured = 0.0
            elif known.is_measured and abs(measured - known.offset_seconds) <= tolerance:
                measured = known.offset_seconds
            self._known = _Measured(offset_seconds=measured, is_measured=True, was_post=was_post)


class TimedCalls:
    """Makes a provider's calls and shows each answer to its clock.

    Args:
        http: Makes the calls.
        provider_clock: Measures.
    """

    def __init__(self, http: ProviderCalls, *, provider_clock: ProviderClock) -> None:
        self._http = http
        self._provider_clock = provider_clock

    def fetch_json(self, url: str) -> HttpAnswer:
        """Fetch the JSON document at `url`; raises what `ProviderHttp.fetch_json` does."""
        start = self._provider_clock.started()
        answer = self._http.fetch_json(url)
        self._provider_clock.observe(answer, start=start, was_post=False)
        return answer

    def post_form(
        self, url: str, fields: FormFields, *, headers: FormFields | None = None, needs_body: bool = True
    ) -> HttpAnswer:
        """Post a form to `url`; raises what `ProviderHttp.post_form` does."""
        start = self._provider_clock.started()
        answer = self._http.post_form(url, fields, headers=headers, needs_body=needs_body)
        self._provider_clock.observe(answer, start=start, was_post=True)
        return answer


def _shown(offset_seconds: float) -> str:
    seconds = abs(offset_seconds)
    for unit, unit_seconds in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * unit_seconds:
            return f"about {seconds / unit_seconds:.0f} {unit}"
    return f"about {seconds:.0f} seconds"
