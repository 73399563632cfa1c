"""Tests of `auth.pending_login`: a sign-in that is cancelled, fails or cannot be kept."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.pending_login import PendingSignIn
from micromegas_jupyter.errors import (
    InternalError,
    LoginFailed,
    LoginRefused,
    LoginTimedOut,
    MicromegasError,
    TokenStoreError,
)
from tests.unit.auth.scripted_flow import DEADLINE_SECONDS, TOKENS, Person, ScriptedFlow, begin, closed

if TYPE_CHECKING:
    from collections.abc import Callable

    from micromegas_jupyter.oidc.tokens import TokenSet
    from tests.fakes.clock import FakeClock


def test_nobody_coming_is_a_time_out(flow: ScriptedFlow) -> None:
    pending = begin(flow)

    flow.come(None)

    with pytest.raises(LoginTimedOut, match="within 60 seconds"):
        pending.result(DEADLINE_SECONDS)
    assert closed(pending)


def test_cancelling_ends_the_wait(flow: ScriptedFlow) -> None:
    pending = begin(flow)

    pending.cancel()
    pending.cancel()

    with pytest.raises(LoginFailed, match="cancelled") as caught:
        pending.result(DEADLINE_SECONDS)
    assert type(caught.value) is LoginFailed
    assert closed(pending)
    assert "stop" in flow.events


def test_cancelling_after_the_sign_in_was_kept_changes_nothing(flow: ScriptedFlow) -> None:
    discarded: list[TokenSet] = []
    pending = begin(flow, discarded=discarded)
    flow.come(TOKENS)
    assert pending.result(DEADLINE_SECONDS).tokens == TOKENS

    pending.cancel()

    assert pending.result(0).tokens == TOKENS
    assert closed(pending)
    assert discarded == []


def test_a_sign_in_that_was_cancelled_while_its_tokens_were_on_the_way_is_not_kept(clock: FakeClock) -> None:
    class SlowFlow(ScriptedFlow):
        def stop(self) -> None:
            self.events.append("stop")  # the person has answered, so the tokens come in spite of it

    flow, kept, discarded = SlowFlow(clock), [], []

    def keep(tokens: TokenSet, _check: Callable[[], None]) -> Person:
        kept.append(tokens)
        return Person(tokens=tokens)

    pending = begin(flow, keep, discarded)
    assert flow.waiting.wait(DEADLINE_SECONDS)
    pending.cancel()

    flow.come(TOKENS)

    with pytest.raises(LoginFailed, match="cancelled") as caught:
        pending.result(DEADLINE_SECONDS)
    assert type(caught.value) is LoginFailed
    assert closed(pending)
    assert (kept, discarded) == ([], [TOKENS])
    assert flow.page is not None
    assert "cancelled" in flow.page.html


def test_a_sign_in_that_was_cancelled_on_the_way_to_its_place_is_not_kept(flow: ScriptedFlow) -> None:
    reached, cancelled, discarded = threading.Event(), threading.Event(), []

    def keep(tokens: TokenSet, check: Callable[[], None]) -> Person:
        reached.set()
        assert cancelled.wait(DEADLINE_SECONDS)
        check()
        return Person(tokens=tokens)

    pending = begin(flow, keep, discarded)
    flow.come(TOKENS)
    assert reached.wait(DEADLINE_SECONDS)
    pending.cancel()
    cancelled.set()

    with pytest.raises(LoginFailed, match="cancelled"):
        pending.result(DEADLINE_SECONDS)
    assert closed(pending)
    assert discarded == [TOKENS]


def test_everybody_learns_of_the_end_before_tokens_are_discarded(flow: ScriptedFlow) -> None:
    def refuse(_tokens: TokenSet, _check: Callable[[], None]) -> Person:
        raise LoginFailed("You signed out meanwhile.")

    pending = PendingSignIn(flow, refuse, discard=lambda _tokens: flow.events.append("discard"))
    pending.on_done(lambda _pending: flow.events.append("told"))

    flow.come(TOKENS)

    assert closed(pending)
    assert flow.events == ["show", "told", "discard", "close 10", "close 0"]


def test_a_discard_that_fails_leaves_the_end_as_it_is(flow: ScriptedFlow, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(_tokens: TokenSet, _check: Callable[[], None]) -> Person:
        raise LoginFailed("You signed out meanwhile.")

    def break_down(_tokens: TokenSet) -> None:
        raise RuntimeError("a defect")

    pending = PendingSignIn(flow, refuse, discard=break_down)
    flow.come(TOKENS)

    assert closed(pending)
    with pytest.raises(LoginFailed, match="signed out"):
        pending.result(0)
    assert "What was to follow a sign-in failed." in caplog.text


@pytest.mark.parametrize("error", [LoginRefused("The person said no."), LoginFailed("No token came.")])
def test_an_error_of_the_flow_is_the_result(error: MicromegasError, flow: ScriptedFlow) -> None:
    pending = begin(flow)

    flow.come(error)

    with pytest.raises(type(error)) as caught:
        pending.result(DEADLINE_SECONDS)
    assert caught.value is error
    assert closed(pending)
    assert flow.page is not None
    assert error.what in flow.page.html


def test_a_sign_in_that_cannot_be_stored_is_no_sign_in(flow: ScriptedFlow) -> None:
    def refuse(_tokens: TokenSet, _check: Callable[[], None]) -> Person:
        raise TokenStoreError("The token file is a link.")

    pending = begin(flow, refuse)

    flow.come(TOKENS)

    with pytest.raises(TokenStoreError):
        pending.result(DEADLINE_SECONDS)
    assert closed(pending)


def test_a_defect_ends_the_sign_in_as_a_defect(flow: ScriptedFlow, caplog: pytest.LogCaptureFixture) -> None:
    pending = begin(flow)

    flow.come(RuntimeError("s3cret"))

    with pytest.raises(InternalError) as caught:
        pending.result(DEADLINE_SECONDS)
    assert "s3cret" not in str(caught.value)
    assert closed(pending)
    assert "A sign-in ended with a defect." in caplog.text
