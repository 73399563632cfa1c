"""The browser's side of a sign-in by the redirect of the whole Hub: start, callback and the last page.

Both steps ask the Hub whose browser it is. Only the person whose kernel began the sign-in gets through, so nobody can
have somebody else's browser end it, or be given what somebody else's browser brought back.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from jupyterhub.services.auth import HubOAuth, HubOAuthCallbackHandler, HubOAuthenticated, UserNotAllowed
from tornado import web

from micromegas_jupyter.auth.flows.handlers import BINDING_SECONDS, CookieScope, LoginPageHandler, binding_value
from micromegas_jupyter.auth.flows.messages import digest_of, state_in
from micromegas_jupyter.auth.flows.pages import handed_over_page, notice_page, reload_page
from micromegas_jupyter.core.secrets import Secret

if TYPE_CHECKING:
    from types import TracebackType

    from micromegas_jupyter.hub.dependencies import ServiceParts

IDENTITY_SECONDS: Final = 5
"""How long the Hub's word on who a browser's cookie belongs to is taken before it is asked again."""

_LOG: Final = logging.getLogger("micromegas_jupyter.hub")
_WRONG_METHOD: Final = notice_page(status=405, what="This address is for opening in a browser only.")
_NOT_ALLOWED: Final = notice_page(status=403, what="You are not allowed to use this service of the Hub.")
_NOT_UNDERSTOOD: Final = "The request could not be understood."
_UNKNOWN: Final = notice_page(
    status=404,
    what="This sign-in is not waiting any more. Go back to the notebook and run %micromegas_login again.",
)
_SOMEBODY_ELSES: Final = notice_page(
    status=403,
    what=(
        "This sign-in was begun in somebody else's notebook. Nothing was handed over. If somebody sent you this "
        "address, they may have wanted to act in your name: tell whoever runs this JupyterHub."
    ),
)
# The same answer, whatever does not fit: nobody learns by trying.
_NOT_OURS: Final = notice_page(
    status=400,
    what=(
        "This does not belong to a sign-in that was started in this browser, at this Hub, within the last ten minutes. "
        "Go back to the notebook and run %micromegas_login again."
    ),
)
_NOT_SIGNED_IN: Final = notice_page(
    status=403,
    what="This browser is not signed in to the Hub any more. Open the Hub, and run %micromegas_login in the notebook.",
)


def make_hub_oauth() -> HubOAuth:
    """Return what signs browsers in at the Hub, from the environment that the Hub gave the service."""
    return HubOAuth(cache_max_age=IDENTITY_SECONDS)


class ServicePage(LoginPageHandler, web.RequestHandler):
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


class HubPage(HubOAuthenticated, ServicePage):  # type: ignore[misc]  # JupyterHub has no types
    """A page for people of the Hub.

    `query` is what the browser sent behind the question mark; everything else sees the path only.
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

    def cookie_scope(self) -> CookieScope:
        """Return where the service's cookies hold."""
        settings = self.parts.settings
        is_secure = (settings.public_url or "").startswith("https:")
        return CookieScope(is_secure=is_secure, base_url=settings.prefix, folder="")


class HubLoginHandler(ServicePage, HubOAuthCallbackHandler):  # type: ignore[misc]  # JupyterHub has no types
    """`GET oauth_callback`: ends the browser's sign-in at the Hub itself, as every service of a Hub has it."""

    def initialize(self, *, hub_oauth: HubOAuth) -> None:
        """Take what signs browsers in."""
        self.hub_auth = hub_oauth


class StartHandler(HubPage):
    """`GET start/<name>`."""

    async def get(self, name: str) -> None:
        """Send the owner's browser to the identity provider and remember which browser it was."""
        if self.refuse_other_loads():
            return
        visitor = await self.visitor()
        if visitor is None:
            self.redirect(self.get_login_url())
            return
        sign_in = self.parts.sign_ins.by_name(name)
        if sign_in is None or sign_in.answer is not None:
            self.send_page(_UNKNOWN)
            return
        if sign_in.owner != visitor:
            self.parts.audit.write(
                "sign_in_refused", owner=sign_in.owner, visitor=visitor, reason="other_person_at_start"
            )
            self.send_page(_SOMEBODY_ELSES)
            return
        self.bind_browser(visitor, sign_in.state_digest)
        self.parts.audit.write("sign_in_opened", owner=visitor)
        self.send_redirect(302, sign_in.authorization_url.reveal())


class CallbackHandler(HubPage):
    """`GET callback`; other loads, methods and browsers do not use a sign-in up."""

    async def get(self) -> None:
        """Keep for the owner's kernel what the owner's browser came back with, and send the browser on."""
        if self.refuse_other_loads() or self.refuse_long_query():
            return
        state = state_in(self.query)
        sign_in = None if state is None else self.parts.sign_ins.by_state(state)
        if state is None or sign_in is None:
            self.send_page(_NOT_OURS)
            return
        cookie = self.cookie_scope().binding_name(digest_of(state))
        bound = self.read_cookie(cookie, BINDING_SECONDS)
        visitor = await self.visitor()
        if visitor is None:
            # Where the Hub's cookie is kept back on the way from another site, this site's own load has it.
            self.send_page(reload_page() if bound and self.is_from_other_site else _NOT_SIGNED_IN)
            return
        if sign_in.answer is not None:
            self.send_page(_NOT_OURS)  # another load of the same address was faster
            return
        if visitor != sign_in.owner:
            self.parts.audit.write(
                "sign_in_refused", owner=sign_in.owner, visitor=visitor, reason="other_person_at_callback"
            )
            self.send_page(_SOMEBODY_ELSES)
            return
        if bound != binding_value(visitor, sign_in.state_digest):
            self.parts.audit.write("sign_in_refused", owner=visitor, reason="other_browser_at_callback")
            self.send_page(_NOT_OURS)
            return
        self.forget_cookie(cookie)
        self.parts.sign_ins.hand_over(sign_in, Secret(self.query))
        self.parts.audit.write("sign_in_handed_over", owner=visitor)
        self.send_redirect(303, f"{self.parts.settings.prefix}done")


class DoneHandler(HubPage):
    """`GET done`."""

    async def get(self) -> None:
        """Say that the notebook goes on; nothing of anybody is on the page."""
        if self.refuse_other_loads():
            return
        self.send_page(handed_over_page())
