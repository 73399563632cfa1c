"""Signing in from an IPython terminal; a kernel's side of it is tested in kernels."""

import threading
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from IPython.core.interactiveshell import InteractiveShell

from micromegas_jupyter.auth.flows.base import terminal_qr
from micromegas_jupyter.auth.flows.select import UNATTENDED_REMEDY
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.errors import (
    LoginFailed,
    LoginRequired,
    LoginTimedOut,
    MicromegasError,
    ProviderMisbehaved,
    QueryCancelled,
    UsageError,
)
from micromegas_jupyter.notebook.login.connections import FlowToUse
from micromegas_jupyter.notebook.magics.identity import LoginEnded, prompt_until_done
from tests.fakes.notebook_world import (
    FITTING_ADDRESS,
    PASTE_URL,
    SCAN_URI,
    SECRET_CHALLENGE,
    SECRET_STATE,
    USER_CODE,
    VERIFICATION_URI,
    FakeLogin,
    FakePersonalProvider,
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


def test_a_code_is_shown_and_waited_for(
    shell: InteractiveShell, world: FakeWorld, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.flow = FlowToUse(flow=Flow.DEVICE, reason="Your browser runs on another machine than this terminal.")
    succeed_when_waited_for(world, monkeypatch)

    shell.run_line_magic("micromegas_login", "")

    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        (
            f"Sign in at id.example.com: go to {VERIFICATION_URI} and type {USER_CODE} until 12:10 UTC. "
            "Only type it if you started this. This notebook continues by itself."
        ),
        "Your browser runs on another machine than this terminal.",
    ]
    assert lines[2].startswith("Signed in as Alice Martin")
    assert world.opened_pages == []


def test_a_terminal_draws_the_code_that_a_camera_reads(
    shell: InteractiveShell, world: FakeWorld, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.flow = FlowToUse(flow=Flow.DEVICE)
    succeed_when_waited_for(world, monkeypatch)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)

    shell.run_line_magic("micromegas_login", "")

    shown = capsys.readouterr().out
    picture = "\n".join(terminal_qr(SCAN_URI, columns=100))
    assert f"\nThe page to open, with the code filled in:\n{picture}\n" in shown
    assert SCAN_URI not in shown


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


def test_a_pasted_address_signs_in(
    shell: InteractiveShell, world: FakeWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    world.flow = FlowToUse(flow=Flow.PASTE)
    world.stored = None
    world.answers = [FITTING_ADDRESS]

    shell.run_line_magic("micromegas_login", "")

    shown = capsys.readouterr().out
    assert world.prompts == ["Paste the address here (it is not shown): "]
    assert f"open {PASTE_URL} until 12:10 UTC" in shown
    assert "Signed in as Alice Martin" in shown
    assert FITTING_ADDRESS not in shown


def test_five_wrong_addresses_end_the_sign_in(shell: InteractiveShell, world: FakeWorld) -> None:
    world.flow = FlowToUse(flow=Flow.PASTE)
    world.answers = ["wrong"] * 6

    with pytest.raises(LoginFailed, match="None of the pasted addresses"):
        shell.run_line_magic("micromegas_login", "")

    assert world.logins[0].is_cancelled
    assert world.answers == ["wrong"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), EOFError()], ids=["interrupt", "end of input"])
def test_whoever_does_not_want_to_paste_ends_the_sign_in(
    shell: InteractiveShell, world: FakeWorld, interruption: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    world.flow = FlowToUse(flow=Flow.PASTE)
    world.answers = [interruption]

    done = shell.run_cell("%micromegas_login")

    assert isinstance(done.error_in_exec, QueryCancelled)
    assert world.logins[0].is_cancelled
    assert capsys.readouterr().out.endswith("\n✗ The sign-in was cancelled.\n")


@pytest.mark.parametrize(
    ("option", "wish"),
    [
        ("", None),
        ("--flow auto", "auto"),
        ("--flow device", "device"),
        ("--flow paste", "paste"),
        ("--flow browser", "browser"),
    ],
)
def test_the_way_that_is_asked_for_is_passed_on(
    shell: InteractiveShell, world: FakeWorld, option: str, wish: str | None
) -> None:
    world.flow_failure = UsageError("The identity provider has no device sign-in.")

    with pytest.raises(UsageError, match="no device sign-in"):
        shell.run_line_magic("micromegas_login", option)

    assert world.preferences == [wish]
    assert world.logins == []


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


@pytest.mark.parametrize("flow", ["auto", "browser", "device", "paste"])
def test_a_run_that_nobody_watches_fails_at_once_whatever_way_is_named(
    shell: InteractiveShell, world: FakeWorld, monkeypatch: pytest.MonkeyPatch, flow: str
) -> None:
    unattended = SimpleNamespace(get_parent=lambda _channel: {"content": {"allow_stdin": False}})
    monkeypatch.setattr(shell, "kernel", unattended, raising=False)

    with pytest.raises(LoginRequired) as raised:
        shell.run_line_magic("micromegas_login", f"--flow {flow}")

    assert raised.value.what == (
        "Not signed in at id.example.com (for lake.example.com:50051), and nobody is here to sign in."
    )
    assert raised.value.remedy == UNATTENDED_REMEDY
    assert (world.preferences, world.logins, world.prompts) == ([], [], [])


def test_nothing_of_a_pasted_sign_in_stays_behind(shell: InteractiveShell, world: FakeWorld) -> None:
    world.flow = FlowToUse(flow=Flow.PASTE)
    world.answers = [FITTING_ADDRESS]

    shell.run_line_magic("micromegas_login", "")

    kept = repr(shell._micromegas_extension.session.state) + repr(shell._micromegas_extension.session)
    assert SECRET_STATE not in kept
    assert SECRET_CHALLENGE not in kept


@pytest.fixture
def pasted_login() -> FakeLogin:
    return FakeLogin(expires_at=datetime(2026, 11, 24, 12, 10, tzinfo=UTC), flow=Flow.PASTE)


def wait_to_be_interrupted() -> str:
    # Short waits, as a kernel's input request: an interrupt of the main thread ends none that is under way.
    for _ in range(DEADLINE_SECONDS * 100):
        threading.Event().wait(0.01)
    return "nobody interrupted"


def test_a_sign_in_that_ends_ends_the_question(pasted_login: FakeLogin) -> None:
    ending = threading.Timer(0.05, lambda: pasted_login.fail(LoginTimedOut("Nobody signed in.")))
    ending.start()

    with pytest.raises(LoginEnded):
        prompt_until_done(pasted_login, wait_to_be_interrupted)

    ending.join(DEADLINE_SECONDS)


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
