"""What tornado's request handlers need for a sign-in by redirect: signed cookies, and pages that repeat no address.

One cookie ties a callback to the browser that started the sign-in, one names its last page. They are signed with the
secret of the server: Jupyter's, or the JupyterHub service's.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from micromegas_jupyter.auth.flows.messages import MAX_QUERY_CHARACTERS, is_kernel_id
from micromegas_jupyter.auth.flows.pages import CONTENT_TYPE, NOT_A_PAGE_LOAD, SECURITY_HEADERS, Page, notice_page

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tornado.web import RequestHandler
else:
    RequestHandler = object  # this module loads no web server

BINDING_SECONDS = 600
OUTCOME_SECONDS = 120
MAX_BINDINGS = 20
"""How many sign-ins one browser may have under way."""

_BINDING = "micromegas-login-"
_OUTCOME = "micromegas-done"
_HOST_PREFIX = "__Host-"
_DIGEST_CHARACTERS = 16
_SECONDS_PER_DAY = 86_400
_TOO_LONG: Final = notice_page(status=414, what="The address is too long to be the end of a sign-in.")


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieScope:
    """Where the cookies of one server are sent, and their names.

    `base_url` is the path that browsers know for the server, and `folder` what its sign-in addresses begin with.
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
        """Below which path the cookies are sent; the prefix requires the whole host."""
        return "/" if self.prefix else f"{self.base_url}{self.folder}"

    @property
    def outcome_name(self) -> str:
        """The name of the cookie that says which sign-in the last page is about."""
        return f"{self.prefix}{_OUTCOME}"

    def binding_name(self, state_digest: str) -> str:
        """Return the name of the cookie that ties a sign-in to a browser; each sign-in has its own."""
        return f"{self.prefix}{_BINDING}{state_digest[:_DIGEST_CHARACTERS]}"

    def bindings_in(self, names: Iterable[str]) -> list[str]:
        """Return the names of the cookies that tie a sign-in to this browser.

        Others that only begin so are ignored: a neighbouring host can set them, and not every name can be sent back.
        """
        form = re.compile(rf"{self.prefix}{_BINDING}[0-9a-f]{{{_DIGEST_CHARACTERS}}}")
        return [name for name in names if form.fullmatch(name)]


def binding_value(username: str, state_digest: str) -> str:
    """Return the binding cookie's value: whose browser may bring back which state."""
    return f"{state_digest} {username}"


def parse_outcome_value(value: str) -> tuple[str, str] | None:
    """Return the kernel and the state's digest that an outcome cookie names; None when it names none."""
    kernel_id, _, digest = value.partition(" ")
    return (kernel_id, digest) if is_kernel_id(kernel_id) and digest and " " not in digest else None


def cookie_names_in(headers: Iterable[str]) -> Counter[str]:
    """Return how often each name stands in a request's `Cookie` headers.

    Source: RFC 6265bis section 5.8.3: of two cookies of one name, the order says nothing about which is whose.
    """
    return Counter(part.partition("=")[0].strip() for header in headers for part in header.split(";"))


class LoginPageHandler(RequestHandler):
    """A handler's signed cookies and pages; comes before tornado's handler among the base classes.

    `query` is what the browser sent after the question mark, once `take_query` was called.
    """

    query: str = ""

    def cookie_scope(self) -> CookieScope:
        """Return where the cookies are sent."""
        raise NotImplementedError

    def cookie_names(self) -> Mapping[str, int]:
        """Return how often each cookie was sent."""
        return cookie_names_in(self.request.headers.get_list("Cookie"))

    def read_cookie(self, name: str, life_seconds: int) -> str:
        """Return a signed cookie's value; empty when it was not sent, was sent twice, is too old or not ours."""
        if self.cookie_names().get(name) != 1:
            return ""
        value = self.get_signed_cookie(name, max_age_days=life_seconds / _SECONDS_PER_DAY)
        return "" if value is None else value.decode("utf-8", "replace")

    def send_cookie(self, name: str, value: str, life_seconds: int) -> None:
        """Set a signed cookie that scripts cannot read and other sites cannot send along with a form."""
        scope = self.cookie_scope()
        self.set_signed_cookie(
            name,
            value,
            expires_days=None,
            max_age=life_seconds,
            path=scope.path,
            secure=scope.is_secure,
            httponly=True,
            samesite="Lax",
        )

    def forget_cookie(self, name: str) -> None:
        """Have the browser forget such a cookie."""
        scope = self.cookie_scope()
        self.clear_cookie(name, path=scope.path, secure=scope.is_secure, httponly=True, samesite="Lax")

    def bind_browser(self, username: str, state_digest: str) -> None:
        """Remember in this browser that its person started a sign-in here."""
        scope = self.cookie_scope()
        others = scope.bindings_in(self.cookie_names())
        if len(others) >= MAX_BINDINGS:
            for name in others:
                self.forget_cookie(name)
        self.send_cookie(scope.binding_name(state_digest), binding_value(username, state_digest), BINDING_SECONDS)

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
        """Refuse anything that is not a page load in a tab, such as a frame or a script's fetch; whether it was."""
        if self.request.headers.get("Sec-Fetch-Dest", "document") == "document":
            return False
        self.send_page(NOT_A_PAGE_LOAD)
        return True

    def refuse_long_query(self) -> bool:
        """Refuse an address that is too long to be the end of a sign-in; whether it was."""
        if len(self.query) <= MAX_QUERY_CHARACTERS:
            return False
        self.send_page(_TOO_LONG)
        return True

    @property
    def is_from_other_site(self) -> bool:
        """Whether another site sent the browser here, so that cookies may have been withheld."""
        return self.request.headers.get("Sec-Fetch-Site") == "cross-site"

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
        """Return none: these pages are never cached."""
