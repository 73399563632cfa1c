"""`ProviderClock`: the provider's time, from this machine's clock and the Date headers of the provider's answers."""

import threading
from datetime import datetime, timedelta

from micromegas_jupyter.core.http import FormFields, HttpAnswer, ProviderCalls
from micromegas_jupyter.core.system import Clock
from micromegas_jupyter.oidc.id_token import CLOCK_REMEDY

# Clocks that differ by two seconds count as equal. The rest is for the header's whole seconds.
TOLERANCE_SECONDS = 2.5
# A larger difference is not followed. The header is trusted because of TLS, and TLS itself needs a clock: on a machine
# that is days off, certificates that have ended, or are not valid yet, pass. Token checks then fail by themselves, and
# the person is told to set the clock.
MAX_OFFSET_SECONDS = 24 * 3600.0

_HALF_A_SECOND = timedelta(seconds=0.5)


class ProviderClock:
    """Measures one provider's clock at each of its answers, in memory only. Safe to use from several threads.

    An answer to a POST counts more than a document, which a cache on the way may have stored: once there was one,
    documents are ignored. Only the provider whose keys are trusted gets here, so nobody who could not forge tokens
    anyway can move the time.

    Args:
        clock: This machine's clock.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._was_post = False
        self._measured: float | None = None

    @property
    def offset_seconds(self) -> float:
        """How far the provider's clock is ahead of this machine's; 0 when unknown, small, or too large to follow."""
        measured = self._measured or 0.0
        return measured if abs(measured) <= MAX_OFFSET_SECONDS else 0.0

    @property
    def measured_offset_seconds(self) -> float | None:
        """The difference as it was measured, also one that is too large to follow; None until there is one."""
        return self._measured

    @property
    def remedy(self) -> str:
        """What to do about a token whose times do not fit, in a sentence or two."""
        measured = self._measured
        if measured is None:
            return CLOCK_REMEDY
        if not measured:
            return "The clocks of this machine and of the identity provider agree: tell the provider's administrator."
        side = "behind" if measured > 0 else "ahead of"
        difference = f"The clock of this machine is {_duration_text(measured)} {side} the identity provider's"
        if abs(measured) <= MAX_OFFSET_SECONDS:
            return f"{difference}, which was allowed for. Set the clock; if that does not help, ask the provider."
        return f"{difference}. Set the clock and sign in again."

    def now(self) -> datetime:
        """Return the provider's time, as far as it is known (aware UTC)."""
        return self._clock.now() + timedelta(seconds=self.offset_seconds)

    def started(self) -> tuple[datetime, float]:
        """Return when a call begins: the time of day, and monotonic seconds."""
        return self._clock.now(), self._clock.monotonic()

    def observe(self, answer: HttpAnswer, *, started: tuple[datetime, float], was_post: bool) -> None:
        """Measure by an answer that has just come; one without a date, or without success, says nothing."""
        if answer.date is None or not answer.is_success:
            return
        now = self._clock.now()
        trip_seconds = max(0.0, self._clock.monotonic() - started[1])
        if abs((now - started[0]).total_seconds() - trip_seconds) > TOLERANCE_SECONDS:
            return  # the machine slept or its clock was set meanwhile: the date is from before, the clock from after
        # The header's second had begun when it was written, about half the round trip ago.
        measured = (answer.date + _HALF_A_SECOND - now).total_seconds() + trip_seconds / 2
        tolerance = TOLERANCE_SECONDS + trip_seconds / 2
        with self._lock:
            if self._was_post and not was_post:
                return
            if abs(measured) <= tolerance:
                measured = 0.0
            elif self._measured is not None and abs(measured - self._measured) <= tolerance:
                measured = self._measured
            self._measured, self._was_post = measured, was_post


class TimedCalls:
    """Makes a provider's calls, and measures its clock by each answer."""

    def __init__(self, http: ProviderCalls, *, provider_clock: ProviderClock) -> None:
        self._http = http
        self._provider_clock = provider_clock

    def fetch_json(self, url: str) -> HttpAnswer:
        """Fetch the JSON document at `url`; raises what `ProviderHttp.fetch_json` does."""
        started = self._provider_clock.started()
        answer = self._http.fetch_json(url)
        self._provider_clock.observe(answer, started=started, was_post=False)
        return answer

    def post_form(
        self, url: str, fields: FormFields, *, headers: FormFields | None = None, needs_body: bool = True
    ) -> HttpAnswer:
        """Post a form to `url`; raises what `ProviderHttp.post_form` does."""
        started = self._provider_clock.started()
        answer = self._http.post_form(url, fields, headers=headers, needs_body=needs_body)
        self._provider_clock.observe(answer, started=started, was_post=True)
        return answer


def _duration_text(offset_seconds: float) -> str:
    seconds = abs(offset_seconds)
    for unit, unit_seconds in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * unit_seconds:
            return f"about {seconds / unit_seconds:.0f} {unit}"
    return f"about {seconds:.0f} seconds"
