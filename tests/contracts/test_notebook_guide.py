"""The guide to notebooks and the guide to the magics: what they point at is there, and what they name exists."""

from __future__ import annotations

import re

import pytest

from tests.contracts.guide_text import dangling_links, read_page
from tests.contracts.registered_magics import registered_magics

GUIDE = "notebook-guide.md"


@pytest.mark.parametrize("page", [GUIDE, "magics.md"])
def test_every_link_leads_somewhere(page: str) -> None:
    assert dangling_links(page) == []


def test_every_magic_that_the_guide_names_is_one() -> None:
    registered = {name for magic in registered_magics() for name in magic.names}

    named = set(re.findall(r"%(micromegas_\w+|sql)\b", read_page(GUIDE)))

    assert named
    assert named <= registered
