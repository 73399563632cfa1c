"""Reads the forms of an HTML page, as much as is needed to fill one in without a browser.

Which form to send and with what is the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin


@dataclass(frozen=True, slots=True, kw_only=True)
class HtmlForm:
    """One form.

    Attributes:
        action: The absolute URL that it is sent to.
        method: `get` or `post`.
        fields: Its fields with the values they come with.
        buttons: The name and value of each button that has a name.
    """

    action: str
    method: str
    fields: dict[str, str]
    buttons: tuple[tuple[str, str], ...]

    def values_of(self, name: str) -> list[str]:
        """Return the values of the buttons of this name."""
        return [value for found, value in self.buttons if found == name]


def parse_forms(html: str, *, page_url: str) -> list[HtmlForm]:
    """Return the forms of a page in order."""
    parser = _FormParser(page_url)
    parser.feed(html)
    parser.close()
    return [
        HtmlForm(action=form.action, method=form.method, fields=form.fields, buttons=tuple(form.buttons))
        for form in parser.forms
    ]


@dataclass(slots=True, kw_only=True)
class _OpenForm:
    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[tuple[str, str]] = field(default_factory=list)


class _FormParser(HTMLParser):
    def __init__(self, page_url: str) -> None:
        super().__init__()
        self.forms: list[_OpenForm] = []
        self._page_url = page_url
        self._is_inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            # An action that is missing or empty is the page itself, query included.
            action = urljoin(self._page_url, values["action"]) if values.get("action") else self._page_url
            self.forms.append(_OpenForm(action=action, method=values.get("method", "get").lower()))
            self._is_inside = True
        elif self._is_inside and "name" in values:
            if tag == "button" or (tag == "input" and values.get("type") == "submit"):
                self.forms[-1].buttons.append((values["name"], values.get("value", "")))
            elif tag == "input":
                self.forms[-1].fields[values["name"]] = values.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._is_inside = False
