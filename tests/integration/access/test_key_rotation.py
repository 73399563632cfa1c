"""A validator under load while a provider of another make changes its keys."""

import threading
import time
from collections import defaultdict

import pytest

from micromegas_jupyter.access import Rejected, Unavailable
from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from tests.fakes.raw_client import header_of
from tests.integration.access.conftest import CountedHttp, Minter, validator_of

pytestmark = pytest.mark.integration

COOL_DOWN_SECONDS = 2
CALLERS = 4
CALLS_PER_SECOND = 200
# When the provider changes its keys: pairs, so that the second change falls into the first one's cool-down.
ROTATIONS_AT_SECONDS = (1.0, 1.6, 4.5, 5.1)
LENGTH_SECONDS = 8.0


class Load:
    """Calls the validator at a steady rate, with the token that is the newest at the time and the one before."""

    def __init__(self, validator, token):
        self._validator = validator
        self._lock = threading.Lock()
        self.tokens = [token]
        self.stopping = threading.Event()
        self.accepted, self.unavailable, self.stood_still_seconds = 0, 0, 0.0
        self.refused_at = defaultdict(list)
        self.accepted_at = defaultdict(list)
        self.reasons = set()

    def run(self, first_at, period_seconds):
        due, number = first_at, 0
        while not self._waits_until(due):
            with self._lock:
                token = self.tokens[-1 - number % min(2, len(self.tokens))]
            self._call(token)
            due, number = due + period_seconds, number + 1

    def _waits_until(self, due):
        began = time.monotonic()
        pause_seconds = max(0.0, due - began)
        is_over = self.stopping.wait(pause_seconds)
        with self._lock:
            self.stood_still_seconds = max(self.stood_still_seconds, time.monotonic() - began - pause_seconds)
        return is_over

    def offer(self, token):
        with self._lock:
            self.tokens.append(token)

    def _call(self, token):
        key_id, reason = str(header_of(token)["kid"]), None
        try:
            self._validator.validate_token(token)
        except Rejected as refused:
            reason = refused.reason
        except Unavailable:
            with self._lock:
                self.unavailable += 1
            return
        with self._lock:
            self.accepted += reason is None
            self.reasons |= {reason} - {None}
            (self.accepted_at if reason is None else self.refused_at)[key_id].append(time.monotonic())

    def wait_for_newest(self):
        """Wait until the newest token was accepted, which on a machine that stood still comes later."""
        deadline = time.monotonic() + 60
        while not self.accepted_at[str(header_of(self.tokens[-1])["kid"])] and time.monotonic() < deadline:
            self.stopping.wait(0.05)

    def longest_gap_seconds(self):
        """The longest time from a key's first refusal to its first acceptance after it."""
        gaps = [0.0]
        for key_id, refusals in self.refused_at.items():
            later = [moment for moment in self.accepted_at[key_id] if moment > max(refusals)]
            gaps.append(min(later) - min(refusals) if later else float("inf"))
        return max(gaps)


def test_no_valid_token_is_refused_for_longer_than_the_cool_down(own_provider):
    minter, http = Minter(own_provider), ProviderHttp()
    counted = CountedHttp(http, SYSTEM_CLOCK)
    # One remembered token: nearly every call verifies a signature.
    validator = validator_of(own_provider, counted, SYSTEM_CLOCK, cool_down_seconds=COOL_DOWN_SECONDS, cache_size=1)
    load = Load(validator, minter.token())
    started = time.monotonic()
    threads = [
        threading.Thread(target=load.run, args=(started + number / CALLS_PER_SECOND, CALLERS / CALLS_PER_SECOND))
        for number in range(CALLERS)
    ]
    for thread in threads:
        thread.start()

    for at_seconds in ROTATIONS_AT_SECONDS:
        load.stopping.wait(max(0.0, started + at_seconds - time.monotonic()))
        own_provider.rotate(keep=len(ROTATIONS_AT_SECONDS))
        load.offer(minter.token())
    load.stopping.wait(max(0.0, started + LENGTH_SECONDS - time.monotonic()))
    load.wait_for_newest()
    load.stopping.set()
    for thread in threads:
        thread.join(60)
    http.close()

    calls = load.accepted + load.unavailable + sum(map(len, load.refused_at.values()))
    # A busy machine makes fewer calls than are due.
    assert calls >= 0.2 * CALLS_PER_SECOND * LENGTH_SECONDS
    assert len({header_of(token)["kid"] for token in load.tokens}) == len(ROTATIONS_AT_SECONDS) + 1
    assert all(load.accepted_at[str(header_of(token)["kid"])] for token in load.tokens)
    assert load.reasons <= {"unknown_key"}
    assert load.unavailable == 0
    # What a fetch and a thread's turn take comes on top, but no second cool-down.
    assert load.longest_gap_seconds() < 2 * COOL_DOWN_SECONDS + load.stood_still_seconds
    assert len(counted.began) <= 2 + len(ROTATIONS_AT_SECONDS)
