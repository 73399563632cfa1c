"""Pages of a sign-in with the Hub's shared redirect: start, callback, and the last page.

Start and callback look up the browser's user on the Hub. Only the user whose kernel started the sign-in is admitted, so
users cannot make another user's browser complete it, or receive the callback of another user's browser.
"""

import logging
from typing import Any, Final

from jupyterhub.services.auth import HubOAuth, HubOAuthCallbackHandler, HubOAuthenticated, UserNotAllowed
from tornado import web

from micromegas_jupyter.auth.flows.base import handed_over_page, notice_page, reload_page
from micromegas_jupyter.auth.flows.jupyter import (
    BINDING_SECONDS,
    CookieScope,
    LoginPageHandler,
    binding_value,
    digest_of,
    state_in,
)
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.hub.kernel_handlers import Service

IDENTITY_SECONDS: Final = 5
"""How long a browser cookie's owner is cached before it is looked up again."""

_LOG: Final = logging.getLogger("micromegas_jupyter.hub")
_WRONG_METHOD: Final = notice_page(status=405, what="Open this address in a browser.")
_NOT_ALLOWED: Final = notice_page(status=403, what="You are not allowed to use this service of the Hub.")
_NOT_UNDERSTOOD: Final = "The request could not be understood."
_UNKNOWN_SIGN_IN: Final = notice_page(
    status=404, what="This sign-in is no longer waiting. Return to the notebook and run %micromegas_login again."
)
_OTHER_PERSON: Final = notice_page(
    status=403,
    what="This sign-in was started in another user's notebook. No access was granted. If someone sent you this "
    "address, they may have tried to act in your name. Tell the administrator of this JupyterHub.",
)
# The same response for every mismatch, so that attempts reveal nothing.
_NO_MATCH: Final = notice_page(
    status=400,
    what="This does not belong to a sign-in that was started in this browser, at this Hub, within the last ten "
    "minutes. Return to the notebook and run %micromegas_login again.",
)
_NOT_SIGNED_IN: Final = notice_page(
    status=403,
    what="This browser is no longer signed in to the Hub. Open the Hub, and run %micromegas_login in the notebook.",
)


class ServicePage(LoginPageHandler, web.RequestHandler):
    """A page whose errors don't repeat any part of the request."""

    def write_error(self, status_code: int, **_details: Any) -> None:
        """Handle errors that have no handler."""
        page = _WRONG_METHOD if status_code == 405 else notice_page(status=status_code, what=_NOT_UNDERSTOOD)  # noqa: PLR2004 - HTTP
        self.send_page(page)

    def log_exception(self, typ: type[BaseException] | None, *_details: object) -> None:
        """Log only the type of an unexpected error; its text and traceback may contain what a browser sent."""
        _LOG.info("A page's request ended with %s.", "nothing" if typ is None else typ.__name__)


class HubPage(HubOAuthenticated, ServicePage):  # type: ignore[misc]  # JupyterHub has no types
    """A page for the Hub's users; the request's query is only in `query`."""

    def initialize(self, *, service: Service, hub_oauth: HubOAuth) -> None:
        """Set the service that all handlers share."""
        self.service = service
        self.hub_auth = hub_oauth

    def prepare(self) -> None:
        """Remove the query and any token, which browsers don't send, before anything can repeat them."""
        self.request.headers.pop("Authorization", None)
        self.take_query()

    def check_xsrf_cookie(self) -> None:
        """Skip the check, because no handler changes anything."""

    async def visitor(self) -> str | None:
        """Return the Hub user name of the browser's user, or None if no user is signed in."""
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
        """Return the scope of the service's cookies."""
        settings = self.service.settings
        is_secure = (settings.public_url or "").startswith("https:")
        return CookieScope(is_secure=is_secure, base_url=settings.prefix, folder="")


class HubLoginHandler(ServicePage, HubOAuthCallbackHandler):  # type: ignore[misc]  # JupyterHub has no types
    """`GET oauth_callback`: completes the browser's OAuth sign-in to the Hub, as for every Hub service."""

    def initialize(self, *, hub_oauth: HubOAuth) -> None:
        """Set the OAuth client for browsers."""
        self.hub_auth = hub_oauth


class StartHandler(HubPage):
    """`GET start/<name>`."""

    async def get(self, name: str) -> None:
        """Redirect the owner's browser to the identity provider and bind the sign-in to that browser."""
        if self.refuse_other_loads():
            return
        visitor = await self.visitor()
        if visitor is None:
            self.redirect(self.get_login_url())
            return
        sign_in = self.service.sign_ins.by_name(name)
        if sign_in is None or sign_in.answer is not None:
            self.send_page(_UNKNOWN_SIGN_IN)
            return
        if sign_in.owner != visitor:
            self.service.audit.write(
                "sign_in_refused", owner=sign_in.owner, visitor=visitor, reason="other_person_at_start"
            )
            self.send_page(_OTHER_PERSON)
            return
        self.bind_browser(visitor, sign_in.state_digest)
        self.service.audit.write("sign_in_opened", owner=visitor)
        self.send_redirect(302, sign_in.authorization_url.reveal())


class CallbackHandler(HubPage):
    """`GET callback`; other requests, methods, and browsers do not consume a pending sign-in."""

    async def get(self) -> None:
        """Store the owner's callback for the owner's kernel, and redirect the browser."""
        if self.refuse_other_loads() or self.refuse_long_query():
            return
        state = state_in(self.query)
        sign_in = None if state is None else self.service.sign_ins.by_state(state)
        if state is None or sign_in is None:
            self.send_page(_NO_MATCH)
            return
        cookie = self.cookie_scope().binding_name(digest_of(state))
        bound = self.read_cookie(cookie, BINDING_SECONDS)
        visitor = await self.visitor()
        if visitor is None:
            # A request from another site may lack the Hub's cookie; one from this site has it.
            self.send_page(reload_page() if bound and self.is_from_other_site else _NOT_SIGNED_IN)
            return
        if sign_in.answer is not None:
            self.send_page(_NO_MATCH)  # another request for the same address got there first
            return
        if visitor != sign_in.owner:
            self.service.audit.write(
                "sign_in_refused", owner=sign_in.owner, visitor=visitor, reason="other_person_at_callback"
            )
            self.send_page(_OTHER_PERSON)
            return
        if bound != binding_value(visitor, sign_in.state_digest):
            self.service.audit.write("sign_in_refused", owner=visitor, reason="other_browser_at_callback")
            self.send_page(_NO_MATCH)
            return
        self.forget_cookie(cookie)
        self.service.sign_ins.hand_over(sign_in, Secret(self.query))
        self.service.audit.write("sign_in_handed_over", owner=visitor)
        self.send_redirect(303, f"{self.service.settings.prefix}done")


class DoneHandler(HubPage):
    """`GET done`."""

    async def get(self) -> None:
        """Show that the notebook continues. The page doesn't contain the user's name."""
        if self.refuse_other_loads():
            return
        self.send_page(handed_over_page())
