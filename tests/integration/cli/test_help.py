"""What `--help` of each command prints, in whole processes.

After a change, `python -m tests.integration.cli.test_help` writes help.txt anew: read what changed in it.
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from micromegas_jupyter.cli.main import build_parser

pytestmark = pytest.mark.integration

GOLDEN = Path(__file__).with_name("help.txt")
COLUMNS = 80


def _commands(parser, words=()):
    """Yield the words of each command and of each of its actions."""
    yield [*words, "--help"]
    for action in parser._actions:
        if "--help-all" in action.option_strings:
            yield [*words, "--help-all"]
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from _commands(inner, (*words, name))


def _help(words):
    variables = {**os.environ, "COLUMNS": str(COLUMNS)}
    command = [sys.executable, "-m", "micromegas_jupyter.cli", *words]
    text = subprocess.run(command, env=variables, capture_output=True, text=True, check=True, timeout=120).stdout
    return f"$ micromegas {' '.join(words)}\n{text}\n"


def _all_help():
    with ThreadPoolExecutor(2) as several:
        return "".join(several.map(_help, _commands(build_parser())))


def test_the_help_of_each_command_is_as_it_was_read():
    text = _all_help()

    assert text == GOLDEN.read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= COLUMNS


if __name__ == "__main__":
    GOLDEN.write_text(_all_help(), encoding="utf-8")
