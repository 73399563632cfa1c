"""Each argument, answer and audit event of the JupyterHub service is in the administrators' guide."""

import inspect
import re
from pathlib import Path

import pytest

from micromegas_jupyter import hub

ROOT = Path(__file__).parents[2]
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "micromegas_jupyter" / "hub").glob("*.py"))


def _text(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("argument", sorted(set(inspect.signature(hub.configure).parameters) - {"config"}))
def test_every_argument_of_configure_is_documented(argument: str) -> None:
    assert f"`{argument}`" in _text("jupyterhub.md") + _text("settings.md")


@pytest.mark.parametrize("word", sorted(set(re.findall(r'error="(\w+)"', SOURCES))))
def test_every_answer_of_the_service_is_documented(word: str) -> None:
    assert f"`{word}`" in _text("jupyterhub.md")


@pytest.mark.parametrize(
    "word", sorted(set(re.findall(r'audit\.write\(\s*"(\w+)"|event = "(?!refused)(\w+)"|reason="(\w+)"', SOURCES)))
)
def test_every_audit_event_and_reason_is_documented(word: tuple[str, ...]) -> None:
    assert f"`{''.join(word)}`" in _text("jupyterhub.md")


@pytest.mark.parametrize("name", hub.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    assert f"`micromegas_jupyter.hub.{name}" in _text("python.md")
