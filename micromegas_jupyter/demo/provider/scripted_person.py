"""A scripted user without a browser, for `micromegas demo --check` and for tests."""

from dataclasses import dataclass, field
from functools import partial
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, Self
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit
from urllib.request import HTTPCookieProcessor, HTTPRedirectHandler, OpenerDirector, ProxyHandler, build_opener

from micromegas_jupyter.core.system import start_thread
from micromegas_jupyter.core.text import LOOPBACK_HOSTS
from micromegas_jupyter.demo.provider.state import PASSWORD
from micromegas_jupyter.errors import LoginFailed, LoginTimedOut

if TYPE_CHECKING:
    import threading

_MAX_STEPS = 20
_MAX_PAGE_BYTES = 256 * 1024
_ANSWER_TIMEOUT_SECONDS = 30.0
_TOTAL_TIMEOUT_SECONDS = 120.0
_BAD_REQUEST = 400


def sign_in(
    url: str, *, person: str = "alice", password: str = PASSWORD, allow: bool = True, visit_callback: bool = True
) -> str:
    """Follow `url` through sign-in and consent; return the redirect's URL, which `visit_callback` also fetches."""
    fields: dict[str, str] | None = None
    answer_url: str | None = None
    # No proxy from the environment, because all requests stay on this machine.
    opener = build_opener(ProxyHandler({}), HTTPCookieProcessor(), _NoRedirects())
    for _step in range(_MAX_STEPS):
        # RFC 6749 sections 4.1.2 and 4.1.2.1.
        if answer_url is None and {"code", "error"} & parse_qs(urlsplit(url).query).keys():
            answer_url = url
            if not visit_callback:
                return answer_url
        next_url, html = _fetch(opener, url, fields)
        if next_url is not None:
            url, fields = next_url, None
            continue
        if answer_url is not None:
            return answer_url
        filled = _fill_in(parse_forms(html, page_url=url), person=person, password=password, allow=allow)
        if filled is None:
            if fields is not None and "decision" in fields:
                return url
            raise LoginFailed("The scripted sign-in reached an unknown page.")
        url, fields = filled
    raise LoginFailed("The scripted sign-in was redirected too many times.")


class ScriptedPerson:
    """A `core.system.Browser` that signs in on a thread for each opened page; a context manager that waits on exit."""

    def __init__(self, **options: Any) -> None:
        self._options = options  # of `sign_in`
        self._threads: list[threading.Thread] = []
        self._failure: LoginFailed | None = None

    def open(self, url: str) -> bool:
        """Start following `url` and return immediately."""
        self._threads.append(start_thread(partial(self._follow, url), name="scripted-person"))
        return True

    def wait(self) -> None:
        """Wait until the sign-in for each opened page has finished; raises `LoginFailed` if one of them failed."""
        while self._threads:
            thread = self._threads.pop()
            thread.join(_TOTAL_TIMEOUT_SECONDS)
            if thread.is_alive():
                raise LoginTimedOut(f"The scripted sign-in took longer than {_TOTAL_TIMEOUT_SECONDS:g} seconds.")
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        if kind is None:
            self.wait()

    def _follow(self, url: str) -> None:
        try:
            sign_in(url, **self._options)
        except LoginFailed as failure:
            self._failure = failure


@dataclass(slots=True, kw_only=True)
class HtmlForm:
    """A form on a page: the absolute URL of its action, its fields, and the name and value of each named button."""

    action: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[tuple[str, str]] = field(default_factory=list)


def parse_forms(html: str, *, page_url: str) -> list[HtmlForm]:
    """Return the forms of a page in order."""
    parser = _FormParser(page_url)
    parser.feed(html)
    parser.close()
    return parser.forms


class _FormParser(HTMLParser):
    def __init__(self, page_url: str) -> None:
        super().__init__()
        self.forms: list[HtmlForm] = []
        self._page_url = page_url
        self._is_inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            # A missing or empty action is the page itself, including its query.
            action = urljoin(self._page_url, values["action"]) if values.get("action") else self._page_url
            self.forms.append(HtmlForm(action=action))
            self._is_inside = True
        elif self._is_inside and "name" in values:
            if tag == "button" or (tag == "input" and values.get("type") == "submit"):
                self.forms[-1].buttons.append((values["name"], values.get("value", "")))
            elif tag == "input":
                self.forms[-1].fields[values["name"]] = values.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        self._is_inside = self._is_inside and tag != "form"


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_arguments: object) -> None:
        """Do nothing, so that the caller handles the redirect."""


def _fetch(opener: OpenerDirector, url: str, fields: dict[str, str] | None) -> tuple[str | None, str]:
    """Return where the page redirects to, if it does, and its text. Unlike requests, urllib doesn't log URLs."""
    if urlsplit(url).hostname not in LOOPBACK_HOSTS:
        raise LoginFailed("The scripted sign-in was redirected away from this machine.")
    data = None if fields is None else urlencode(fields).encode()
    try:
        try:
            response = opener.open(url, data, timeout=_ANSWER_TIMEOUT_SECONDS)
        except HTTPError as answer:
            response = answer
        with response:
            status, location = response.status, response.headers["Location"]
            content: bytes = response.read(_MAX_PAGE_BYTES + 1)
    except OSError as error:
        if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError):
            raise LoginTimedOut(
                f"A page of the scripted sign-in timed out after {_ANSWER_TIMEOUT_SECONDS:g} s."
            ) from None
        raise LoginFailed("A page of the scripted sign-in did not respond.") from None
    if status >= _BAD_REQUEST:
        raise LoginFailed(f"A page of the scripted sign-in returned status {status}.")
    if len(content) > _MAX_PAGE_BYTES:
        raise LoginFailed("A page of the scripted sign-in is too large.")
    return (None if location is None else urljoin(url, location)), content.decode("utf-8", "replace")


def _fill_in(forms: list[HtmlForm], *, person: str, password: str, allow: bool) -> tuple[str, dict[str, str]] | None:
    for form in forms:
        if ("person", person) in form.buttons:
            return form.action, {**form.fields, "password": password, "person": person}
        if ("decision", "allow") in form.buttons:
            return form.action, {**form.fields, "decision": "allow" if allow else "deny"}
        if form.fields.get("user_code"):
            return form.action, form.fields
    return None
