"""Each argument, answer and audit event of the JupyterHub service is in the administrators' guide."""

import inspect
import re
from pathlib import Path

import pytest

from micromegas_jupyter import hub
from micromegas_jupyter.auth.flows.hub import NO_SERVICE, NOT_UNDERSTOOD, REFUSALS, UNKNOWN_SIGN_IN
from micromegas_jupyter.hub.callers import REFUSALS as SERVICE_REFUSALS
from tests.architecture.guide_text import read_page

ROOT = Path(__file__).parents[2]
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "micromegas_jupyter" / "hub").glob("*.py"))


@pytest.mark.parametrize("argument", sorted(set(inspect.signature(hub.configure).parameters) - {"config"}))
def test_every_argument_of_configure_is_documented(argument):
    assert f"`{argument}`" in read_page("jupyterhub.md") + read_page("settings.md")


@pytest.mark.parametrize("word", SERVICE_REFUSALS)
def test_every_answer_of_the_service_is_documented(word):
    assert f"`{word}`" in read_page("jupyterhub.md")


@pytest.mark.parametrize(
    "word", sorted(set(re.findall(r'audit\.write\(\s*"(\w+)"|event = "(?!refused)(\w+)"|reason="(\w+)"', SOURCES)))
)
def test_every_audit_event_and_reason_is_documented(word):
    assert f"`{''.join(word)}`" in read_page("jupyterhub.md")


@pytest.mark.parametrize("name", hub.__all__)
def test_every_public_name_is_documented(name):
    assert f"`micromegas_jupyter.hub.{name}" in read_page("python.md")


def test_every_code_of_the_service_is_known_to_notebooks():
    codes = set(SERVICE_REFUSALS) - {"internal_error"}

    assert sorted(codes - set(REFUSALS) - NOT_UNDERSTOOD - {UNKNOWN_SIGN_IN}) == []


@pytest.mark.parametrize("code", [*REFUSALS, "no service"])
def test_every_sentence_has_a_row_in_the_guide(code):
    refusal = REFUSALS.get(code, NO_SERVICE)
    section = read_page("troubleshooting.md").split("\n## JupyterHub does not sign you in\n")[1].split("\n## ")[0]
    quoted = [part.strip(" .") for text in re.findall(r"\*([^*]+)\*", section) for part in text.split("…")]

    assert any(part and part in refusal.what for part in quoted), refusal.what
