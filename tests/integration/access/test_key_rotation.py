"""A validator under load while a provider of another make changes its keys."""

import itertools
import math
import threading
import time

import pytest

from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from tests.fakes.raw_client import header_of
from tests.fakes.waiting import wait_until
from tests.integration.access.conftest import CountedHttp, new_token, outcome_of, validator_of

pytestmark = pytest.mark.integration

COOL_DOWN_SECONDS = 2
CALLERS = 4
CALLS_PER_SECOND = 200
# When the provider changes its keys: pairs, so that the second change falls into the first one's cool-down.
ROTATIONS_AT_SECONDS = (1.0, 1.6, 4.5, 5.1)
LENGTH_SECONDS, LONG_LENGTH_SECONDS = 4.5, 8.0


class Load:
    """Calls the validator at a steady rate, with the token that is the newest at the time and the one before.

    Threads only append to the lists, which needs no lock.
    """

    def __init__(self, validator, token):
        self._validator = validator
        self.tokens = [token]
        self.stopping = threading.Event()
        self.outcomes = []  # key id, outcome and when
        self.delays_seconds = [0.0]

    def run(self, first_at, period_seconds):
        for number in itertools.count():
            began = time.monotonic()
            pause_seconds = max(0.0, first_at + number * period_seconds - began)
            if self.stopping.wait(pause_seconds):
                return
            self.delays_seconds.append(time.monotonic() - began - pause_seconds)
            token = self.tokens[-1 - number % min(2, len(self.tokens))]
            self.outcomes.append((key_id_of(token), outcome_of(self._validator, token), time.monotonic()))

    def moments(self, key_id, *, is_accepted):
        return [at for key, outcome, at in self.outcomes if key == key_id and (outcome == "accepted") is is_accepted]

    def longest_gap_seconds(self):
        """The longest time from a key's first refusal to its first acceptance after its last one."""
        gaps = [0.0]
        for key_id in {key_id for key_id, outcome, _ in self.outcomes if outcome != "accepted"}:
            refusals = self.moments(key_id, is_accepted=False)
            later = [moment for moment in self.moments(key_id, is_accepted=True) if moment > max(refusals)]
            gaps.append(min(later, default=math.inf) - min(refusals))
        return max(gaps)


def key_id_of(token):
    return header_of(token)["kid"]


def test_no_valid_token_is_refused_for_longer_than_the_cool_down(own_provider, pytestconfig):
    is_long = pytestconfig.getoption("--long")
    rotations = ROTATIONS_AT_SECONDS if is_long else ROTATIONS_AT_SECONDS[:2]
    length_seconds = LONG_LENGTH_SECONDS if is_long else LENGTH_SECONDS
    http = ProviderHttp()
    counted = CountedHttp(http, SYSTEM_CLOCK)
    # One remembered token: nearly every call verifies a signature.
    validator = validator_of(own_provider, counted, SYSTEM_CLOCK, cool_down_seconds=COOL_DOWN_SECONDS, cache_size=1)
    load = Load(validator, new_token(own_provider))
    started = time.monotonic()
    threads = [
        threading.Thread(target=load.run, args=(started + number / CALLS_PER_SECOND, CALLERS / CALLS_PER_SECOND))
        for number in range(CALLERS)
    ]
    for thread in threads:
        thread.start()

    for at_seconds in rotations:
        load.stopping.wait(max(0.0, started + at_seconds - time.monotonic()))
        own_provider.rotate(keep=len(rotations))
        load.tokens.append(new_token(own_provider))
    load.stopping.wait(max(0.0, started + length_seconds - time.monotonic()))
    # On a machine that stood still the newest token is accepted later.
    wait_until(lambda: load.moments(key_id_of(load.tokens[-1]), is_accepted=True), "the newest token is accepted")
    load.stopping.set()
    for thread in threads:
        thread.join(60)
    http.close()

    # A busy machine makes fewer calls than are due.
    assert len(load.outcomes) >= 0.2 * CALLS_PER_SECOND * length_seconds
    assert len({key_id_of(token) for token in load.tokens}) == len(rotations) + 1
    assert all(load.moments(key_id_of(token), is_accepted=True) for token in load.tokens)
    assert {outcome for _, outcome, _ in load.outcomes} <= {"accepted", "unknown_key", "undecided"}
    # What a fetch and a thread's turn take comes on top, but no second cool-down.
    assert load.longest_gap_seconds() < 2 * COOL_DOWN_SECONDS + max(load.delays_seconds)
    assert len(counted.began) <= 2 + len(rotations)
