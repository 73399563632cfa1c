"""What the Hub's service refuses with, notebooks know, and the guide explains."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from micromegas_jupyter.auth.flows.hub import NO_SERVICE, NOT_UNDERSTOOD, REFUSALS, UNKNOWN_SIGN_IN
from micromegas_jupyter.hub import refusals
from tests.architecture.guide_text import ROOT, read_page

SERVICE = ROOT / "micromegas_jupyter" / "hub"


def codes_of_the_service() -> set[str]:
    sources = [path.read_text(encoding="utf-8") for path in Path(SERVICE).glob("*.py")]
    literal = {code for source in sources for code in re.findall(r'^\s+error="(\w+)",$', source, flags=re.MULTILINE)}
    return literal | set(refusals._REFUSALS) - {"internal_error"}  # a status says as much


def test_every_code_of_the_service_is_known_to_notebooks() -> None:
    codes = codes_of_the_service()

    assert {"invalid_token", "no_auth_state", "slow_down"} <= codes
    assert sorted(codes - set(REFUSALS) - NOT_UNDERSTOOD - {UNKNOWN_SIGN_IN}) == []


@pytest.mark.parametrize("code", [*REFUSALS, "no service"])
def test_every_sentence_has_a_row_in_the_guide(code: str) -> None:
    refusal = REFUSALS.get(code, NO_SERVICE)
    section = read_page("troubleshooting.md").split("\n## JupyterHub does not sign you in\n")[1].split("\n## ")[0]
    quoted = [part.strip(" .") for text in re.findall(r"\*([^*]+)\*", section) for part in text.split("…")]

    assert any(part and part in refusal.what for part in quoted), refusal.what
