"""The pages that a person sees at the end of a sign-in: self-contained, readable by any device, all text escaped.

Serving them with `SECURITY_HEADERS` is left to the receivers.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from types import MappingProxyType
from typing import Self

# Contrast of text on its background is at least 4.5:1 in both schemes (WCAG 2.2, 1.4.3).
STYLE = (
    ":root{color-scheme:light dark;--page:#f5f6f8;--card:#fff;--text:#1c2128;--quiet:#57606a;--good:#1a7f37;"
    "--bad:#b42318;--line:#d8dee4}"
    "@media(prefers-color-scheme:dark){:root{--page:#0d1117;--card:#161b22;--text:#e6edf3;--quiet:#9da7b3;"
    "--good:#3fb950;--bad:#ff8177;--line:#30363d}}"
    "*{box-sizing:border-box}"
    "body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1rem;background:var(--page);"
    "color:var(--text);font:1rem/1.5 system-ui,sans-serif}"
    "main{max-width:34rem;width:100%;padding:2rem;background:var(--card);border:1px solid var(--line);"
    "border-radius:.75rem;text-align:center}"
    "h1{font-size:1.35rem;margin:.75rem 0}p{margin:.5rem 0;overflow-wrap:anywhere}.hint{color:var(--quiet)}"
    ".mark{display:inline-grid;place-items:center;width:3rem;height:3rem;border-radius:50%;border:2px solid;"
    "font-size:1.5rem;font-weight:700}.success .mark{color:var(--good)}.failure .mark{color:var(--bad)}"
)
STYLE_HASH = "sha256-" + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
CONTENT_TYPE = "text/html; charset=utf-8"
# Source: RFC 9700 sections 4.2.4 and 4.16 (the address holds code and state: no referrer, no caches, no framing).
SECURITY_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": (
            f"default-src 'none'; style-src '{STYLE_HASH}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
        ),
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """An HTML page and the status that it goes out with."""

    status: int
    html: str

    @property
    def body(self) -> bytes:
        """The page as it is sent."""
        return self.html.encode("utf-8")


def success_page(*, who: str | None = None) -> Page:
    """Return the page that says that the sign-in is done; `who` names the person."""
    return _page(
        status=200,
        title="You are signed in",
        sentences=[f"Signed in as {who}."] if who else [],
        hint="You can close this tab and go on where you started.",
    )


def failure_page(*, what: str, remedy: str) -> Page:
    """Return the page that says why there was no sign-in and what to do."""
    return _page(status=200, title="You are not signed in", sentences=[what], hint=remedy, is_failure=True)


def notice_page(*, status: int, what: str) -> Page:
    """Return a page for requests that do not belong to a running sign-in."""
    return _page(status=status, title="Nothing to do here", sentences=[what], hint="", is_failure=True)


def handed_over_page() -> Page:
    """Return the page for an answer whose end nobody can tell here: the place where the sign-in began says it."""
    return _page(
        status=200,
        title="Back to where you started",
        sentences=["What you did here was handed over."],
        hint="You can close this tab: the notebook says how the sign-in ended.",
    )


def reload_page() -> Page:
    """Return the page that loads itself again at once, as a page of this site and no longer of the one before."""
    return _page(status=200, title="One moment", sentences=[], hint="", head='<meta http-equiv="refresh" content="0">')


def _page(  # noqa: PLR0913 - the parts of a page
    *, status: int, title: str, sentences: list[str], hint: str, is_failure: bool = False, head: str = ""
) -> Page:
    paragraphs = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    closing = f'<p class="hint">{escape(hint)}</p>' if hint else ""
    # A screen reader announces a failure at once and a success when it is done with what it is saying.
    role, mark, kind = ("alert", "!", "failure") if is_failure else ("status", "✓", "success")
    html = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"{head}<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f'<body><main role="{role}" class="{kind}"><span class="mark" aria-hidden="true">{mark}</span>'
        f"<h1>{escape(title)}</h1>{paragraphs}{closing}</main></body></html>"
    )
    return Page(status=status, html=html)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The end of a sign-in.

    Attributes:
        is_signed_in: Whether there is a token.
        who: Whose, as people call them; empty when the tokens do not say, and without a token.
        what: What went wrong, as a sentence; empty with a token.
        remedy: What to do about it.
    """

    is_signed_in: bool
    who: str = ""
    what: str = ""
    remedy: str = ""

    @classmethod
    def signed_in(cls, who: str | None) -> Self:
        """Return the end of a sign-in that went well."""
        return cls(is_signed_in=True, who=who or "")

    @classmethod
    def failed(cls, *, what: str, remedy: str) -> Self:
        """Return the end of a sign-in that did not."""
        return cls(is_signed_in=False, what=what, remedy=remedy)

    def page(self) -> Page:
        """Return the page that says so."""
        if self.is_signed_in:
            return success_page(who=self.who or None)
        return failure_page(what=self.what, remedy=self.remedy)
