"""What the Hub's service refuses with, notebooks know, and the guide explains."""

from __future__ import annotations

import re

import pytest

from micromegas_jupyter.auth.flows.hub import NO_SERVICE, NOT_UNDERSTOOD, REFUSALS, UNKNOWN_SIGN_IN
from micromegas_jupyter.hub import callers
from tests.architecture.guide_text import read_page


def test_every_code_of_the_service_is_known_to_notebooks() -> None:
    codes = set(callers.REFUSALS) - {"internal_error"}

    assert sorted(codes - set(REFUSALS) - NOT_UNDERSTOOD - {UNKNOWN_SIGN_IN}) == []


@pytest.mark.parametrize("code", [*REFUSALS, "no service"])
def test_every_sentence_has_a_row_in_the_guide(code: str) -> None:
    refusal = REFUSALS.get(code, NO_SERVICE)
    section = read_page("troubleshooting.md").split("\n## JupyterHub does not sign you in\n")[1].split("\n## ")[0]
    quoted = [part.strip(" .") for text in re.findall(r"\*([^*]+)\*", section) for part in text.split("…")]

    assert any(part and part in refusal.what for part in quoted), refusal.what
