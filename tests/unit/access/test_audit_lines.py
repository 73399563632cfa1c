"""Tests of `access.audit_lines`: whatever a record holds, it is one line that parses."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from micromegas_jupyter.access.audit import encode_line, presentable, utc_text


@pytest.mark.parametrize(
    "hostile", ["\n", "\r\n", "\x00", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u2029", "\ud800", '"}', "\U0001f600"]
)
def test_hostile_text_stays_inside_its_line(hostile: str) -> None:
    line = encode_line({"user": f"a{hostile}b"})

    assert all(" " <= character <= "~" for character in line)
    assert json.loads(line) == {"user": f"a{hostile}b"}


def test_texts_are_cut_and_sql_is_left_to_its_writer() -> None:
    line = encode_line({"user": "u" * 999, "sql": "s" * 999, "rows": 7})

    assert json.loads(line) == {"user": "u" * 256, "sql": "s" * 999, "rows": 7}


def test_a_moment_has_milliseconds_and_a_z() -> None:
    assert utc_text(datetime(2026, 11, 24, 12, 0, 1, 750_999, tzinfo=UTC)) == "2026-11-24T12:00:01.750Z"


def test_control_characters_stay_recognisable() -> None:
    assert presentable("a\nb\x1b\u2028") == "a\\nb\\x1b\\u2028"


def test_a_presentable_text_is_bounded_after_it_was_escaped() -> None:
    assert presentable("\0" * 300) == ("\\x00" * 64)
