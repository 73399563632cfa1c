"""The command's entry: arguments, exit codes, and how a server logs."""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from micromegas_jupyter.cli.main import FactsFormatter, build_parser, describe_problem, run
from micromegas_jupyter.cli.serve_command import notify, server_log
from micromegas_jupyter.config.server import LogLevel, ServerSettings
from tests.fakes.waiting import DEADLINE_SECONDS, wait_until

SECRET = "mmk_8c1f0a6de2b94b7f"


def _run(*words, **environ):
    return subprocess.run(
        [sys.executable, "-m", "micromegas_jupyter.cli", *words],
        env={**os.environ, **environ},
        capture_output=True,
        check=False,
        timeout=60,
    )


def test_a_sentence_is_printed_whatever_the_output_can_hold(tmp_path):
    failed = _run("login", MICROMEGAS_CONFIG_DIR=str(tmp_path), PYTHONIOENCODING="ascii", MICROMEGAS_OIDC_ISSUER="")

    assert failed.returncode == 2
    assert failed.stderr.startswith(b"\\u2717 No identity provider is configured")


def test_a_warning_is_a_note_without_its_place(tmp_path):
    (tmp_path / "corporate.py").write_text("class Client:\n    query = print\ndef connect(): return Client()\n")
    wrapper = {"MICROMEGAS_PYTHON_MODULE_WRAPPER": "corporate", "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}

    done = _run("whoami", MICROMEGAS_CONFIG_DIR=str(tmp_path), **wrapper)

    assert b"note: MICROMEGAS_PYTHON_MODULE_WRAPPER is deprecated" in done.stderr
    assert b"FutureWarning" not in done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["keys", "revoke", "report", SECRET],
            "unknown argument; put a statement in quotes · micromegas keys revoke --help",
        ),
        (["keys", "list", f"--json={SECRET}"], "argument --json: its value cannot be used"),
        (["keys", SECRET], "argument ACTION: not one of its choices (choose from"),
        (["keys", "create"], "the following arguments are required: NAME"),
        (["serve", "--access-config", ""], "argument --access-config: is empty; give a value, or leave it out"),
        (["serve", "--trusted-proxy", "::1", "--trusted-proxy", ""], "argument --trusted-proxy: is empty"),
        ([SECRET], "argument COMMAND: not one of its choices (choose from"),
        ([f"--{SECRET}"], "micromegas --help"),
        (["query", "SELECT", SECRET], "unknown argument; put a statement in quotes · micromegas query --help"),
        (["query", "--fromat", "x"], "unknown option --fromat · micromegas query --help"),
        (["query", "--no-such-thing=hunter2", "x"], "unknown option --no-such-thing · micromegas query --help"),
        (["quer", "x"], "argument COMMAND: not one of its choices (choose from"),
        (["process-log", "1", "--first", SECRET], "argument --first: its value cannot be used"),
        (["query", "SELECT 1", "--format", f"(choose from {SECRET})"], "argument --format: not one of its choices"),
        (["query", "SELECT 1", "--client-secret"], "argument --client-secret: expected one argument"),
    ],
)
def test_a_wrong_argument_is_named_in_one_line_and_not_repeated(words, expected, capsys):
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args(words)

    printed = capsys.readouterr()
    assert caught.value.code == 2
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert expected in printed.err
    assert SECRET not in printed.err
    assert (
        describe_problem("a sentence of argparse that is not known: --hunter2")
        == "unknown argument; put a statement in quotes"
    )


def test_a_value_of_serve_is_not_repeated(capsys):
    assert run(["serve", "--port", SECRET]) == 2

    printed = capsys.readouterr().err
    assert "✗ --port is not a number from 0 to 65,535." in printed
    assert SECRET not in printed


def test_an_error_names_the_option_that_was_given_in_place_of_a_variable(tmp_path, monkeypatch, capsys):
    (tmp_path / "access.json").write_text('{"roles": 5}')
    path = str(tmp_path / "access.json")

    def said(*words):
        assert run(words) == 2
        return capsys.readouterr().err

    for words in (["serve", "--check-config", "--lake", str(tmp_path / "lake")], ["access", "explain", path]):
        monkeypatch.delenv("MICROMEGAS_ACCESS_CONFIG", raising=False)
        assert "✗ --access-config.roles " in said(*words, "--access-config", path)
        monkeypatch.setenv("MICROMEGAS_ACCESS_CONFIG", path)
        assert "✗ MICROMEGAS_ACCESS_CONFIG.roles " in said(*words)


@pytest.fixture
def former_handlers():
    loggers = [logging.getLogger(name) for name in ("", "micromegas_jupyter", "micromegas_jupyter.audit")]
    before = [(logger, list(logger.handlers), logger.level) for logger in loggers]
    # What another test left at the root writes to the terminal, too.
    loggers[0].handlers[:] = [one for one in loggers[0].handlers if type(one) is not logging.StreamHandler]
    yield
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)


@pytest.mark.usefixtures("former_handlers")
def test_a_text_log_has_times_masks_secrets_and_leaves_audit_lines_and_libraries_details_out(capsys):
    settings = ServerSettings(log_level=LogLevel.DEBUG)
    with server_log(settings, flush_seconds=lambda: DEADLINE_SECONDS):
        logging.getLogger("micromegas_jupyter.server").debug("Authorization: Bearer abcdefghijklmnop")
        logging.getLogger("micromegas_jupyter.audit").info('{"sql":"SELECT 1 AS token"}')
        logging.getLogger("urllib3").debug("a header")
        notify(settings, "ready")

    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ", line) for line in lines)
    assert "abcdefghijklmnop" not in lines[0]
    assert lines[1].endswith('INFO micromegas_jupyter.audit {"sql":"SELECT 1 AS token"}')
    assert lines[2].endswith("Z ready")


@pytest.mark.usefixtures("former_handlers")
@pytest.mark.parametrize("is_read", [True, False])
def test_a_server_ends_with_its_last_lines_or_without_them_when_nothing_reads_them_in_time(monkeypatch, is_read):
    reading, writing = os.pipe()
    size = 100_000  # more than a pipe holds
    may_read, chunks = threading.Event(), []

    def read():
        assert may_read.wait(DEADLINE_SECONDS)
        while chunk := os.read(reading, 65536):
            chunks.append(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with server_log(ServerSettings(), flush_seconds=lambda: DEADLINE_SECONDS if is_read else 0.01) as (writer,):
            for _ in range(size // 1000):
                logging.getLogger("micromegas_jupyter.server").info("x" * 1000)
            print("also printed", file=sys.stderr)
            if is_read:
                may_read.set()
        is_written = not writer.line_count
        may_read.set()
        wait_until(lambda: not writer.line_count, "all is written")
    reader.join()
    os.close(reading)

    assert is_written is is_read
    assert b"also printed" in b"".join(chunks)


HANGS = {
    "a stop that hangs": "stop.wait(); threading.Event().wait()",
    # As in a start whose storage does not respond: no handler of a signal runs.
    "a library's call that hangs": """
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
libc.pthread_mutex_lock(mutex)
libc.pthread_mutex_lock(mutex)
""",
}
HANGING = """
import ctypes, subprocess, sys, threading
from micromegas_jupyter.cli.serve_command import StopSignal
stop = StopSignal(limit_seconds=0.1)
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
"""


@pytest.mark.parametrize("hang", HANGS.values(), ids=HANGS)
def test_a_server_that_hangs_ends_with_the_process_and_its_children_killed(hang):
    process = subprocess.Popen([sys.executable, "-c", HANGING + hang], stdout=subprocess.PIPE, text=True)
    with process:
        child = psutil.Process(int(process.stdout.readline()))
        process.send_signal(signal.SIGTERM)

        assert process.wait(DEADLINE_SECONDS) == 1
        wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the child is killed")


def test_a_fact_from_outside_cannot_break_or_fill_the_line():
    facts = {"reason": "expired", "subject": "a\nINFO n Accepted. \x1b[31m", "issuer": "x" * 1000}
    record = logging.makeLogRecord({"name": "n", "levelname": "INFO", "msg": "Refused.", **facts})

    line = FactsFormatter().format(record)

    assert line.startswith("INFO n Refused. reason=expired subject='a\\nINFO")
    assert len(line) < 400
    assert "\x1b" not in line


def test_a_message_and_an_error_from_outside_cannot_pass_for_another_line():
    forged = "a\n2026-01-01T00:00:00.000Z INFO micromegas_jupyter.audit {}\r\x1b[2K"
    record = logging.makeLogRecord({"name": "n", "levelname": "ERROR", "msg": "failed: %s", "args": (forged,)})
    record.exc_info = (ValueError, ValueError(forged), None)

    first, *others = FactsFormatter().format(record).split("\n")

    assert first == "ERROR n failed: a"
    assert len(others) == 3
    assert all(line.startswith("    ") and line.isprintable() for line in others)
