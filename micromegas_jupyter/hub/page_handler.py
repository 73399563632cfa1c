"""What the service's pages have in common: who is signed in to the Hub, cookies, security headers, no logged addresses.

What each page does is its handler's.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from jupyterhub.services.auth import HubOAuth, HubOAuthCallbackHandler, HubOAuthenticated, UserNotAllowed
from tornado import web

from micromegas_jupyter.redirect import notice_page
from micromegas_jupyter.redirect.cookies import CookiePlace
from micromegas_jupyter.redirect.safe_page import SafePage
from micromegas_jupyter.redirect.signed_cookies import SignedCookies

if TYPE_CHECKING:
    from types import TracebackType

    from micromegas_jupyter.hub.parts import ServiceParts

IDENTITY_SECONDS: Final = 5
"""How long the Hub's word on who a browser's cookie belongs to is taken before it is asked again."""

_LOG: Final = logging.getLogger("micromegas_jupyter.hub")
_WRONG_METHOD: Final = notice_page(status=405, what="This address is for opening in a browser only.")
_NOT_ALLOWED: Final = notice_page(status=403, what="You are not allowed to use this service of the Hub.")
_NOT_UNDERSTOOD: Final = "The request could not be understood."


def make_hub_oauth() -> HubOAuth:
    """Return what signs browsers in at the Hub, from the environment that the Hub gave the service."""
    return HubOAuth(cache_max_age=IDENTITY_SECONDS)


class ServicePage(SafePage, web.RequestHandler):
    """Says nothing of an address to anybody when a request fails, either."""

    def write_error(self, status_code: int, **_details: Any) -> None:
        """Answer what no handler answers; nothing of the request is repeated."""
        page = _WRONG_METHOD if status_code == 405 else notice_page(status=status_code, what=_NOT_UNDERSTOOD)  # noqa: PLR2004 - HTTP
        self.send_page(page)

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Name the kind of a defect; its text and its traceback may hold what a browser sent."""
        del value, tb
        _LOG.info("A page's request ended with %s.", "nothing" if typ is None else typ.__name__)


class HubPage(SignedCookies, HubOAuthenticated, ServicePage):  # type: ignore[misc]  # JupyterHub has no types
    """A page for people of the Hub.

    `query` is what the browser sent behind the question mark; everything else sees the path only.

    Args:
        parts: What all handlers share.
        hub_oauth: Signs browsers in.
    """

    def initialize(self, *, parts: ServiceParts, hub_oauth: HubOAuth) -> None:
        """Take what all handlers share."""
        self.parts = parts
        self.hub_auth = hub_oauth

    def prepare(self) -> None:
        """Take the query out of the request before anything can repeat it, and a token, which no browser sends."""
        self.request.headers.pop("Authorization", None)
        self.take_query()

    def check_xsrf_cookie(self) -> None:
        """Check nothing: no method that changes anything is answered."""

    async def visitor(self) -> str | None:
        """Return the Hub's name of the person whose browser this is; None when nobody is signed in in it."""
        model = await self.hub_auth.get_user(self, sync=False)
        if not model or model.get("kind") != "user":
            return None
        try:
            self.check_hub_user(model)
        except UserNotAllowed:
            self.send_page(_NOT_ALLOWED)
            raise web.Finish from None
        return str(model["name"])

    def cookie_place(self) -> CookiePlace:
        """Return where the service's cookies hold."""
        settings = self.parts.settings
        is_secure = (settings.public_url or "").startswith("https:")
        return CookiePlace(is_secure=is_secure, base_url=settings.prefix, folder="")


class HubLoginHandler(ServicePage, HubOAuthCallbackHandler):  # type: ignore[misc]  # JupyterHub has no types
    """`GET oauth_callback`: ends the browser's sign-in at the Hub itself, as every service of a Hub has it.

    Args:
        hub_oauth: Signs browsers in.
    """

    def initialize(self, *, hub_oauth: HubOAuth) -> None:
        """Take what signs browsers in."""
        self.hub_auth = hub_oauth
