"""Each public name, setting, error code and command line option is documented."""

import argparse
import re

import pytest

import micromegas_jupyter
from micromegas_jupyter import access, auth
from micromegas_jupyter.cli.main import build_parser
from micromegas_jupyter.errors import MicromegasError, error_classes
from tests.architecture.guide_text import DOCS, ROOT, dangling_links

INTERNAL_VARIABLES = frozenset()


def _text(name):
    return (DOCS / name).read_text(encoding="utf-8")


def command_line_options():
    return [
        (name, option)
        for name, command in _commands(build_parser()).items()
        for parser in (command, *_commands(command).values())
        for action in parser._actions
        for option in action.option_strings
        if option not in {"-h", "--help"}
    ]


def _commands(parser):
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found[0].choices) if found else {}


def _section(text, title):
    parts = re.split(r"^## ", text, flags=re.MULTILINE)
    return next(part for part in parts if part.startswith(f"`{title}`"))


@pytest.mark.parametrize("page", ["../README.md", *sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))])
def test_every_link_leads_somewhere(page):
    assert dangling_links(page) == []


@pytest.mark.parametrize(("command", "option"), command_line_options())
def test_every_command_line_option_is_documented_under_its_command(command, option):
    assert f"`{option}" in _section(_text("cli.md"), f"micromegas {command}")


@pytest.mark.parametrize("code", sorted(error_classes()))
def test_every_error_code_is_documented(code):
    assert re.search(rf"^### {code}\b", _text("errors.md"), flags=re.MULTILINE)


def test_every_error_class_has_a_code_of_its_own():
    def classes(base):
        return [base] + [found for child in base.__subclasses__() for found in classes(child)]

    codes = [found.code for found in classes(MicromegasError) if found.__module__ == "micromegas_jupyter.errors"]

    assert len(codes) == len(set(codes))


def test_every_environment_variable_in_the_code_is_documented():
    used = {
        name
        for path in (ROOT / "micromegas_jupyter").rglob("*.py")
        for name in re.findall(r"\bMICROMEGAS_[A-Z_]+[A-Z]\b", path.read_text(encoding="utf-8"))
    }

    undocumented = sorted(name for name in used - INTERNAL_VARIABLES if f"`{name}`" not in _text("settings.md"))

    assert undocumented == []


@pytest.mark.parametrize(
    "name",
    [
        *(f"micromegas_jupyter.{name}" for name in micromegas_jupyter.__all__ if not name.startswith("_")),
        *(f"micromegas_jupyter.auth.{name}" for name in auth.__all__),
        *(f"micromegas_jupyter.access.{name}" for name in access.__all__),
    ],
)
def test_every_public_name_is_documented(name):
    assert f"`{name}" in _text("python.md")


def test_promised_names_are_importable():
    assert {"AuthProvider", "OidcAuthProvider", "OidcClientCredentialsProvider", "StaticTokenAuthProvider"} <= set(
        auth.__all__
    )
    assert {
        "ApiKeyValidator", "AuthContext", "AuthType", "MultiValidator", "OidcValidator", "Rejected", "TokenValidator",
        "Unavailable", "validator_from_environment",
    } <= set(access.__all__)  # fmt: skip
    assert callable(micromegas_jupyter.connect)
    assert isinstance(micromegas_jupyter.FlightSQLClient, type)
