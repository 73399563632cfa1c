"""tests/promises.md names tests that exist, and every public thing that a program can list."""

import argparse
import ast
import re
from functools import cache

import pytest

import micromegas_jupyter
from micromegas_jupyter import access, auth
from micromegas_jupyter.cli.main import build_parser
from micromegas_jupyter.errors import error_classes
from tests.architecture.guide_text import ROOT, read_page, table_rows
from tests.architecture.test_documentation import command_line_options
from tests.architecture.test_references import magic_options, registered_magics

PAGE = (ROOT / "tests" / "promises.md").read_text(encoding="utf-8")
SHOWN, _, NOT_SHOWN = PAGE.partition("\n## Not shown yet\n")
ROWS = [row for row in table_rows(SHOWN) if row[1] not in {"tests", "---"}]
MOST_TESTS = 3
_TEST = re.compile(r"`(tests/[\w/]+/test_\w+\.py)::(test_\w+)`")
_WORDS = set(re.findall(r"[\w.%-]+", " ".join(re.findall(r"`([^`]+)`", PAGE))))


@cache
def functions(path):
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, kinds))


def commands(parser, name="micromegas"):
    found = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    below = [(f"{name} {word}", child) for choices in found for word, child in choices.items()]
    return [text for word, child in below for text in (word, *commands(child, word))]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: re.sub(r"\W+", "-", row[0])[:80])
def test_every_promise_names_tests_that_exist(row):
    named = _TEST.findall(row[1])

    assert len(row) == 2
    assert 1 <= len(named) <= MOST_TESTS
    assert _TEST.sub("", row[1]).strip() == ""
    assert [f"{path}::{name}" for path, name in named if name not in functions(ROOT / path)] == []


def test_no_promise_stands_twice():
    promises = [row[0] for row in ROWS]

    assert len(promises) > 200
    assert sorted(promises) == sorted(set(promises))


NAMES = {
    "names": lambda: {
        f"{package.__name__}.{name}" for package in (micromegas_jupyter, auth, access) for name in package.__all__
    },
    "magics": lambda: {f"%{name}" for names in registered_magics() for name in names},
    "options of magics": magic_options,
    "options of commands": lambda: {option for _, option in command_line_options()},
    "variables": lambda: set(
        re.findall(
            r"`((?:MICROMEGAS|KERNEL)_[A-Z_]+)`",
            "".join(map(read_page, ("client-settings.md", "server-settings.md", "limits.md"))),
        )
    ),
    "error codes": lambda: set(error_classes()),
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_every_public_name_is_on_the_page(names):
    found = names()

    assert len(found) > 8
    assert sorted(found - _WORDS) == []


def test_every_command_is_on_the_page():
    assert [name for name in commands(build_parser()) if not re.search(rf"`{name}[`\s]", PAGE)] == []
