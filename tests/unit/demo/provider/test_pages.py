"""How a typed code is read."""

import pytest

from micromegas_jupyter.demo.provider.pages import normalize_user_code


@pytest.mark.parametrize("typed", ["WDJB-MJHT", "wdjbmjht", " wdjb mjht ", "w.d.j.b.m.j.h.t"])
def test_case_and_marks_do_not_matter(typed: str) -> None:
    assert normalize_user_code(typed) == "WDJB-MJHT"
