from __future__ import annotations

import pickle
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.tokens.service import ServiceToken
from micromegas_jupyter.auth.workloads.provider import WorkloadProvider, client_assertion_exchange, token_exchange
from micromegas_jupyter.core.protocols import (
    AuthProvider,
)
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import LoginFailed, ProviderMisbehaved, ProviderUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.fakes.clock import FakeClock


class Source:
    """Implements `WorkloadSource`: a new token at each fetch."""

    name = "somewhere"

    def __init__(self, clock: FakeClock, *, is_read_each_time: bool = False) -> None:
        self.is_read_each_time = is_read_each_time
        self.count = 0
        self.failure: Exception | None = None
        self._clock = clock

    def fetch(self) -> ServiceToken:
        self.count += 1
        if self.failure is not None:
            raise self.failure
        now = self._clock.now()
        return ServiceToken(text=Secret(f"platform-{self.count}"), obtained_at=now, expires_at=now + timedelta(hours=1))


class Requests:
    """Implements `TokenRequests`."""

    def __init__(self, answer: dict[str, object]) -> None:
        self.answer = answer
        self.asked: list[tuple[dict[str, str], str | None]] = []

    def request_token_answer(self, fields: Mapping[str, str | Secret], *, asked_scope: str | None) -> dict[str, object]:
        shown = {name: value.reveal() if isinstance(value, Secret) else value for name, value in fields.items()}
        self.asked.append((shown, asked_scope))
        return self.answer


ANSWER: dict[str, object] = {"access_token": "traded", "token_type": "Bearer", "expires_in": 60}


def test_without_a_trade_the_platforms_token_is_kept_and_given(clock: FakeClock) -> None:
    source = Source(clock)
    provider = WorkloadProvider(source, clock=clock)

    assert [provider.get_token(), provider.get_token()] == ["platform-1", "platform-1"]
    assert isinstance(provider, AuthProvider)


def test_a_token_that_the_platform_renews_is_read_each_time(clock: FakeClock) -> None:
    provider = WorkloadProvider(Source(clock, is_read_each_time=True), clock=clock)

    assert [provider.get_token(), provider.get_token()] == ["platform-1", "platform-2"]


def test_a_traded_token_is_kept_although_the_platforms_is_read_each_time(clock: FakeClock) -> None:
    requests = Requests(ANSWER)
    source = Source(clock, is_read_each_time=True)
    provider = WorkloadProvider(source, exchange=token_exchange(requests, clock=clock), clock=clock)

    assert [provider.get_token(), provider.get_token()] == ["traded", "traded"]
    assert source.count == 1


def test_each_trade_is_made_with_a_new_token_of_the_platform(clock: FakeClock) -> None:
    requests = Requests(ANSWER)
    provider = WorkloadProvider(Source(clock), exchange=token_exchange(requests, clock=clock), clock=clock)
    provider.get_token()
    clock.advance(45)

    provider.get_token()

    assert [fields["subject_token"] for fields, _ in requests.asked] == ["platform-1", "platform-2"]


def test_a_refused_token_is_traded_anew(clock: FakeClock) -> None:
    requests = Requests(ANSWER)
    provider = WorkloadProvider(Source(clock), exchange=token_exchange(requests, clock=clock), clock=clock)

    provider.invalidate(provider.get_token())
    provider.get_token()

    assert len(requests.asked) == 2


def test_a_valid_token_serves_while_the_platform_is_down(clock: FakeClock) -> None:
    source = Source(clock)
    provider = WorkloadProvider(source, clock=clock)
    first = provider.get_token()
    source.failure = ProviderUnavailable("down")
    clock.advance(3400)

    assert provider.get_token() == first


def test_what_the_platform_refuses_is_told(clock: FakeClock) -> None:
    source = Source(clock)
    source.failure = LoginFailed("no")

    with pytest.raises(LoginFailed):
        WorkloadProvider(source, clock=clock).get_token()


def test_an_exchange_asks_for_what_was_set(clock: FakeClock) -> None:
    requests = Requests(ANSWER)
    trade = token_exchange(requests, scope="read", audience="lake", resource="https://lake.example.com", clock=clock)

    token = trade(Secret("platform"))

    assert token.expires_at == clock.now() + timedelta(seconds=60)
    fields, asked_scope = requests.asked[0]
    assert (fields["audience"], fields["resource"], fields["scope"]) == ("lake", "https://lake.example.com", "read")
    assert asked_scope == "read"


def test_an_assertion_authenticates_the_client(clock: FakeClock) -> None:
    requests = Requests(ANSWER)

    token = client_assertion_exchange(requests, scope="api/.default", clock=clock)(Secret("platform"))

    assert token.text == Secret("traded")
    fields, _ = requests.asked[0]
    assert (fields["grant_type"], fields["client_assertion"]) == ("client_credentials", "platform")


@pytest.mark.parametrize("make", [token_exchange, client_assertion_exchange])
def test_an_answer_without_a_bearer_token_is_refused(clock: FakeClock, make: object) -> None:
    requests = Requests({"access_token": "traded", "token_type": "DPoP"})

    with pytest.raises(ProviderMisbehaved):
        make(requests, clock=clock)(Secret("platform"))  # type: ignore[operator]


def test_the_provider_cannot_be_pickled_and_shows_its_platform_only(clock: FakeClock) -> None:
    provider = WorkloadProvider(Source(clock), clock=clock)
    provider.get_token()

    with pytest.raises(TypeError):
        pickle.dumps(provider)
    assert repr(provider) == "WorkloadProvider(platform='somewhere')"


def test_a_kept_token_is_due_for_renewal_and_one_that_is_read_each_time_is_not(clock: FakeClock) -> None:
    kept, read = (WorkloadProvider(Source(clock, is_read_each_time=each), clock=clock) for each in (False, True))

    kept.get_token()
    read.get_token()

    assert kept.renewal_due_at() == clock.now() + timedelta(minutes=55)
    assert read.renewal_due_at() is None
