"""What a person sees who signs in at a terminal."""

import io
import os
import re
import threading
from datetime import timedelta

import pytest
import requests

from micromegas_jupyter import wiring
from micromegas_jupyter.auth.flows.select import RuntimeEnvironment, choose_flow
from micromegas_jupyter.cli.sign_in_terminal import (
    Countdown,
    SignInTerminal,
    can_show_qr,
    is_capable_terminal,
    sign_in,
    waiting_line,
    why_line,
)
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.errors import LoginRequired
from tests.unit.cli.terminals import CAPABLE, LatinTerminal, Terminal


@pytest.fixture
def begin(settings, environ):
    """Start a sign-in that is cancelled in the end."""
    started = []

    def begin(flow):
        started.append(wiring.begin_login(settings, flow=flow, environ=environ))
        return started[-1]

    yield begin
    for pending in started:
        pending.cancel()
        pending.wait_closed(30)


def _shown(stream, environ, pending):
    SignInTerminal(stream, source=io.StringIO(), environ=environ).show(pending)
    pending.cancel()
    pending.wait_closed(30)
    return stream.getvalue()


def test_a_code_is_shown_with_a_warning_its_picture_and_the_time_left(begin):
    pending = begin(Flow.DEVICE)

    text = _shown(Terminal(), CAPABLE, pending)

    assert f"Go to {pending.verification_uri} and type {pending.user_code}. Only type it if you started this." in text
    assert "\x1b[97;40m" in text
    assert re.search(r"9:5\d left|10:00 left", text)


def test_the_address_with_the_code_in_it_is_drawn_and_not_written(begin):
    pending = begin(Flow.DEVICE)

    assert pending.verification_uri_complete not in _shown(Terminal(), CAPABLE, pending)


@pytest.mark.parametrize(
    ("stream", "variables"), [(io.StringIO(), CAPABLE), (Terminal(), {"TERM": "dumb"}), (Terminal(), {})]
)
def test_plain_lines_are_all_that_is_needed(begin, stream, variables):
    pending = begin(Flow.DEVICE)

    text = _shown(stream, variables, pending)

    assert pending.user_code in text
    assert "left." in text
    assert "\x1b" not in text
    assert "\r" not in text


def test_why_a_flow_was_chosen_is_one_line():
    choice = choose_flow(RuntimeEnvironment.REMOTE_TERMINAL, can_device=False)

    assert why_line(choice) == (
        "Sign-in by paste. Your browser runs on another machine than this terminal. "
        "Not device: the identity provider has no device sign-in."
    )


@pytest.fixture
def at_terminal(monkeypatch, environ):
    """A terminal over SSH, and a pipe through which its person answers."""
    monkeypatch.delitem(os.environ, "CI", raising=False)
    reading, writing = os.pipe()
    with os.fdopen(reading) as source, os.fdopen(writing, "w") as person:
        source.isatty = lambda: True
        monkeypatch.setattr("sys.stdin", source)
        stream = Terminal()
        monkeypatch.setattr("sys.stderr", stream)
        environ["SSH_CONNECTION"] = "10.0.0.1 50000 10.0.0.2 22"
        yield stream, person


class PastingTerminal(Terminal):
    """A person who opens the address that is written and pastes the one where it ends."""

    def __init__(self, person):
        super().__init__()
        self._person = person

    def write(self, text):
        found = re.search(r"Open (\S+) in a browser", text)
        if found:
            end = requests.get(found[1], allow_redirects=False, timeout=30).headers["Location"]
            self._person.write(f"{end}\n")
            self._person.flush()
        return super().write(text)


def test_a_named_flow_is_remembered_once_the_sign_in_succeeded(at_terminal, settings, environ, monkeypatch):
    _, person = at_terminal
    monkeypatch.setattr("sys.stderr", PastingTerminal(person))

    provider = sign_in(settings, flow="paste", environ=environ)

    assert provider.identity().email == "alice@example.com"
    assert wiring.remembered_flow(settings, environ) is Flow.PASTE


def test_automatic_forgets_what_was_remembered(at_terminal, settings, environ, monkeypatch, idp):
    idp.metadata_changes["device_authorization_endpoint"] = None
    _, person = at_terminal
    monkeypatch.setattr("sys.stderr", PastingTerminal(person))
    wiring.remember_flow(settings, Flow.BROWSER, environ)

    sign_in(settings, flow="auto", environ=environ)

    assert wiring.remembered_flow(settings, environ) is None


def test_the_way_and_its_reason_are_announced(at_terminal, settings, environ, monkeypatch, idp):
    idp.metadata_changes["device_authorization_endpoint"] = None
    _, person = at_terminal
    stream = PastingTerminal(person)
    monkeypatch.setattr("sys.stderr", stream)

    sign_in(settings, environ=environ)

    assert stream.getvalue().startswith("Sign-in by paste. Your browser runs on another machine than this terminal.")


def test_without_a_terminal_nobody_is_asked(settings, environ, idp, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    monkeypatch.setattr("sys.stderr", io.StringIO())

    with pytest.raises(LoginRequired, match="nobody is here to sign in"):
        sign_in(settings, environ=environ)

    assert idp.requests == []


@pytest.mark.parametrize("name", ["MICROMEGAS_OIDC_CLIENT_SECRET", "MICROMEGAS_OIDC_PROXY"])
def test_a_browser_does_not_inherit_what_is_secret(settings, environ, monkeypatch, name):
    monkeypatch.setenv(name, "sesame")

    with pytest.raises(LoginRequired):
        sign_in(settings, environ={**environ, "CI": "true"})

    assert name not in os.environ


class WatchedTerminal(Terminal):
    """Says when something was written."""

    def __init__(self):
        super().__init__()
        self.written = threading.Event()

    def write(self, text):
        self.written.set()
        return super().write(text)


@pytest.mark.parametrize(("seconds", "expected"), [(581, "9:41"), (60, "1:00"), (5, "0:05"), (-3, "0:00")])
def test_the_time_left_is_minutes_and_seconds(clock, seconds, expected):
    line = waiting_line(clock.now() + timedelta(seconds=seconds), clock.now())

    assert line == f"Waiting for you to sign in; {expected} left."


def test_the_line_is_shown_at_once_and_taken_away_at_the_end(clock):
    terminal = WatchedTerminal()
    countdown = Countdown(terminal, expires_at=clock.now() + timedelta(seconds=90), clock=clock)

    countdown.start()
    assert terminal.written.wait(30)
    countdown.stop()

    assert "1:30 left." in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert "\n" not in terminal.getvalue()


def test_a_terminal_that_is_gone_ends_it_quietly(clock):
    terminal = WatchedTerminal()
    terminal.close()
    countdown = Countdown(terminal, expires_at=clock.now(), clock=clock)

    countdown.start()
    countdown.stop()
    countdown.stop()

    assert threading.active_count() >= 1


def test_a_terminal_with_colours_and_block_characters_can_show_it():
    assert can_show_qr(Terminal(), CAPABLE)


@pytest.mark.parametrize(
    ("stream", "environ"),
    [
        (io.StringIO(), CAPABLE),
        (LatinTerminal(), CAPABLE),
        (Terminal(), {**CAPABLE, "NO_COLOR": "1"}),
        (Terminal(), {"TERM": "dumb"}),
        (Terminal(), {}),
    ],
)
def test_elsewhere_it_is_left_out(stream, environ):
    assert not can_show_qr(stream, environ)


def test_a_terminal_without_colours_can_still_rewrite_a_line():
    assert is_capable_terminal(Terminal(), {**CAPABLE, "NO_COLOR": "1"})
