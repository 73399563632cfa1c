"""What a server says about a credential is told once, and cannot do harm."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from micromegas_jupyter.client.calls import CallRecord, Notices
from micromegas_jupyter.client.transport import CallRecorder

if TYPE_CHECKING:
    import pytest


def _told(*texts: str | bytes) -> list[str]:
    told = list[str]()
    notices = Notices(told.append)
    for text in texts:
        notices.note({"x-micromegas-notice": [text]})
    return told


def test_each_text_is_told_once() -> None:
    assert _told("This key ends soon.", "This key ends soon.", "Ask for a new one.") == [
        "This key ends soon.",
        "Ask for a new one.",
    ]


def test_a_text_is_short_and_can_be_shown() -> None:
    (text,) = _told("a\x1b[31m\n\u202eb " + "x" * 1000)

    assert text.isprintable()
    assert "\u202e" not in text
    assert len(text) <= 256


def test_what_is_no_text_is_not_told() -> None:
    assert _told("", " ", b"bytes") == []


def test_a_server_that_says_something_else_each_time_is_not_listened_to_for_ever() -> None:
    assert len(_told(*(f"Notice {number}." for number in range(1000)))) == 4


def test_where_nobody_takes_it_it_is_a_warning_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    Notices().note({"x-micromegas-notice": ["This key ends soon."]})

    (record,) = caplog.records
    assert (record.name, record.levelno) == ("micromegas_jupyter.client", logging.WARNING)
    assert record.getMessage() == "The server says: This key ends soon."


def test_whoever_fails_to_show_it_does_not_end_the_call() -> None:
    def fail(_text: str) -> None:
        raise OSError("the terminal is gone")

    Notices(fail).note({"x-micromegas-notice": ["This key ends soon."]})


def test_every_call_of_a_client_is_listened_to() -> None:
    recorder, told = CallRecorder(), list[str]()
    recorder.notices.on_new = told.append
    with recorder.recording(CallRecord()):
        started = recorder.start_call(None)

    started.received_headers({"x-micromegas-notice": ["This key ends soon."]})

    assert told == ["This key ends soon."]
