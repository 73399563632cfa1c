"""What all sign-in addresses of the server have in common: headers, pages, and an address that no log holds.

What each address does is its handler's.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import ensure_async

from micromegas_jupyter.redirect import notice_page
from micromegas_jupyter.redirect.cookies import CookiePlace
from micromegas_jupyter.redirect.safe_page import SafePage
from micromegas_jupyter.redirect.signed_cookies import SignedCookies
from micromegas_jupyter.relay.public_address import base_of_request, configured_base

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import TracebackType

    from jupyter_server.auth import User

    from micromegas_jupyter.relay.kernel_calls import KernelCalls
    from micromegas_jupyter.relay.settings import MicromegasRelay

_FORBIDDEN = 403
_CORS_PREFIX = "access-control-"
_NOT_FOUND = notice_page(status=404, what="There is no such page.")
_WRONG_METHOD = notice_page(status=405, what="This address is for opening in a browser only.")
_REFUSED = notice_page(status=403, what="This server does not answer this request.")
_NOT_ALLOWED = notice_page(status=403, what="You are not allowed to use the kernels of this server.")
_NO_ADDRESS = notice_page(status=400, what="The request does not say under which address this server was reached.")
_NOT_UNDERSTOOD = "The request could not be understood."


class RelayHandler(SafePage, SignedCookies, JupyterHandler):
    """Answers GET with a page that says that there is none, and any other method with a refusal.

    `query` is what the browser sent behind the question mark. Everything that logs or repeats an address, Jupyter's
    access log and its way to the log-in page among them, sees the path only.

    Args:
        relay: What the administrator set.
        calls: Asks kernels.
    """

    auth_resource = "kernels"

    def initialize(self, *, relay: MicromegasRelay, calls: KernelCalls) -> None:
        """Take what all handlers of a server share."""
        self.relay = relay
        self.calls = calls

    async def prepare(self, *, _redirect_to_login: bool = True) -> Awaitable[None] | None:  # type: ignore[override]  # as the base class does
        """Take the query out of the request before anything can log it."""
        self.take_query()
        return await super().prepare(_redirect_to_login=_redirect_to_login)

    @allow_unauthenticated
    async def get(self, *_parts: str) -> None:
        """Answer that there is no such page."""
        self.send_page(_NOT_FOUND)

    @allow_unauthenticated
    def _refuse_method(self, *_parts: str) -> None:
        self.set_header("Allow", "GET")
        self.send_page(_WRONG_METHOD)

    head = post = put = patch = delete = options = _refuse_method  # tornado looks methods up by these names

    @property
    def user(self) -> User | None:
        """Who is signed in to the server."""
        user: User | None = self.current_user
        return user

    def public_base(self) -> str | None:
        """Return the address that browsers reach this server at; None when nothing says it."""
        return configured_base(self.relay.public_url, os.environ) or base_of_request(
            protocol=self.request.protocol, host=self.request.host, base_url=self.base_url
        )

    def cookie_place(self) -> CookiePlace:
        """Return where this server's cookies hold."""
        parts = urlsplit(self.public_base() or "")
        return CookiePlace(is_secure=parts.scheme == "https", base_url=parts.path or self.base_url)

    async def refuse_unauthorized(self, user: User) -> bool:
        """Answer a person who may not use kernels; whether it was one."""
        if await ensure_async(self.authorizer.is_authorized(self, user, "execute", self.auth_resource)):
            return False
        self.send_page(_NOT_ALLOWED)
        return True

    def send_no_address(self) -> None:
        """Answer a request that does not say where it was sent to."""
        self.send_page(_NO_ADDRESS)

    def set_default_headers(self) -> None:
        """Set the headers of every sign-in page."""
        super().set_default_headers()
        for name in [name for name in self._headers if name.lower().startswith(_CORS_PREFIX)]:
            self.clear_header(name)  # from headers that the server was given for all pages (`tornado_settings`)

    def set_cors_headers(self) -> None:
        """Set none, whatever the server is configured to allow elsewhere: no page reads these."""

    def check_xsrf_cookie(self) -> None:
        """Check nothing: no method that changes anything is answered."""

    def write_error(self, status_code: int, **_details: Any) -> None:
        """Answer what was refused before it reached the handler."""
        page = _REFUSED if status_code == _FORBIDDEN else notice_page(status=status_code, what=_NOT_UNDERSTOOD)
        self.send_page(page)

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Name the kind of a defect; its text and its traceback may hold what a browser sent."""
        del value, tb
        self.log.debug("A request to the sign-in addresses ended with %s.", "nothing" if typ is None else typ.__name__)
