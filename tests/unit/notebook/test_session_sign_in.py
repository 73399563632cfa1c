"""Tests of `notebook.session`: a sign-in that goes on, and how it ends."""

from dataclasses import replace

import pytest

from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.errors import LoginFailed, LoginRequired
from micromegas_jupyter.notebook.login.dependencies import FlowToUse
from micromegas_jupyter.notebook.login.session import NotebookSession
from micromegas_jupyter.notebook.login.state import IdentityStatus, SignInOffer
from tests.fakes.notebook_people import FakePersonalProvider
from tests.fakes.notebook_world import SETTINGS, START_URL, FakeWorld
from tests.unit.notebook.session_cases import shown

DEVICE = FlowToUse(flow=Flow.DEVICE)


def test_a_running_sign_in_is_waited_for_and_its_provider_used(world: FakeWorld, session: NotebookSession) -> None:
    world.stored = None
    provider = FakePersonalProvider()
    login = session.sign_in.begin(SETTINGS, FlowToUse(flow=Flow.BROWSER))

    connection = session.connection(SETTINGS, on_wait=lambda _: login.succeed(provider))

    assert connection.provider is provider
    assert len(world.clients) == 1


def test_a_sign_in_that_ends_by_itself_is_shown_and_kept(world: FakeWorld, session: NotebookSession) -> None:
    world.stored = None
    waiting = []
    session.shown.subscribe(waiting.append)
    login = session.sign_in.begin(SETTINGS, FlowToUse(flow=Flow.BROWSER))

    login.succeed()
    assert world.was_asked_whoami.wait(30)

    assert [state.status for state in waiting[:2]] == [IdentityStatus.WAITING, IdentityStatus.SIGNED_IN]
    assert (waiting[0].offer, waiting[1].offer) == (SignInOffer(flow=Flow.BROWSER, address=START_URL), None)
    assert session.connection(SETTINGS).provider is not None


def test_the_address_that_the_provider_has_to_know_is_said_once_a_browser_was_sent_there(
    world: FakeWorld, session: NotebookSession
) -> None:
    login = session.sign_in.begin(SETTINGS, FlowToUse(flow=Flow.REDIRECT))

    login.start("https://lab.example.com/micromegas/callback")

    assert session.state is not None
    assert session.state.status is IdentityStatus.WAITING
    assert session.state.detail == (
        "The browser will return to https://lab.example.com/micromegas/callback. If id.example.com rejects that "
        "address, have it registered there, or run %micromegas_login --flow device."
    )


def test_a_start_of_a_sign_in_that_is_over_changes_nothing(world: FakeWorld, session: NotebookSession) -> None:
    first = session.sign_in.begin(SETTINGS, FlowToUse(flow=Flow.REDIRECT))
    second = session.sign_in.begin(SETTINGS, FlowToUse(flow=Flow.REDIRECT))
    first.start("https://lab.example.com/micromegas/callback")
    second.succeed()
    second.start("https://lab.example.com/micromegas/callback")

    assert shown(session) is IdentityStatus.SIGNED_IN
    assert "will return to" not in str(session.state)


def test_a_sign_in_for_other_settings_is_not_waited_for(world: FakeWorld, session: NotebookSession) -> None:
    login = session.sign_in.begin(replace(SETTINGS, profile="other"), FlowToUse(flow=Flow.BROWSER))

    session.connection(SETTINGS)

    assert not login.waited_for.is_set()


def test_a_second_sign_in_takes_the_place_of_the_first(world: FakeWorld, session: NotebookSession) -> None:
    first = session.sign_in.begin(SETTINGS, FlowToUse(flow=Flow.BROWSER))

    second = session.sign_in.begin(SETTINGS, FlowToUse(flow=Flow.BROWSER))

    assert first.is_cancelled
    assert not second.is_cancelled
    assert shown(session) is IdentityStatus.WAITING


def test_a_sign_in_that_fails_is_told_to_the_cell_that_waits_and_then_forgotten(
    world: FakeWorld, session: NotebookSession
) -> None:
    world.stored = None
    login = session.sign_in.begin(SETTINGS, FlowToUse(flow=Flow.BROWSER))

    with pytest.raises(LoginFailed):
        session.connection(SETTINGS, on_wait=lambda _: login.fail(LoginFailed("You said no.")))

    assert shown(session) is IdentityStatus.SIGNED_OUT
    assert session.state is not None
    assert session.state.detail == "You said no. Run %micromegas_login to try again."
    with pytest.raises(LoginRequired):
        session.connection(SETTINGS)


def test_an_interrupted_wait_leaves_the_sign_in_open(world: FakeWorld, session: NotebookSession) -> None:
    login = session.sign_in.begin(SETTINGS, FlowToUse(flow=Flow.BROWSER))

    with pytest.raises(KeyboardInterrupt):
        session.connection(SETTINGS, on_wait=lambda _: login.interrupt_the_wait())

    assert not login.is_cancelled
    assert shown(session) is IdentityStatus.WAITING


def test_a_sign_in_that_has_ended_already_still_tells_its_failure(session: NotebookSession) -> None:
    login = session.sign_in.begin(SETTINGS, FlowToUse(flow=Flow.BROWSER))
    login.fail(LoginFailed("You said no."))

    with pytest.raises(LoginFailed, match="You said no"):
        session.sign_in.finish(login)


def test_a_cancelled_sign_in_is_shown_as_over(session: NotebookSession) -> None:
    session.sign_in.begin(SETTINGS, FlowToUse(flow=Flow.PASTE))

    session.sign_in.cancel()

    assert session.state is not None
    assert (session.state.status, session.state.offer) == (IdentityStatus.SIGNED_OUT, None)


def test_why_one_signs_in_in_this_way_is_shown_while_waiting(session: NotebookSession) -> None:
    session.sign_in.begin(SETTINGS, FlowToUse(flow=Flow.DEVICE, reason="No browser opened here."))

    assert session.state is not None
    assert session.state.detail == "No browser opened here."


def test_what_follows_a_sign_in_follows_one_that_ended_well_and_only_once(session: NotebookSession) -> None:
    followed: list[str] = []
    failing = session.sign_in.begin(
        SETTINGS, FlowToUse(flow=Flow.DEVICE), on_signed_in=lambda: followed.append("failed")
    )
    failing.fail(LoginFailed("You said no."))
    working = session.sign_in.begin(
        SETTINGS, FlowToUse(flow=Flow.DEVICE), on_signed_in=lambda: followed.append("worked")
    )

    working.succeed()
    session.sign_in.finish(working)

    assert followed == ["worked"]


def test_a_sign_in_that_brings_unnamed_tokens_works(
    world: FakeWorld, session: NotebookSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unnamed(_self):
        raise LoginRequired("The tokens do not say who is signed in.")

    monkeypatch.setattr(FakePersonalProvider, "identity", unnamed)
    world.stored = None
    login = session.sign_in.begin(SETTINGS, FlowToUse(flow=Flow.DEVICE))

    connection = session.connection(SETTINGS, on_wait=lambda _: login.succeed())

    assert connection.provider is not None
    assert shown(session) is IdentityStatus.SIGNED_IN
