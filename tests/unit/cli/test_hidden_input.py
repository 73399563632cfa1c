"""Reading a line that is not shown."""

import io
import os
import pty
import termios
import threading

import pytest

from micromegas_jupyter.cli.sign_in_terminal import MAX_LINE_BYTES, HiddenInput
from micromegas_jupyter.errors import LoginFailed, LoginTimedOut

LONG_ADDRESS = "http://127.0.0.1:48080/callback?code=" + "c" * 6000


@pytest.fixture
def pipe():
    """The two ends of a pipe: what is read, and where to write."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as source, os.fdopen(writing, "w") as target:
        yield source, target


@pytest.fixture
def terminal():
    """A terminal of the operating system: what the program reads, and the person's side."""
    person, program = pty.openpty()
    with os.fdopen(program, "r") as source:
        yield source, person
    os.close(person)


def test_lines_are_read_one_by_one(pipe):
    source, target = pipe
    target.write("first\nsecond\r\n")
    target.flush()
    asked = HiddenInput(source, io.StringIO())

    answers = [asked.prompt("?", timeout_seconds=10) for _ in range(2)]

    assert answers == ["first", "second"]


def test_empty_lines_are_no_answer(pipe):
    source, target = pipe
    target.write("\n\n  \nanswer\n")
    target.flush()
    asked = HiddenInput(source, io.StringIO())

    assert asked.prompt("?", timeout_seconds=10) == "answer"


def test_nobody_who_answers_in_time_ends_the_sign_in(pipe):
    source, _ = pipe

    with pytest.raises(LoginTimedOut):
        HiddenInput(source, io.StringIO()).prompt("?", timeout_seconds=0)


def test_no_more_input_cancels(pipe):
    source, target = pipe
    target.close()

    with pytest.raises(LoginFailed, match="cancelled"):
        HiddenInput(source, io.StringIO()).prompt("?", timeout_seconds=10)


def test_a_line_that_never_ends_is_refused(pipe):
    source, target = pipe
    target.write("x" * (MAX_LINE_BYTES + 2000))
    target.flush()

    with pytest.raises(LoginFailed, match="too long"):
        HiddenInput(source, io.StringIO()).prompt("?", timeout_seconds=10)


def _paste(person, text):
    """Write as a terminal program does, which the program's side may hold up."""

    def write():
        left = text.encode()
        while left:
            left = left[os.write(person, left[:1000]) :]

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


def test_a_terminal_does_not_show_what_is_pasted_however_long_it_is(terminal):
    source, person = terminal
    before = termios.tcgetattr(source.fileno())
    asked = HiddenInput(source, io.StringIO())
    answers = []
    asking = threading.Thread(target=lambda: answers.append(asked.prompt("?", timeout_seconds=20)), daemon=True)

    asking.start()
    while termios.tcgetattr(source.fileno())[3] & termios.ECHO:
        assert asking.is_alive()
    _paste(person, LONG_ADDRESS + "\r").join(60)
    asking.join(60)

    assert answers == [LONG_ADDRESS]
    assert termios.tcgetattr(source.fileno()) == before
    os.set_blocking(person, False)
    with pytest.raises(BlockingIOError):
        os.read(person, 10)


def test_the_end_of_input_key_cancels_and_gives_the_terminal_back(terminal):
    source, person = terminal
    before = termios.tcgetattr(source.fileno())
    failures = []

    def ask():
        try:
            HiddenInput(source, io.StringIO()).prompt("?", timeout_seconds=20)
        except LoginFailed as failure:
            failures.append(failure)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    while termios.tcgetattr(source.fileno())[3] & termios.ECHO:
        assert asking.is_alive()
    os.write(person, b"\x04")
    asking.join(60)

    assert "cancelled" in failures[0].what
    assert termios.tcgetattr(source.fileno()) == before


def test_what_is_pasted_as_soon_as_the_question_appears_is_not_shown(terminal):
    source, person = terminal
    echoes = []

    class Screen(io.StringIO):
        def write(self, text):
            echoes.append(bool(termios.tcgetattr(source.fileno())[3] & termios.ECHO))
            return super().write(text)

    os.write(person, b"answer\n")
    HiddenInput(source, Screen()).prompt("?", timeout_seconds=10)

    assert echoes == [False, True]


def test_what_is_pasted_between_two_questions_is_not_shown_and_answers_the_next(terminal):
    source, person = terminal
    before = termios.tcgetattr(source.fileno())
    asked = HiddenInput(source, io.StringIO())

    asked.hide()
    is_shown = bool(termios.tcgetattr(source.fileno())[3] & termios.ECHO)
    os.write(person, b"between\r")
    answer = asked.prompt("?", timeout_seconds=10)
    is_shown_after = bool(termios.tcgetattr(source.fileno())[3] & termios.ECHO)
    asked.close()

    assert (is_shown, answer, is_shown_after) == (False, "between", False)
    assert termios.tcgetattr(source.fileno()) == before
