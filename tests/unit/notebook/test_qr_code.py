import re

import pytest

from micromegas_jupyter.notebook.login.widget import QUIET_MODULES, build_qr_code
from tests.fakes.notebook_world import SCAN_URI

MODULES = re.compile(r"M(\d+) (\d+)h(\d+)v1h-(\d+)z")


def dark_modules(path: str) -> set[tuple[int, int]]:
    assert MODULES.sub("", path) == ""
    return {
        (int(x) + step, int(y))
        for x, y, width, back in MODULES.findall(path)
        for step in range(int(width))
        if width == back
    }


def test_the_path_draws_exactly_the_dark_modules_within_the_white_frame() -> None:
    import segno

    code = build_qr_code(SCAN_URI)

    matrix = segno.make_qr(SCAN_URI, error="m").matrix
    expected = {
        (x + QUIET_MODULES, y + QUIET_MODULES)
        for y, row in enumerate(matrix)
        for x, is_dark in enumerate(row)
        if is_dark
    }
    assert code is not None
    assert code.side_modules == len(matrix) + 2 * QUIET_MODULES
    assert dark_modules(code.path) == expected


@pytest.mark.parametrize("address", ["", "https://id.example.com/" + "x" * 500])
def test_an_address_that_is_missing_or_too_long_to_scan_has_no_code(address: str) -> None:
    assert build_qr_code(address) is None
