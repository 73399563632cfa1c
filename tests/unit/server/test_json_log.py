"""A log record as one line of JSON: whole, bounded, without secrets, whatever it holds."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from micromegas_jupyter.server.recorder.log_records import JsonFormatter


def line(message: str, *, name: str = "micromegas_jupyter.server", **facts: object) -> str:
    record = logging.makeLogRecord({"name": name, "levelname": "INFO", "msg": message, "created": 0.25, **facts})
    return JsonFormatter().format(record)


def members(message: str, **facts: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(line(message, **facts))
    return found


def test_a_record_has_its_time_level_logger_message_and_facts() -> None:
    assert members("Refused.", reason="expired", count=3) == {
        "time": "1970-01-01T00:00:00.250Z",
        "level": "INFO",
        "logger": "micromegas_jupyter.server",
        "message": "Refused.",
        "facts": {"reason": "expired", "count": 3},
    }


@pytest.mark.parametrize(
    "hostile", ["a\nb", "a\r\nINFO b", "\x1b[31m", "\x7f", "\u2028", "\x00", "\x85", "\ud800", "😀"]
)
def test_what_comes_from_outside_neither_breaks_the_line_nor_reaches_the_terminal(hostile: str) -> None:
    shown = line(hostile, fact=hostile)

    assert shown.isascii()
    assert shown.isprintable()
    assert json.loads(shown)["message"] == (hostile if hostile != "\ud800" else "?")


def test_secrets_are_masked_in_message_facts_and_traceback() -> None:
    secret = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln"
    error = ValueError(f"Bearer {secret}")

    shown = line(
        f"Authorization: Bearer {secret}",
        access_token="plain",
        url=f"x?code={secret}",
        exc_info=(ValueError, error, error.__traceback__),
    )

    assert secret not in shown
    assert "plain" not in shown
    assert "ValueError" in json.loads(shown)["exception"]


def test_an_audit_line_is_an_object_in_the_line() -> None:
    shown = members('{"event":"access","outcome":"refused"}', name="micromegas_jupyter.audit.access", event="access")

    assert shown["audit"] == {"event": "access", "outcome": "refused"}
    assert "facts" not in shown
    assert "message" not in shown


def test_length_is_bounded() -> None:
    shown = line("x" * 1_000_000, **{f"fact_{number}": "y" * 100_000 for number in range(100)})

    assert len(shown) < 64 * 1024


def test_what_cannot_be_shown_is_said_to_be_so() -> None:
    class Broken:
        def __str__(self) -> str:
            raise ZeroDivisionError

    assert members("%d apples", args=("many",), fact=Broken()) == members("%d apples", fact=Broken())
    assert members("Ready.", fact=Broken())["facts"] == {"fact": "(a value that cannot be shown)"}
