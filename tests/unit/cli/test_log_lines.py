"""How log records look on a terminal."""

import logging

import pytest

from micromegas_jupyter.cli.server_log import FactsFormatter, log_to_terminal


def _line(message, *, shows_time=False, **facts):
    record = logging.makeLogRecord({"name": "n", "levelname": "INFO", "msg": message, **facts})
    return FactsFormatter(shows_time=shows_time).format(record)


def test_a_record_without_facts_is_its_sentence():
    assert _line("A credential was refused.") == "INFO n A credential was refused."


def test_facts_follow_the_sentence():
    assert _line("Refused.", reason="expired", subject="alice") == "INFO n Refused. reason=expired subject=alice"


def test_a_servers_line_begins_with_its_time():
    line = _line("Refused.", shows_time=True, created=1_795_521_600.25, reason="expired")

    assert line == "2026-11-24T12:00:00.250Z INFO n Refused. reason=expired"


@pytest.mark.parametrize(("level", "shows_time"), [(logging.INFO, True), (logging.WARNING, False)])
def test_a_log_that_tells_more_than_warnings_shows_the_time(level, shows_time):
    root = logging.getLogger()
    before = list(root.handlers)
    log_to_terminal(level)
    (handler,) = (handler for handler in root.handlers if handler not in before)
    root.removeHandler(handler)
    record = logging.makeLogRecord({"name": "n", "levelname": "INFO", "msg": "Ready.", "created": 0})

    line = handler.format(record)

    assert line == ("1970-01-01T00:00:00.000Z " if shows_time else "") + "INFO n Ready."


def test_a_servers_audit_line_begins_with_its_time_like_any_other():
    line = _line('{"time":"2026"}', name="micromegas_jupyter.audit", shows_time=True, created=0)

    assert line == '1970-01-01T00:00:00.000Z INFO micromegas_jupyter.audit {"time":"2026"}'


def test_an_audit_line_stands_alone_because_it_holds_its_facts():
    line = _line('{"event":"access"}', name="micromegas_jupyter.audit.access", event="access")

    assert line == 'INFO micromegas_jupyter.audit.access {"event":"access"}'


def test_a_fact_from_outside_cannot_break_or_fill_the_line():
    line = _line("Refused.", subject="a\nINFO n Accepted. \x1b[31m", issuer="x" * 1000)

    assert "\n" not in line
    assert "\x1b" not in line
    assert line.endswith("issuer=" + "x" * 256)
