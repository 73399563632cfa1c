"""How often callers may call, as the configuration file puts it.

Counting calls is left to others.
"""

from functools import partial

from micromegas_jupyter.settings.decoding import as_count, as_object, as_rate
from micromegas_jupyter.settings.members import Members
from micromegas_jupyter.settings.server import RateLimits

RATE_LIMIT_MEMBERS = frozenset(
    {"calls_per_second", "burst_calls", "refusals_per_second", "burst_refusals", "max_tracked"}
)

_MIN_RATE = 0.001
_MAX_RATE = 1_000_000
_MAX_BURST = 1_000_000
_MAX_TRACKED = 1_000_000


def as_rate_limits(value: object, key: str) -> RateLimits:
    """Read the limits; each that is left out has its default.

    Raises:
        ConfigurationError: A limit is malformed or out of range.
    """
    limits = Members(values=as_object(value, key, known=RATE_LIMIT_MEMBERS), place=key)
    defaults = RateLimits()
    as_frequency = partial(as_rate, minimum=_MIN_RATE, maximum=_MAX_RATE)
    as_burst = partial(as_count, maximum=_MAX_BURST)
    return RateLimits(
        calls_per_second=limits.read("calls_per_second", as_frequency, defaults.calls_per_second),
        burst_calls=limits.read("burst_calls", as_burst, defaults.burst_calls),
        refusals_per_second=limits.read("refusals_per_second", as_frequency, defaults.refusals_per_second),
        burst_refusals=limits.read("burst_refusals", as_burst, defaults.burst_refusals),
        max_tracked=limits.read("max_tracked", partial(as_count, maximum=_MAX_TRACKED), defaults.max_tracked),
    )
