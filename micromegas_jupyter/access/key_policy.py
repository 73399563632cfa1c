"""How long an issuer's keys are believed, and how often its provider is asked.

Keeping the keys and the time is `key_source`'s job.
"""

from dataclasses import dataclass

# From this part of the refresh interval on, keys are fetched while the ones at hand are still good.
_REFRESH_AHEAD_FRACTION = 0.8
# By the number of failures in a row: how long to leave a provider alone that never gave keys; then the cool-down.
_FIRST_PAUSES_SECONDS = (0.0, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPolicy:
    """How long keys are believed.

    Attributes:
        refresh_interval_seconds: A set younger than this is used without waiting for a newer one.
        stale_limit_seconds: An older set is used up to this age, but only while the provider does not answer.
        cool_down_seconds: An unknown key id causes one fetch, and the next not before this time has passed; after a
            failed fetch the provider is left alone for as long.
    """

    refresh_interval_seconds: float = 3600.0
    stale_limit_seconds: float = 24 * 3600.0
    cool_down_seconds: float = 30.0

    @property
    def refresh_ahead_seconds(self) -> float:
        """The age from which a set is renewed in the background."""
        return self.refresh_interval_seconds * _REFRESH_AHEAD_FRACTION

    def pause_seconds(self, *, failures: int, has_keys: bool) -> float:
        """Return how long to leave a provider alone after so many failures in a row."""
        if has_keys or failures > len(_FIRST_PAUSES_SECONDS):
            return self.cool_down_seconds
        return _FIRST_PAUSES_SECONDS[max(failures, 1) - 1]
