"""The guide to notebooks and the guide to the magics: what they point at is there, and what they name exists."""

from __future__ import annotations

import re

from tests.architecture.guide_text import read_page
from tests.architecture.registered_magics import registered_magics

GUIDE = "notebook-guide.md"


def test_every_magic_that_the_guide_names_is_one() -> None:
    registered = {name for magic in registered_magics() for name in magic.names}

    named = set(re.findall(r"%(micromegas_\w+|sql)\b", read_page(GUIDE)))

    assert named
    assert named <= registered
