"""Every gRPC status of the server is explained, with every error that has it."""

import re
from pathlib import Path

import grpc
import pytest

from micromegas_jupyter.errors import error_classes

TEXT = (Path(__file__).parents[2] / "docs" / "statuses.md").read_text(encoding="utf-8")
SECTIONS = {
    found[1]: found[2] for found in re.finditer(r"^## ([A-Z_]+)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
}
#: What the server, or gRPC in its name, ends calls with besides the errors' statuses.
OTHERS = {"CANCELLED", "NOT_FOUND"}
#: A section that names a range of codes: its first and last.
RANGES = {"UNAUTHENTICATED": ("AUTH000", "AUTH006")}


def _names(section, code):
    first, last = RANGES.get(section, ("", ""))
    return f"[{code}](errors.md#{code.lower()})" in SECTIONS[section] or first <= code <= last


@pytest.mark.parametrize("error", error_classes().values(), ids=lambda error: error.code)
def test_every_error_is_explained_under_its_status(error):
    assert _names(error.grpc_code, error.code)


@pytest.mark.parametrize("section", sorted(SECTIONS))
def test_every_code_stands_under_the_status_that_it_has(section):
    named = set(re.findall(r"\[([A-Z]{3,5}\d{3})\]\(errors\.md", SECTIONS[section]))

    assert {error_classes()[code].grpc_code for code in named} <= {section}


def test_the_statuses_are_those_that_there_are():
    expected = {error.grpc_code for error in error_classes().values()} | OTHERS
    listed = set(re.findall(r"^\| `([A-Z_]+)` \|", TEXT, re.MULTILINE))

    assert set(SECTIONS) == expected
    assert listed == expected | {"OK"}
    assert listed <= {status.name for status in grpc.StatusCode}


def test_whether_to_try_again_is_said_as_the_errors_have_it():
    retried = {error.grpc_code for error in error_classes().values() if error.retryable}

    assert retried == set(re.findall(r"^\| `([A-Z_]+)` \| yes \|", TEXT, re.MULTILINE))
