"""A sign-in that waits for its person: how it ends, who learns of it, and what becomes of its tokens."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING

import pytest

from micromegas_jupyter.auth.provider import PendingLogin, discard_tokens
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.errors import (
    InternalError,
    LoginFailed,
    LoginRefused,
    LoginTimedOut,
    MicromegasError,
    TokenStoreError,
)
from tests.fakes.stored_sign_in import StoredSignIn
from tests.unit.auth.scripted_flow import DEADLINE_SECONDS, TOKENS, Person, ScriptedFlow, begin, closed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from micromegas_jupyter.oidc.tokens import TokenSet
    from tests.fakes.clock import FakeClock
    from tests.fakes.scripted_provider import DirectCalls, ScriptedProvider


def test_the_tokens_become_what_is_kept_and_the_page_is_shown_before_anybody_learns_of_it(flow: ScriptedFlow) -> None:
    pending = begin(flow)
    pending.on_done(lambda _pending: flow.events.append("told"))
    with pytest.raises(LoginTimedOut):
        pending.result(0)
    assert not pending.done
    assert not pending.wait_closed(0)

    flow.come(TOKENS)

    assert pending.result(DEADLINE_SECONDS) == Person(tokens=TOKENS)
    assert pending.done
    assert closed(pending)
    assert flow.events == ["show", "told", "close 10", "close 0"]
    assert flow.page is not None
    assert "Signed in as Alice Example." in flow.page.body.decode()


def test_a_sign_in_that_does_not_say_whose_it_is_has_a_page_without_a_name(flow: ScriptedFlow) -> None:
    pending = begin(flow, lambda tokens, _check: Person(tokens=tokens, name=None))

    flow.come(TOKENS)

    assert closed(pending)
    assert flow.page is not None
    assert "You are signed in" in flow.page.body.decode()


def test_everybody_is_told_once_in_the_callers_context_and_a_broken_callback_costs_the_others_nothing(
    flow: ScriptedFlow, caplog: pytest.LogCaptureFixture
) -> None:
    cell = contextvars.ContextVar("cell", default="none")
    told: list[str] = []

    def break_down(_pending: PendingLogin) -> None:
        raise RuntimeError("a widget that is gone")

    cell.set("seven")
    pending = begin(flow)
    cell.set("eight")
    pending.on_done(break_down)
    pending.on_done(lambda _pending: told.append(cell.get()))
    flow.come(TOKENS)
    assert closed(pending)
    pending.on_done(lambda _pending: told.append("late"))

    assert told == ["seven", "late"]
    assert "A callback of a sign-in failed." in caplog.text


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


def test_everybody_learns_of_the_end_before_tokens_are_discarded(flow: ScriptedFlow) -> None:
    def refuse(_tokens: TokenSet, _check: Callable[[], None]) -> Person:
        raise LoginFailed("You signed out meanwhile.")

    pending = PendingLogin(flow, refuse, discard=lambda _tokens: flow.events.append("discard"))
    pending.on_done(lambda _pending: flow.events.append("told"))

    flow.come(TOKENS)

    assert closed(pending)
    assert flow.events == ["show", "told", "discard", "close 10", "close 0"]


@pytest.mark.parametrize("error", [LoginRefused("The person said no."), LoginFailed("No token came.")])
def test_an_error_of_the_flow_is_the_result(error: MicromegasError, flow: ScriptedFlow) -> None:
    pending = begin(flow)

    flow.come(error)

    with pytest.raises(type(error)) as caught:
        pending.result(DEADLINE_SECONDS)
    assert caught.value is error
    assert closed(pending)
    assert flow.page is not None
    assert error.what in flow.page.body.decode()


def test_a_defect_ends_the_sign_in_as_a_defect(flow: ScriptedFlow, caplog: pytest.LogCaptureFixture) -> None:
    pending = begin(flow)

    flow.come(RuntimeError("s3cret"))

    with pytest.raises(InternalError) as caught:
        pending.result(DEADLINE_SECONDS)
    assert "s3cret" not in str(caught.value)
    assert closed(pending)
    assert "A sign-in failed unexpectedly." in caplog.text


# Whether somebody signed out meanwhile


@pytest.fixture
def kept(idp: ScriptedProvider, clock: FakeClock, tmp_path: Path) -> StoredSignIn:
    return StoredSignIn(idp, tmp_path / "tokens.json", clock=clock)


@pytest.fixture
def connection(idp: ScriptedProvider, calls: DirectCalls, clock: FakeClock) -> ProviderConnection:
    return ProviderConnection(idp.issuer, "notebook", None, http=calls, clock=clock)


def test_tokens_that_were_not_kept_are_revoked(
    kept: StoredSignIn, connection: ProviderConnection, clock: FakeClock, idp: ScriptedProvider
) -> None:
    discard_tokens(kept.login().tokens, kept.store(), connection, clock=clock)

    assert [request.form["token_type_hint"] for request in idp.seen("/revoke")] == ["refresh_token", "access_token"]


def test_while_a_sign_in_is_kept_nothing_of_the_persons_is_revoked(
    kept: StoredSignIn, connection: ProviderConnection, clock: FakeClock, idp: ScriptedProvider
) -> None:
    kept.write()

    discard_tokens(kept.login().tokens, kept.store(), connection, clock=clock)

    assert idp.seen("/revoke") == []


def test_where_it_cannot_be_known_whether_a_sign_in_is_kept_nothing_is_revoked(
    kept: StoredSignIn,
    connection: ProviderConnection,
    clock: FakeClock,
    idp: ScriptedProvider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = kept.store()

    def fail() -> None:
        raise TokenStoreError("The token file cannot be looked at.")

    monkeypatch.setattr(store, "mark", fail)
    discard_tokens(kept.login().tokens, store, connection, clock=clock)

    assert idp.seen("/revoke") == []


def test_a_provider_that_cannot_be_reached_costs_a_line_in_the_log(
    connection: ProviderConnection,
    clock: FakeClock,
    idp: ScriptedProvider,
    kept: StoredSignIn,
    caplog: pytest.LogCaptureFixture,
) -> None:
    idp.is_down = True

    discard_tokens(kept.login().tokens, None, connection, clock=clock)

    assert "could not be revoked" in caplog.text
