"""Signing in from an IPython terminal; a kernel's side of it is tested in kernels."""

import pytest

from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.errors import LoginFailed, ProviderMisbehaved
from micromegas_jupyter.notebook.login.connections import FlowToUse
from tests.fakes.notebook_world import FakeLogin, FakePersonalProvider, FakeWorld


@pytest.fixture
def world():
    """A world in which nobody is signed in."""
    return FakeWorld(stored=None)


def succeed_when_waited_for(world, monkeypatch):
    """Have each sign-in succeed as soon as somebody waits for it."""
    waiting = FakeLogin.result

    def result(login):
        world.stored = FakePersonalProvider()
        login.succeed(world.stored)
        return waiting(login)

    monkeypatch.setattr(FakeLogin, "result", result)


def test_without_a_browser_the_next_way_is_announced(shell, world, monkeypatch, capsys):
    world.flow = FlowToUse(flow=Flow.BROWSER, fallbacks=(Flow.DEVICE, Flow.PASTE))
    world.has_browser = False
    succeed_when_waited_for(world, monkeypatch)

    shell.run_line_magic("micromegas_login", "")

    assert [login.flow for login in world.logins] == [Flow.BROWSER, Flow.DEVICE]
    assert world.logins[0].is_cancelled
    assert "No browser opened here.\n" in capsys.readouterr().out


@pytest.mark.parametrize("error", [ProviderMisbehaved("It has no such page."), LoginFailed("It gave none.")])
def test_a_way_that_cannot_begin_gives_way_to_the_next_with_a_word(shell, world, monkeypatch, error):
    world.flow = FlowToUse(flow=Flow.REDIRECT, fallbacks=(Flow.DEVICE,))
    world.begin_failures[Flow.REDIRECT] = error
    succeed_when_waited_for(world, monkeypatch)

    shell.run_line_magic("micromegas_login", "")

    assert [login.flow for login in world.logins] == [Flow.DEVICE]


def test_five_wrong_addresses_end_the_sign_in(shell, world):
    world.flow = FlowToUse(flow=Flow.PASTE)
    world.answers = ["wrong"] * 6

    with pytest.raises(LoginFailed, match="None of the pasted URLs"):
        shell.run_line_magic("micromegas_login", "")

    assert world.logins[0].is_cancelled
    assert world.answers == ["wrong"]


@pytest.mark.parametrize(
    ("option", "remembered"), [("", []), ("--flow auto", [None]), ("--flow device", [Flow.DEVICE])]
)
def test_the_way_that_worked_is_remembered(shell, world, monkeypatch, option, remembered):
    succeed_when_waited_for(world, monkeypatch)

    shell.run_line_magic("micromegas_login", option)

    assert world.remembered == remembered
