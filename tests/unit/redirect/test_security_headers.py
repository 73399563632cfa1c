from __future__ import annotations

import base64
import hashlib
import re

from micromegas_jupyter.auth.flows.pages import SECURITY_HEADERS, success_page


def test_the_policy_allows_the_pages_own_style_and_nothing_else() -> None:
    style = re.search(r"<style>(.*?)</style>", success_page().html)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()

    assert SECURITY_HEADERS["Content-Security-Policy"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )


def test_pages_are_neither_kept_nor_framed_nor_named_to_others() -> None:
    assert {name: value for name, value in SECURITY_HEADERS.items() if name != "Content-Security-Policy"} == {
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
