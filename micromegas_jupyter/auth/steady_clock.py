"""`SteadyClock`: a time of day that runs evenly from when it was made, whatever becomes of the machine's clock."""

from datetime import datetime, timedelta

from micromegas_jupyter.core.system import Clock

# A smaller difference is the inaccuracy of two readings.
_SMALLEST_DRIFT = timedelta(seconds=2)


class SteadyClock:
    """Implements `seams.Clock` on the monotonic hand of another clock.

    For what is given with a remaining duration: a clock that is wrong, or is set, changes nothing about when it ends.

    Args:
        clock: Tells both times.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began_at = clock.now()
        self._began = clock.monotonic()
        self._drift = timedelta()

    def now(self) -> datetime:
        """Return the even time (aware UTC); at the beginning it was the machine's."""
        return self._began_at + timedelta(seconds=self._clock.monotonic() - self._began)

    def monotonic(self) -> float:
        """Return the other clock's monotonic seconds."""
        return self._clock.monotonic()

    def on_the_machine(self, moment: datetime) -> datetime:
        """Return what the machine's clock says at a moment of even time; the same answer until that clock is set."""
        drift = self._clock.now() - self.now()
        if abs(drift - self._drift) > _SMALLEST_DRIFT:
            self._drift = drift
        return moment + self._drift
