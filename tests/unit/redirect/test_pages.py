from __future__ import annotations

from html.parser import HTMLParser

import pytest

from micromegas_jupyter.auth.flows.pages import Page, failure_page, notice_page, success_page

HOSTILE = "<script>alert(1)</script> \"' & </title>"


class Outline(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, list[dict[str, str | None]]] = {}
        self.text: list[str] = []
        self.feed(page.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.setdefault(tag, []).append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_success_names_the_person_and_what_to_do() -> None:
    outline = Outline(success_page(who="Alice"))

    assert "Signed in as Alice." in outline.text
    assert "You can close this tab and continue where you started." in outline.text
    assert outline.attributes["main"][0]["role"] == "status"


def test_failure_says_what_happened_and_what_to_do() -> None:
    outline = Outline(failure_page(what="It was refused.", remedy="Start again."))

    assert outline.text[-2:] == ["It was refused.", "Start again."]
    assert outline.attributes["main"][0]["role"] == "alert"


@pytest.mark.parametrize(
    "page",
    [success_page(who=HOSTILE), failure_page(what=HOSTILE, remedy=HOSTILE), notice_page(status=400, what=HOSTILE)],
)
def test_all_text_is_escaped_and_nothing_is_loaded(page: Page) -> None:
    outline = Outline(page)

    assert any(HOSTILE in text for text in outline.text)
    assert set(outline.tags) == {"html", "head", "meta", "title", "style", "body", "main", "span", "h1", "p"}
    assert "http" not in page.html
    assert outline.attributes["html"][0]["lang"] == "en"


def test_pages_go_out_as_utf_8() -> None:
    assert "é".encode() in success_page(who="é").body


def test_a_notice_has_the_status_that_it_is_given() -> None:
    assert (notice_page(status=404, what="x").status, success_page().status) == (404, 200)
