"""What tornado's request handlers need for a sign-in by redirect: signed cookies, and pages that repeat no address.

One cookie ties a callback to the browser that started the sign-in, one names its last page; the secret that signs them
is the server's.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.redirect.messages import MAX_QUERY_CHARACTERS
from micromegas_jupyter.redirect.pages import CONTENT_TYPE, SECURITY_HEADERS, Page, notice_page
from micromegas_jupyter.redirect.routing import is_kernel_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tornado.web import RequestHandler
else:
    RequestHandler = object  # this package loads no web server

BINDING_SECONDS = 600
ENDING_SECONDS = 120
MAX_BINDINGS = 20
"""How many sign-ins one browser may have under way."""

_BINDING = "micromegas-login-"
_ENDING = "micromegas-done"
_HOST_PREFIX = "__Host-"
_DIGEST_CHARACTERS = 16
_DIGEST_PARTS = 2
_SECONDS_PER_DAY = 86_400
_NOT_A_PAGE_LOAD: Final = notice_page(status=403, what="This address is for opening in a browser tab only.")
_TOO_LONG: Final = notice_page(status=414, what="The address is too long to be the end of a sign-in.")


@dataclass(frozen=True, slots=True, kw_only=True)
class CookiePlace:
    """Where the cookies of one server hold.

    Attributes:
        is_secure: Whether browsers reach the server over TLS.
        base_url: The server's base URL, or the path that browsers know for it.
        folder: What the addresses of a sign-in begin with below it.
    """

    is_secure: bool
    base_url: str
    folder: str = "micromegas/"

    @property
    def prefix(self) -> str:
        """What makes browsers refuse such a cookie from a neighbouring host (RFC 6265bis section 4.1.3.2)."""
        return _HOST_PREFIX if self.is_secure and self.base_url == "/" else ""

    @property
    def path(self) -> str:
        """Below which path the cookies are sent; the prefix asks for the whole host."""
        return "/" if self.prefix else f"{self.base_url}{self.folder}"


def binding_name(place: CookiePlace, state_digest: str) -> str:
    """Return the name of the cookie that ties a sign-in to a browser; each sign-in has one of its own."""
    return f"{place.prefix}{_BINDING}{state_digest[:_DIGEST_CHARACTERS]}"


def binding_value(username: str, state_digest: str) -> str:
    """Return what that cookie says: whose browser may bring back which state."""
    return f"{state_digest} {username}"


def ending_name(place: CookiePlace) -> str:
    """Return the name of the cookie that says which sign-in the last page is about."""
    return f"{place.prefix}{_ENDING}"


def ending_value(kernel_id: str, state_digest: str) -> str:
    """Return what that cookie says."""
    return f"{kernel_id} {state_digest}"


def parse_ending_value(value: str) -> tuple[str, str] | None:
    """Return the kernel and the state's digest that such a cookie names; None when it names none."""
    parts = value.split(" ")
    if len(parts) != _DIGEST_PARTS or not is_kernel_id(parts[0]):
        return None
    return parts[0], parts[1]


def names_in(headers: Iterable[str]) -> Counter[str]:
    """Return how often each name stands in a request's `Cookie` headers.

    Source: RFC 6265bis section 5.8.3: of two cookies of one name, the order says nothing about which is whose.
    """
    return Counter(part.partition("=")[0].strip() for header in headers for part in header.split(";"))


def bindings_in(place: CookiePlace, names: Iterable[str]) -> list[str]:
    """Return the names of those cookies that tie a sign-in to this browser.

    Others that only begin so are left aside: a neighbouring host can set them, and not every name can be sent back.
    """
    form = re.compile(rf"{place.prefix}{_BINDING}[0-9a-f]{{{_DIGEST_CHARACTERS}}}")
    return [name for name in names if form.fullmatch(name)]


class SignedCookies(RequestHandler):
    """A handler's signed cookies; comes before tornado's handler among the base classes."""

    def cookie_place(self) -> CookiePlace:
        """Return where the cookies hold."""
        raise NotImplementedError

    def cookie_names(self) -> dict[str, int]:
        """Return how often each cookie was sent."""
        return names_in(self.request.headers.get_list("Cookie"))

    def read_cookie(self, name: str, life_seconds: int) -> str:
        """Return what a signed cookie says; empty when it was not sent, is not ours or too old, or was sent twice."""
        if self.cookie_names().get(name) != 1:
            return ""
        value = self.get_signed_cookie(name, max_age_days=life_seconds / _SECONDS_PER_DAY)
        return "" if value is None else value.decode("utf-8", "replace")

    def give_cookie(self, name: str, value: str, life_seconds: int) -> None:
        """Give the browser a signed cookie that scripts cannot read and other sites cannot send along in a form."""
        place = self.cookie_place()
        self.set_signed_cookie(
            name,
            value,
            expires_days=None,
            max_age=life_seconds,
            path=place.path,
            secure=place.is_secure,
            httponly=True,
            samesite="Lax",
        )

    def bind_sign_in(self, username: str, state_digest: str) -> None:
        """Remember in this browser that its person started a sign-in here."""
        place = self.cookie_place()
        others = bindings_in(place, self.cookie_names())
        if len(others) >= MAX_BINDINGS:
            for name in others:
                self.take_cookie(name)
        self.give_cookie(binding_name(place, state_digest), binding_value(username, state_digest), BINDING_SECONDS)

    def take_cookie(self, name: str) -> None:
        """Have the browser forget such a cookie."""
        place = self.cookie_place()
        self.clear_cookie(name, path=place.path, secure=place.is_secure, httponly=True, samesite="Lax")


class SafePage(RequestHandler):
    """A handler's pages and what it read in an address; comes before tornado's handler among the base classes.

    `query` is what the browser sent behind the question mark, once `take_query` has been called.
    """

    query: str = ""

    def set_default_headers(self) -> None:
        """Set the headers of every page and redirect of a sign-in."""
        super().set_default_headers()
        for name, value in SECURITY_HEADERS.items():
            self.set_header(name, value)

    def take_query(self) -> None:
        """Take the query out of the request, so that all that logs or repeats an address sees the path only."""
        self.query = self.request.query
        self.request.uri = self.request.path
        self.request.query = ""
        self.request.arguments = {}
        self.request.query_arguments = {}
        # The page before may have had a sign-in's parameters in its address, too.
        self.request.headers.pop("Referer", None)

    def refuse_other_loads(self) -> bool:
        """Answer what is no page in a tab of its own, such as a frame, an image or a script's fetch; whether it was."""
        if self.request.headers.get("Sec-Fetch-Dest", "document") == "document":
            return False
        self.send_page(_NOT_A_PAGE_LOAD)
        return True

    def refuse_long_query(self) -> bool:
        """Answer an address that is too long to be the end of a sign-in; whether it was one."""
        if len(self.query) <= MAX_QUERY_CHARACTERS:
            return False
        self.send_page(_TOO_LONG)
        return True

    def send_page(self, page: Page) -> None:
        """Answer with a page."""
        self.set_status(page.status)
        self.set_header("Content-Type", CONTENT_TYPE)
        self.finish(page.body)

    def send_redirect(self, status: int, location: str) -> None:
        """Answer with a redirect; `location` is never taken from the request."""
        self.set_status(status)
        self.set_header("Location", location)
        self.finish()

    def compute_etag(self) -> None:
        """Give none: these pages are never cached."""
