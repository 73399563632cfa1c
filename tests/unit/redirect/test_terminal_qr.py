import re

import pytest

from micromegas_jupyter.auth.flows.pages import _QR_BORDER_MODULES, shows_qr, terminal_qr

ADDRESS = "https://id.example.com/device?user_code=WDJB-MJHT"
COLOURED_LINE = re.compile(r"\x1b\[97;40m([ █▀▄]+)\x1b\[0m")


def light_modules(lines: list[str]) -> set[tuple[int, int]]:
    """Return where a terminal that follows the colours is white, two rows to a line."""
    light = set()
    for row, line in enumerate(lines):
        found = COLOURED_LINE.fullmatch(line)
        assert found is not None
        for column, character in enumerate(found[1]):
            light |= {(column, 2 * row)} if character in "█▀" else set()
            light |= {(column, 2 * row + 1)} if character in "█▄" else set()
    return light


def test_the_picture_is_light_on_dark_whatever_the_terminals_colours_are() -> None:
    import segno

    lines = terminal_qr(ADDRESS, columns=80)

    symbol = segno.make_qr(ADDRESS, error="l")
    expected = {
        (x, y)
        for y, row in enumerate(symbol.matrix_iter(border=_QR_BORDER_MODULES))
        for x, module in enumerate(row)
        if not module
    }
    height = symbol.symbol_size(border=_QR_BORDER_MODULES)[1]
    assert {(x, y) for x, y in light_modules(lines) if y < height} == expected


@pytest.mark.parametrize("address", ["", "https://id.example.com/" + "x" * 500])
def test_an_address_that_is_missing_or_too_long_to_scan_has_no_picture(address: str) -> None:
    assert terminal_qr(address, columns=400) == []


def test_a_picture_that_would_not_fit_is_left_out() -> None:
    width = len(COLOURED_LINE.fullmatch(terminal_qr(ADDRESS, columns=400)[0])[1])

    assert terminal_qr(ADDRESS, columns=width) != []
    assert terminal_qr(ADDRESS, columns=width - 1) == []


@pytest.mark.parametrize(
    ("environ", "encoding", "shows"),
    [
        ({"TERM": "xterm"}, "utf-8", True),
        ({"TERM": "xterm"}, "UTF8", True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, "utf-8", False),
        ({"TERM": "dumb"}, "utf-8", False),
        ({}, "utf-8", False),
        ({"TERM": "xterm"}, "latin-1", False),
        ({"TERM": "xterm"}, None, False),
    ],
)
def test_a_terminal_without_colours_or_block_characters_shows_no_picture(
    environ: dict[str, str], encoding: str | None, shows: bool
) -> None:
    assert shows_qr(environ, encoding=encoding) is shows
