"""The line that says how long an offer to sign in holds."""

import threading
from datetime import timedelta

import pytest

from micromegas_jupyter.cli.sign_in_terminal import Countdown, waiting_line
from tests.unit.cli.terminals import Terminal


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
