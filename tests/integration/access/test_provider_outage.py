"""A validator while a provider of another make is stopped: an hour of clock time, over real connections."""

import itertools
import threading
from collections import defaultdict
from urllib.parse import urlsplit

import pytest

from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from tests.fakes.clock import FakeClock
from tests.fakes.mint import ec_key, mint
from tests.fakes.raw_server import Listener
from tests.integration.access.conftest import CountedHttp, new_token, outcome_of, validator_of

pytestmark = pytest.mark.integration

HOUR_SECONDS = 3600
COOL_DOWN_SECONDS = 30


@pytest.fixture
def clock():
    """The real time, but it moves only when told: the provider's own clock cannot be set."""
    return FakeClock(SYSTEM_CLOCK.now())


@pytest.fixture
def http(clock):
    network = ProviderHttp()
    yield CountedHttp(network, clock)
    network.close()


@pytest.fixture
def validator(own_provider, http, clock):
    return validator_of(own_provider, http, clock, cool_down_seconds=COOL_DOWN_SECONDS)


def wait_for_fetches():
    for thread in threading.enumerate():
        if thread.name == "micromegas-key-fetch":
            thread.join(60)


def unknown_key_token(provider, clock, number):
    """A token in which all is right but that nobody has its key."""
    now, header = int(clock.now().timestamp()), {"kid": f"unknown{number}", "typ": "at+jwt"}
    return mint(key=ec_key(), issuer=provider.issuer, audience=provider.resource, header=header, iat=now, exp=now + 300)


def test_a_flood_of_unknown_keys_over_an_hour_without_the_provider(own_provider, validator, http, clock, pytestconfig):
    known, spare = new_token(own_provider), [new_token(own_provider) for _ in range(20)]
    validator.validate_token(known)
    own_provider.rotate()
    of_new_key = new_token(own_provider)
    own_provider.stop()
    asked_before = len(http.began)
    flood = 2000 if pytestconfig.getoption("--long") else 500

    with Listener(urlsplit(own_provider.issuer).port) as listener:
        outcomes = defaultdict(set)
        for number in range(flood):
            outcomes["unknown"].add(outcome_of(validator, unknown_key_token(own_provider, clock, number)))
            if number % 100 == 0:
                outcomes["known"].add(outcome_of(validator, known))
                outcomes["spare"].add(outcome_of(validator, spare[number // 100]))
                outcomes["new"].add(outcome_of(validator, of_new_key))
            clock.advance(HOUR_SECONDS / flood)
        wait_for_fetches()
        connections = listener.connection_count
    moments = sorted(moment for moment, _url in http.began[asked_before:])
    own_provider.start()
    clock.advance(COOL_DOWN_SECONDS)
    first_after = outcome_of(validator, of_new_key)
    wait_for_fetches()
    after = outcome_of(validator, of_new_key)

    shortest = min(later - earlier for earlier, later in itertools.pairwise(moments))
    assert outcomes == {"unknown": {"undecided"}, "known": {"accepted"}, "spare": {"accepted"}, "new": {"undecided"}}
    assert shortest >= COOL_DOWN_SECONDS
    assert len(moments) <= HOUR_SECONDS / COOL_DOWN_SECONDS
    assert connections == len(moments)
    assert len(moments) > HOUR_SECONDS / COOL_DOWN_SECONDS / 2, "the provider was hardly asked at all"
    # The first one to ask starts the fetch; nobody waits for it while the provider is known to be down.
    assert first_after in {"undecided", "accepted"}
    assert after == "accepted"


def test_a_server_that_starts_while_the_provider_is_down_accepts_tokens_when_it_is_back(own_provider, validator, clock):
    token = new_token(own_provider)
    own_provider.stop()
    while_down = outcome_of(validator, token)
    own_provider.start()
    clock.advance(COOL_DOWN_SECONDS)

    assert (while_down, outcome_of(validator, token)) == ("undecided", "accepted")


def test_a_thousand_callers_with_an_empty_cache_share_one_fetch(own_provider, validator, http):
    token = new_token(own_provider)
    barrier = threading.Barrier(1001)
    outcomes = []

    def call():
        barrier.wait(60)
        outcomes.append(outcome_of(validator, token))

    threads = [threading.Thread(target=call) for _ in range(1000)]
    for thread in threads:
        thread.start()
    barrier.wait(60)
    for thread in threads:
        thread.join(60)

    assert outcomes == ["accepted"] * 1000
    assert len(http.began) == 2
