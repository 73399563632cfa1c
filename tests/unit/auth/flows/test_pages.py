"""What a person sees at the end of a sign-in: pages that load nothing and can be read, and a QR code."""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape

import pytest
import segno

from micromegas_jupyter.auth.flows.base import (
    SECURITY_HEADERS,
    LoginOutcome,
    notice_page,
    shows_qr,
    terminal_qr,
)

HOSTILE = "<script>alert(1)</script> \"' & </title>"
ADDRESS = "https://id.example.com/device?user_code=WDJB-MJHT"
COLOURED_LINE = re.compile(r"\x1b\[97;40m([ █▀▄]+)\x1b\[0m")


@pytest.mark.parametrize(
    ("page", "role"),
    [
        (LoginOutcome(is_signed_in=True, who=HOSTILE).page(), "status"),
        (LoginOutcome(is_signed_in=False, what=HOSTILE, remedy=HOSTILE).page(), "alert"),
        (notice_page(status=400, what=HOSTILE), "alert"),
    ],
)
def test_all_text_is_escaped_and_nothing_is_loaded(page, role):
    html = page.body.decode()

    assert escape(HOSTILE) in html
    assert HOSTILE not in html
    assert "http" not in html
    names = {"html", "head", "meta", "title", "style", "body", "main", "span", "h1", "p"}
    assert set(re.findall(r"<([a-z0-9]+)", html)) <= names
    assert f'role="{role}"' in html


def test_pages_are_neither_kept_nor_framed_and_the_policy_allows_their_own_style_only():
    style = re.search(r"<style>(.*?)</style>", LoginOutcome(is_signed_in=True).page().body.decode())
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()

    assert {
        "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'; "
        "base-uri 'none'; form-action 'none'",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
    } == SECURITY_HEADERS


def test_the_qr_code_is_light_on_dark_whatever_the_terminals_colours_are():
    light = set()
    for row, line in enumerate(terminal_qr(ADDRESS, columns=80)):
        found = COLOURED_LINE.fullmatch(line)
        assert found is not None
        for column, character in enumerate(found[1]):
            light |= {(column, 2 * row)} if character in "█▀" else set()
            light |= {(column, 2 * row + 1)} if character in "█▄" else set()

    symbol = segno.make_qr(ADDRESS, error="l")
    rows = list(symbol.matrix_iter(border=2))
    assert {(x, y) for x, y in light if y < len(rows)} == {
        (x, y) for y, row in enumerate(rows) for x, module in enumerate(row) if not module
    }


def test_a_qr_code_that_is_missing_too_long_or_too_wide_is_left_out():
    line = COLOURED_LINE.fullmatch(terminal_qr(ADDRESS, columns=400)[0])
    assert line is not None

    assert terminal_qr(ADDRESS, columns=len(line[1])) != []
    assert terminal_qr(ADDRESS, columns=len(line[1]) - 1) == []
    assert terminal_qr("", columns=400) == []
    assert terminal_qr("https://id.example.com/" + "x" * 500, columns=400) == []


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
def test_a_terminal_without_colours_or_block_characters_shows_no_qr_code(environ, encoding, shows):
    assert shows_qr(environ, encoding=encoding) is shows
