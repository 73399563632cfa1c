"""Which lines a filter chooses, and what words stand for a level."""

import pytest

from micromegas_jupyter.telemetry.levels import Level, parse_level
from micromegas_jupyter.telemetry.log_lines import LogFilter


@pytest.mark.parametrize(
    ("text", "level"),
    [("warn", Level.WARNING), ("WARNING", Level.WARNING), ("2", Level.ERROR), (" e ", Level.ERROR), ("t", Level.TRACE)],
)
def test_a_level_is_a_number_a_name_or_its_beginning(text, level):
    assert parse_level(text) is level


@pytest.mark.parametrize("text", ["", " ", "0", "7", "2.0", "warnings", "loud"])
def test_other_texts_are_no_level(text):
    assert parse_level(text) is None


def test_texts_of_a_filter_are_parameters():
    """They are never part of the statement."""
    hostile = "x') OR 1 = 1 --"
    sql, parameters = LogFilter(level=Level.ERROR, search=hostile, service=hostile, target=hostile).build_sql("msg")

    assert "1 = 1" not in sql
    assert parameters == {"level": 2, "msg": hostile, "exe": hostile, "target": hostile}


def test_without_conditions_all_lines_are_chosen():
    assert LogFilter().build_sql("time", "msg") == ("SELECT time, msg FROM log_entries", {})
