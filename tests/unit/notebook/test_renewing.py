import threading
from datetime import datetime, timedelta

import pytest

from micromegas_jupyter.errors import LoginRequired, MicromegasError, ProviderUnavailable
from micromegas_jupyter.notebook.login.dependencies import TokenRenewal
from tests.fakes.clock import FakeClock

THREAD = "micromegas-background-renewal"


class RenewableProvider:
    """Renews, or does not, as the test says."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.renews = True
        self.failure: MicromegasError | None = None
        self.due_at: datetime | None = clock.now() + timedelta(seconds=60)

    def get_token(self) -> str:
        if self.failure is not None:
            raise self.failure
        if self.renews and self.due_at is not None and self.due_at <= self.clock.now():
            self.due_at = self.clock.now() + timedelta(seconds=60)
        return "token"

    def renewal_due_at(self) -> datetime | None:
        return self.due_at


@pytest.fixture
def provider(clock: FakeClock) -> RenewableProvider:
    return RenewableProvider(clock)


@pytest.fixture
def told() -> list[MicromegasError | None]:
    return []


@pytest.fixture
def watched(provider: RenewableProvider, clock: FakeClock, told: list[MicromegasError | None]) -> TokenRenewal:
    return TokenRenewal(provider, clock=clock, on_change=told.append)


def look(watched: TokenRenewal) -> None:
    """Do what a background renewal does when it is time."""
    watched.get_token()
    watched.renewal_due_at()


def test_nothing_is_told_while_nothing_changes(watched: TokenRenewal, told: list[MicromegasError | None]) -> None:
    watched.renewal_due_at()
    look(watched)

    assert told == []


def test_a_renewal_is_told_once(watched: TokenRenewal, clock: FakeClock, told: list[MicromegasError | None]) -> None:
    clock.advance(60)

    look(watched)
    watched.renewal_due_at()

    assert told == [None]


def test_a_renewal_by_another_program_is_told(
    watched: TokenRenewal, provider: RenewableProvider, told: list[MicromegasError | None], clock: FakeClock
) -> None:
    provider.due_at = clock.now() + timedelta(seconds=90)

    watched.renewal_due_at()

    assert told == [None]


def test_a_token_that_serves_on_because_it_cannot_be_renewed_is_told_from_the_second_attempt_on(
    watched: TokenRenewal, provider: RenewableProvider, clock: FakeClock, told: list[MicromegasError | None]
) -> None:
    provider.renews = False
    clock.advance(60)

    look(watched)
    after_one = list(told)
    look(watched)
    look(watched)

    assert after_one == []
    assert [type(error) for error in told] == [ProviderUnavailable, ProviderUnavailable]


def test_a_renewal_that_works_again_is_told(
    watched: TokenRenewal, provider: RenewableProvider, clock: FakeClock, told: list[MicromegasError | None]
) -> None:
    provider.renews = False
    clock.advance(60)
    look(watched)
    look(watched)
    provider.renews = True

    look(watched)

    assert told[1:] == [None]


def test_an_error_of_the_provider_goes_on_to_whoever_asks(watched: TokenRenewal, provider: RenewableProvider) -> None:
    provider.failure = LoginRequired("The sign-in has ended.")

    with pytest.raises(LoginRequired):
        watched.get_token()


def test_a_renewal_runs_from_start_to_stop(
    provider: RenewableProvider, clock: FakeClock, told: list[MicromegasError | None]
) -> None:
    ended = threading.Event()
    provider.failure = LoginRequired("The sign-in has ended.")
    provider.due_at = None
    renewal = TokenRenewal(provider, clock=clock, on_change=lambda error: (told.append(error), ended.set()))
    of_others = set(threading.enumerate())

    renewal.start()

    own = [each for each in threading.enumerate() if each not in of_others and each.name == THREAD]
    assert ended.wait(30)
    renewal.stop()
    renewal.stop()
    assert [type(error) for error in told] == [LoginRequired]
    for thread in own:
        thread.join(60)
    assert [thread.is_alive() for thread in own] == [False]
