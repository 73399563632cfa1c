"""A server logs as its options and variables say, and refuses a value that it does not know."""

import json
import logging
import re

import pytest

from micromegas_jupyter.cli.server_log import FactsFormatter, log_as_server, log_to_terminal, notify
from micromegas_jupyter.config.server import LogFormat, LogLevel, ServerSettings


@pytest.fixture(autouse=True)
def _former_handlers():
    loggers = [logging.getLogger(name) for name in ("", "micromegas_jupyter", "micromegas_jupyter.audit")]
    before = [(logger, list(logger.handlers), logger.level) for logger in loggers]
    # What another test left at the root writes to the terminal, too.
    root = loggers[0]
    root.handlers[:] = [handler for handler in root.handlers if type(handler) is not logging.StreamHandler]
    yield
    for logger, handlers, level in before:
        for handler in logger.handlers:
            if handler not in handlers:
                handler.close()
        logger.handlers[:] = handlers
        logger.setLevel(level)


JSON = ServerSettings(log_format=LogFormat.JSON, log_level=LogLevel.WARNING)


def test_a_json_log_holds_every_line_as_an_object(capsys):
    log_as_server(JSON)

    logging.getLogger("micromegas_jupyter.server").warning("Slow.", extra={"seconds": 3})
    logging.getLogger("micromegas_jupyter.server").info("hidden")

    (shown,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (shown["message"], shown["facts"]) == ("Slow.", {"seconds": 3})


def test_a_text_log_masks_secrets_and_leaves_audit_lines_as_they_are(capsys):
    log_as_server(ServerSettings())

    logging.getLogger("micromegas_jupyter.server").warning("Authorization: Bearer abcdefghijklmnop")
    logging.getLogger("micromegas_jupyter.audit").info('{"sql":"SELECT 1 AS token"}')

    shown = capsys.readouterr().err
    assert "abcdefghijklmnop" not in shown
    assert '{"sql":"SELECT 1 AS token"}' in shown


def test_with_an_audit_file_audit_lines_go_there_and_nowhere_else(tmp_path, capsys):
    path = tmp_path / "audit.log"
    log_as_server(ServerSettings(audit_log=path))
    (handler,) = [found for found in logging.getLogger("micromegas_jupyter.audit").handlers if found.level == 0][-1:]

    logging.getLogger("micromegas_jupyter.audit.access").warning('{"event":"access"}')
    logging.getLogger("micromegas_jupyter.server").warning("Slow.")
    handler.close()

    assert path.read_text() == '{"event":"access"}\n'
    assert "event" not in capsys.readouterr().err


def test_what_libraries_tell_in_detail_is_never_shown(capsys):
    log_as_server(ServerSettings(log_level=LogLevel.DEBUG))

    logging.getLogger("urllib3").debug("a header")
    logging.getLogger("micromegas_jupyter.server").debug("a detail")

    shown = capsys.readouterr().err
    assert "a header" not in shown
    assert "a detail" in shown


def test_what_the_command_says_is_text_for_people_and_json_for_machines(capsys):
    notify(ServerSettings(), "ready")
    settings = ServerSettings(log_format=LogFormat.JSON)
    log_as_server(settings)
    notify(settings, "ready")

    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ready", first)
    assert json.loads(second)["message"] == "ready"


def _line(message, *, shows_time=False, **facts):
    record = logging.makeLogRecord({"name": "n", "levelname": "INFO", "msg": message, **facts})
    return FactsFormatter(shows_time=shows_time).format(record)


def test_facts_follow_the_sentence():
    assert _line("Refused.", reason="expired", subject="alice") == "INFO n Refused. reason=expired subject=alice"


def test_a_servers_line_begins_with_its_time():
    line = _line("Refused.", shows_time=True, created=1_795_521_600.25, reason="expired")

    assert line == "2026-11-24T12:00:00.250Z INFO n Refused. reason=expired"


def test_a_command_for_people_logs_without_the_time(capsys):
    log_to_terminal(logging.WARNING)

    logging.getLogger("n").warning("Ready.")

    assert capsys.readouterr().err == "WARNING n Ready.\n"


def test_a_servers_audit_line_begins_with_its_time_like_any_other():
    line = _line('{"time":"2026"}', name="micromegas_jupyter.audit", shows_time=True, created=0)

    assert line == '1970-01-01T00:00:00.000Z INFO micromegas_jupyter.audit {"time":"2026"}'


def test_a_fact_from_outside_cannot_break_or_fill_the_line():
    line = _line("Refused.", subject="a\nINFO n Accepted. \x1b[31m", issuer="x" * 1000)

    assert "\n" not in line
    assert "\x1b" not in line
    assert line.endswith("issuer=" + "x" * 256)
