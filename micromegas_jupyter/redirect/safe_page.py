"""Pages that keep a sign-in's address to themselves, for any of tornado's request handlers.

What each page says is its handler's; which headers it carries is `security_headers`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from micromegas_jupyter.redirect.messages import MAX_QUERY_CHARACTERS
from micromegas_jupyter.redirect.pages import CONTENT_TYPE, Page, notice_page
from micromegas_jupyter.redirect.security_headers import SECURITY_HEADERS

if TYPE_CHECKING:
    from tornado.web import RequestHandler
else:
    RequestHandler = object  # this room loads no web server

_NOT_A_PAGE_LOAD: Final = notice_page(status=403, what="This address is for opening in a browser tab only.")
_TOO_LONG: Final = notice_page(status=414, what="The address is too long to be the end of a sign-in.")


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
