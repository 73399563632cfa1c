"""A server logs as its options and variables say, and refuses a value that it does not know."""

import json
import logging
import re

import pytest

from micromegas_jupyter.cli.server_log import log_as_server, read_log_settings, tell
from micromegas_jupyter.errors import ConfigurationError


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


def test_text_at_info_is_the_default():
    settings = read_log_settings({"MICROMEGAS_LOG_FORMAT": "", "MICROMEGAS_LOG_LEVEL": ""})

    assert (settings.is_json, settings.level, settings.audit_file) == (False, logging.INFO, None)


@pytest.mark.parametrize("name", ["MICROMEGAS_LOG_FORMAT", "MICROMEGAS_LOG_LEVEL"])
def test_a_value_that_is_none_is_refused_by_name(name):
    with pytest.raises(ConfigurationError) as caught:
        read_log_settings({name: "loud"})

    assert caught.value.key == name


def test_a_json_log_holds_every_line_as_an_object(capsys):
    variables = {"MICROMEGAS_LOG_FORMAT": "json", "MICROMEGAS_LOG_LEVEL": "warning"}
    log_as_server(variables)

    logging.getLogger("micromegas_jupyter.server").warning("Slow.", extra={"seconds": 3})
    logging.getLogger("micromegas_jupyter.server").info("hidden")

    (shown,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (shown["message"], shown["facts"]) == ("Slow.", {"seconds": 3})


def test_a_text_log_masks_secrets_and_leaves_audit_lines_as_they_are(capsys):
    log_as_server({})

    logging.getLogger("micromegas_jupyter.server").warning("Authorization: Bearer abcdefghijklmnop")
    logging.getLogger("micromegas_jupyter.audit").info('{"sql":"SELECT 1 AS token"}')

    shown = capsys.readouterr().err
    assert "abcdefghijklmnop" not in shown
    assert '{"sql":"SELECT 1 AS token"}' in shown


def test_with_an_audit_file_audit_lines_go_there_and_nowhere_else(tmp_path, capsys):
    path = tmp_path / "audit.log"
    log_as_server({"MICROMEGAS_AUDIT_LOG": str(path)})
    (handler,) = [found for found in logging.getLogger("micromegas_jupyter.audit").handlers if found.level == 0][-1:]

    logging.getLogger("micromegas_jupyter.audit.access").warning('{"event":"access"}')
    logging.getLogger("micromegas_jupyter.server").warning("Slow.")
    handler.close()

    assert path.read_text() == '{"event":"access"}\n'
    assert "event" not in capsys.readouterr().err


def test_what_libraries_tell_in_detail_is_never_shown(capsys):
    log_as_server({"MICROMEGAS_LOG_LEVEL": "debug"})

    logging.getLogger("urllib3").debug("a header")
    logging.getLogger("micromegas_jupyter.server").debug("a detail")

    shown = capsys.readouterr().err
    assert "a header" not in shown
    assert "a detail" in shown


def test_what_the_command_tells_is_text_for_people_and_json_for_machines(capsys):
    variables = {"MICROMEGAS_LOG_FORMAT": "json"}
    tell("ready", {})
    log_as_server(variables)
    tell("ready", variables)

    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ready", first)
    assert json.loads(second)["message"] == "ready"
