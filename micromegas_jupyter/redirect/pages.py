"""The pages that a person sees at the end of a sign-in: self-contained, readable by any device, all text escaped.

Serving them is left to the receivers; they go out with `security_headers.SECURITY_HEADERS`.
"""

from dataclasses import dataclass
from html import escape

from micromegas_jupyter.redirect.style import STYLE

CONTENT_TYPE = "text/html; charset=utf-8"


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
