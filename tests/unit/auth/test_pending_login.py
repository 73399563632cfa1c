"""Tests of `auth.flows.pending`: a sign-in that goes well, and who learns of its end."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.flows.base import LoginPrompt
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.errors import LoginTimedOut, UsageError
from tests.unit.auth.scripted_flow import DEADLINE_SECONDS, NOON, TOKENS, Person, ScriptedFlow, begin, closed

if TYPE_CHECKING:
    from micromegas_jupyter.auth.flows.pending import PendingSignIn
    from tests.fakes.clock import FakeClock


def test_what_the_person_is_shown_is_the_flows(clock: FakeClock) -> None:
    flow = ScriptedFlow(clock)
    flow.prompt = LoginPrompt(
        flow=Flow.DEVICE,
        timeout_seconds=60,
        expires_at=NOON,
        user_code="WDJB-MJHT",
        verification_uri="https://id.example.com/device",
        verification_uri_complete="https://id.example.com/device?user_code=WDJB-MJHT",
    )

    pending = begin(flow)

    assert (pending.flow, pending.start_url, pending.user_code) == (Flow.DEVICE, None, "WDJB-MJHT")
    assert pending.verification_uri == "https://id.example.com/device"
    assert pending.verification_uri_complete == "https://id.example.com/device?user_code=WDJB-MJHT"
    assert pending.expires_at == NOON
    pending.cancel()
    assert closed(pending)


def test_the_tokens_become_what_is_kept(flow: ScriptedFlow) -> None:
    pending = begin(flow)

    flow.come(TOKENS)

    assert pending.result(DEADLINE_SECONDS) == Person(tokens=TOKENS)
    assert pending.done
    assert closed(pending)


def test_until_the_person_comes_it_is_not_done(flow: ScriptedFlow) -> None:
    pending = begin(flow)

    with pytest.raises(LoginTimedOut):
        pending.result(0)
    assert not pending.done
    assert not pending.wait_closed(0)
    flow.come(TOKENS)
    assert closed(pending)


def test_the_page_is_shown_before_anybody_learns_of_the_end(flow: ScriptedFlow) -> None:
    pending = begin(flow)
    pending.on_done(lambda _pending: flow.events.append("told"))

    flow.come(TOKENS)

    assert closed(pending)
    assert flow.events == ["show", "told", "close 10", "close 0"]
    assert flow.page is not None
    assert "Signed in as Alice Example." in flow.page.html


def test_a_sign_in_that_does_not_say_whose_it_is_has_a_page_without_a_name(flow: ScriptedFlow) -> None:
    pending = begin(flow, lambda tokens, _check: Person(tokens=tokens, name=None))

    flow.come(TOKENS)

    assert pending.result(DEADLINE_SECONDS).tokens == TOKENS
    assert closed(pending)
    assert flow.page is not None
    assert "You are signed in" in flow.page.html


def test_everybody_is_told_once_and_a_broken_listener_costs_the_others_nothing(flow: ScriptedFlow) -> None:
    told: list[str] = []

    def break_down(_pending: PendingSignIn[Person]) -> None:
        raise RuntimeError("a widget that is gone")

    pending = begin(flow)
    pending.on_done(break_down)
    pending.on_done(lambda _pending: told.append("first"))
    flow.come(TOKENS)
    assert closed(pending)
    pending.on_done(lambda _pending: told.append("late"))

    assert told == ["first", "late"]


def test_the_callers_context_comes_along(flow: ScriptedFlow) -> None:
    cell = contextvars.ContextVar("cell", default="none")
    seen: list[str] = []
    cell.set("seven")
    pending = begin(flow)
    cell.set("eight")
    pending.on_done(lambda _pending: seen.append(cell.get()))

    flow.come(TOKENS)

    assert closed(pending)
    assert seen == ["seven"]


def test_only_a_flow_that_waits_for_a_text_takes_one(flow: ScriptedFlow) -> None:
    pending = begin(flow)

    with pytest.raises(UsageError):
        pending.submit("http://127.0.0.1/callback?code=c")
    assert not pending.done
    pending.cancel()
    assert closed(pending)


def test_the_repr_shows_nothing_that_is_secret(clock: FakeClock) -> None:
    flow = ScriptedFlow(clock)
    flow.prompt = LoginPrompt(
        flow=Flow.PASTE, timeout_seconds=60, expires_at=NOON, start_url="https://id.example.com/?state=s3cret"
    )
    pending = begin(flow)

    shown = f"{pending!r} {flow.prompt!r} {vars(pending)!r}"

    assert repr(pending) == "PendingLogin(done=False, expires_at=2026-11-24T12:00:00+00:00)"
    assert "s3cret" not in shown
    pending.cancel()
    assert closed(pending)


class SlowEvent:
    """An event that is set after some waits; notes how long each was to last."""

    def __init__(self, *, waits: int) -> None:
        self.timeouts: list[float] = []
        self._waits = waits

    def wait(self, timeout_seconds: float) -> bool:
        self.timeouts.append(timeout_seconds)
        return len(self.timeouts) > self._waits


def test_no_wait_is_long_so_that_an_interrupt_just_before_it_is_noticed(
    flow: ScriptedFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    pending = begin(flow)
    settled, slow = pending._settled, SlowEvent(waits=50)
    monkeypatch.setattr(pending, "_settled", slow)

    with pytest.raises(LoginTimedOut):
        pending.result(600)

    assert len(slow.timeouts) == 51
    assert max(slow.timeouts) <= 0.2
    monkeypatch.setattr(pending, "_settled", settled)
    pending.cancel()
    assert closed(pending)


def test_all_waits_together_last_as_long_as_was_asked_for(flow: ScriptedFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    pending = begin(flow)
    settled, slow = pending._settled, SlowEvent(waits=1000)
    monkeypatch.setattr(pending, "_settled", slow)

    with pytest.raises(LoginTimedOut):
        pending.result(1.0)

    assert 1.0 <= sum(slow.timeouts) < 1.3
    monkeypatch.setattr(pending, "_settled", settled)
    pending.cancel()
    assert closed(pending)
