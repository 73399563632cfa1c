"""Signing in from an IPython terminal; a kernel's side of it is tested in kernels."""

import threading
from datetime import UTC, datetime

import pytest
from IPython.core.interactiveshell import InteractiveShell

from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.errors import (
    LoginFailed,
    LoginTimedOut,
    MicromegasError,
    ProviderMisbehaved,
)
from micromegas_jupyter.notebook.login.connections import FlowToUse
from micromegas_jupyter.notebook.magics.identity import LoginEnded, prompt_until_done
from tests.fakes.notebook_people import FakePersonalProvider
from tests.fakes.notebook_world import (
    FakeLogin,
    FakeWorld,
)

DEADLINE_SECONDS = 60


@pytest.fixture
def world() -> FakeWorld:
    """A world in which nobody is signed in."""
    return FakeWorld(stored=None)


def succeed_when_waited_for(world: FakeWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each sign-in succeed as soon as somebody waits for it."""
    waiting = FakeLogin.result

    def result(login: FakeLogin, timeout_seconds: float) -> object:
        world.stored = FakePersonalProvider()
        login.succeed(world.stored)
        return waiting(login, timeout_seconds)

    monkeypatch.setattr(FakeLogin, "result", result)


def test_without_a_browser_the_next_way_is_announced(
    shell: InteractiveShell, world: FakeWorld, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.flow = FlowToUse(flow=Flow.BROWSER, fallbacks=(Flow.DEVICE, Flow.PASTE))
    world.has_browser = False
    succeed_when_waited_for(world, monkeypatch)

    shell.run_line_magic("micromegas_login", "")

    assert [login.flow for login in world.logins] == [Flow.BROWSER, Flow.DEVICE]
    assert world.logins[0].is_cancelled
    assert "\nNo browser opened here.\n" in capsys.readouterr().out


@pytest.mark.parametrize("error", [ProviderMisbehaved("It has no such page."), LoginFailed("It gave none.")])
def test_a_way_that_cannot_begin_gives_way_to_the_next_with_a_word(
    shell: InteractiveShell, world: FakeWorld, monkeypatch: pytest.MonkeyPatch, error: MicromegasError
) -> None:
    world.flow = FlowToUse(flow=Flow.REDIRECT, fallbacks=(Flow.DEVICE,))
    world.begin_failures[Flow.REDIRECT] = error
    succeed_when_waited_for(world, monkeypatch)

    shell.run_line_magic("micromegas_login", "")

    assert [login.flow for login in world.logins] == [Flow.DEVICE]


def test_five_wrong_addresses_end_the_sign_in(shell: InteractiveShell, world: FakeWorld) -> None:
    world.flow = FlowToUse(flow=Flow.PASTE)
    world.answers = ["wrong"] * 6

    with pytest.raises(LoginFailed, match="None of the pasted addresses"):
        shell.run_line_magic("micromegas_login", "")

    assert world.logins[0].is_cancelled
    assert world.answers == ["wrong"]


@pytest.mark.parametrize(
    ("option", "remembered"),
    [("", []), ("--flow auto", [None]), ("--flow device", [Flow.DEVICE])],
)
def test_the_way_that_worked_is_remembered(
    shell: InteractiveShell,
    world: FakeWorld,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    remembered: list[Flow | None],
) -> None:
    succeed_when_waited_for(world, monkeypatch)

    shell.run_line_magic("micromegas_login", option)

    assert world.remembered == remembered


@pytest.fixture
def pasted_login() -> FakeLogin:
    return FakeLogin(expires_at=datetime(2026, 11, 24, 12, 10, tzinfo=UTC), flow=Flow.PASTE)


def test_off_the_main_thread_nobody_is_interrupted_and_a_late_answer_is_not_used(pasted_login: FakeLogin) -> None:
    outcomes: list[str] = []

    def answer_late() -> str:
        pasted_login.fail(LoginTimedOut("Nobody signed in."))
        return "an answer"

    def ask() -> None:
        try:
            outcomes.append(prompt_until_done(pasted_login, answer_late))
        except LoginEnded:
            outcomes.append("ended")

    asking = threading.Thread(target=ask)
    asking.start()
    asking.join(DEADLINE_SECONDS)

    assert outcomes == ["ended"]
