"""How log records look on a terminal."""

import logging

from micromegas_jupyter.cli.log_lines import FactsFormatter


def _line(message, **facts):
    record = logging.makeLogRecord({"name": "n", "levelname": "INFO", "msg": message, **facts})
    return FactsFormatter().format(record)


def test_a_record_without_facts_is_its_sentence():
    assert _line("A credential was refused.") == "INFO n A credential was refused."


def test_facts_follow_the_sentence():
    assert _line("Refused.", reason="expired", subject="alice") == "INFO n Refused. reason=expired subject=alice"


def test_a_fact_from_outside_cannot_break_or_fill_the_line():
    line = _line("Refused.", subject="a\nINFO n Accepted. \x1b[31m", issuer="x" * 1000)

    assert "\n" not in line
    assert "\x1b" not in line
    assert line.endswith("issuer=" + "x" * 256)
