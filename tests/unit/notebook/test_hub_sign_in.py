"""A notebook whose person JupyterHub signs in: no click, the way back, the way around it, and the way out."""

import pytest

from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.errors import LoginRequired, ProviderUnavailable
from micromegas_jupyter.notebook.login.connections import FlowToUse
from micromegas_jupyter.notebook.login.session import IdentityStatus
from tests.fakes.notebook_world import FakePersonalProvider, FakeWorld

LINE = (
    "Signed in as Alice Martin (alice@example.com)\n"
    "Signed in through JupyterHub · id.example.com · expires at 15:42 UTC, renews by itself\n"
    "Groups: analysts, lake-admins\n"
)


@pytest.fixture
def world():
    """A world in which the Hub signs Alice in, and a code is the next best way."""
    flow = FlowToUse(flow=Flow.HUB, fallbacks=(Flow.DEVICE,))
    return FakeWorld(stored=FakePersonalProvider(through="JupyterHub"), flow=flow)


def refused(kind=LoginRequired):
    error = kind("JupyterHub keeps no sign-in of yours.", remedy="Ask the Hub's administrator.")
    error.sign_in_service = "JupyterHub"
    return error


def with_quick_logins(shell, provider=None):
    """Have each sign-in of the shell's session end well as soon as it is begun; returns the session."""
    session = shell._micromegas_extension.session
    begin = session.sign_in

    def begin_and_succeed(*arguments, **options):
        attempt = begin(*arguments, **options)
        attempt.login.succeed(provider)
        return attempt

    session.sign_in = begin_and_succeed
    return session


@pytest.mark.parametrize("kind", [LoginRequired, ProviderUnavailable])
def test_when_the_hub_does_not_help_the_next_way_follows_and_says_why(shell, world, capsys, kind):
    world.stored.failure = world.begin_failures[Flow.HUB] = refused(kind)

    session = with_quick_logins(shell)
    shell.run_line_magic("micromegas_login", "")

    shown = capsys.readouterr().out
    assert [login.flow for login in world.logins] == [Flow.DEVICE]
    assert session.state.status is IdentityStatus.SIGNED_IN
    assert "through" not in shown.splitlines()[-1]


def test_without_a_person_the_hubs_own_error_is_what_the_run_ends_with(shell, world, monkeypatch):
    world.stored.failure = error = refused()
    monkeypatch.setattr("micromegas_jupyter.notebook.magics.identity.is_attended", lambda _shell: False)

    done = shell.run_cell("%micromegas_login")

    assert done.error_in_exec is error
    assert world.logins == []


def test_signing_out_forgets_the_token_until_the_person_comes_back(shell, world, capsys):
    provider = world.stored
    shell.run_line_magic("micromegas_login", "")
    shell.run_line_magic("micromegas_logout", "")
    world.stored = provider  # the Hub would sign in again at once
    capsys.readouterr()

    done = shell.run_cell("%sql SELECT 1")

    assert isinstance(done.error_in_exec, LoginRequired)
    assert done.error_in_exec.what.endswith("you signed out here.")
    assert "%micromegas_login" in done.error_in_exec.remedy
    capsys.readouterr()
    shell.run_line_magic("micromegas_login", "")
    assert capsys.readouterr().out == LINE
