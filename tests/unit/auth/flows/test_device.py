"""The device flow polls at the provider's pace and ends when the person, the code or the caller does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.flows.base import LoginContext
from micromegas_jupyter.auth.flows.device import start_device
from micromegas_jupyter.auth.provider_connection import LoginRequest, ProviderConnection
from micromegas_jupyter.core.system import SYSTEM_RANDOMNESS
from micromegas_jupyter.errors import (
    LoginRefused,
    ProviderUnavailable,
)
from tests.fakes.pause import FakePause
from tests.fakes.scripted_provider import DirectCalls, Reply, ScriptedProvider

if TYPE_CHECKING:
    from tests.fakes.clock import FakeClock


class Started:
    """A device sign-in whose pauses move the clock, and the person who may type its code."""

    def __init__(self, idp: ScriptedProvider, clock: FakeClock, **options: object) -> None:
        self.idp = idp
        self.pause = FakePause(clock)
        self.meanwhile = self.pause.meanwhile
        connection = ProviderConnection(idp.issuer, "notebook", None, http=DirectCalls(idp), clock=clock)
        request = LoginRequest(**options)  # type: ignore[arg-type]
        self.login = start_device(
            LoginContext(request=request, connection=connection, clock=clock, randomness=SYSTEM_RANDOMNESS),
            stopped=self.pause,
        )

    def decide(self, *, allow: bool = True) -> None:
        self.idp.device.decide(self.login.prompt.user_code, allow=allow)

    def questions(self) -> int:
        return len(self.idp.seen("/token"))


@pytest.fixture
def started(idp: ScriptedProvider, clock: FakeClock) -> Started:
    return Started(idp, clock)


def pending_reply(error: str = "authorization_pending") -> Reply:
    return Reply(status=400, body={"error": error})


def test_slow_down_adds_five_seconds_for_good(started: Started, idp: ScriptedProvider) -> None:
    for error in ("slow_down", "authorization_pending", "slow_down", "authorization_pending"):
        idp.reply_once("/token", pending_reply(error))
    started.decide()

    assert started.login.tokens() is not None
    assert started.pause.waited == [5, 10, 10, 15, 15]


def test_a_provider_that_does_not_answer_is_asked_less_and_less_often(started: Started, idp: ScriptedProvider) -> None:
    for _ in range(5):
        idp.reply_once("/token", Reply(status=503, body={}))
    started.decide()

    assert started.login.tokens() is not None
    assert started.pause.waited == [5, 10, 20, 40, 60, 60]


def test_after_an_answer_the_usual_pace_is_taken_up_again(started: Started, idp: ScriptedProvider) -> None:
    for reply in (Reply(status=503, body={}), Reply(status=503, body={}), pending_reply()):
        idp.reply_once("/token", reply)
    started.decide()

    started.login.tokens()

    assert started.pause.waited == [5, 10, 20, 5]


def test_nobody_typing_the_code_ends_when_it_does(started: Started) -> None:
    assert started.login.tokens() is None
    assert sum(started.pause.waited) == 600
    assert started.questions() == 119  # the last pause ends with the code, and nothing is asked after that


def test_a_caller_may_wait_for_a_shorter_time_than_the_code_lives(idp: ScriptedProvider, clock: FakeClock) -> None:
    started = Started(idp, clock, timeout_seconds=12.0)

    assert started.login.tokens() is None
    assert started.pause.waited == [5, 5, 2]
    assert started.login.prompt.timeout_seconds == 12


def test_a_person_who_says_no_ends_it(started: Started) -> None:
    started.meanwhile[2] = lambda: started.decide(allow=False)

    with pytest.raises(LoginRefused):
        started.login.tokens()
    assert started.questions() == 2


def test_stopping_ends_the_pause_and_asks_no_more(started: Started) -> None:
    started.meanwhile[2] = started.login.stop

    assert started.login.tokens() is None
    assert started.questions() == 1


def test_a_provider_that_is_down_until_the_code_ends_is_unavailable(started: Started, idp: ScriptedProvider) -> None:
    started.meanwhile[1] = lambda: setattr(idp, "is_down", True)

    with pytest.raises(ProviderUnavailable):
        started.login.tokens()


def test_tokens_are_not_fetched_before_there_are_keys_to_check_them_with(
    started: Started, idp: ScriptedProvider
) -> None:
    idp.reply_once("/keys", Reply(status=503, body={}))
    started.decide()

    tokens = started.login.tokens()

    assert tokens is not None
    assert started.questions() == 1
