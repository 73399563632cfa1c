"""The sign-in addresses of the server: start, callback and the last page, none of which a log holds.

`GET micromegas/start/<kernel_id.random>` sends the browser to the identity provider and remembers which it was,
`GET micromegas/callback` hands the kernel what the browser came back with, once, and `GET micromegas/done` waits for
the kernel to exchange the code and says how the sign-in ended. Whether an answer is worth anything is the kernel's to
judge.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.utils import ensure_async
from tornado import web

from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.redirect import Page, failure_page, notice_page
from micromegas_jupyter.redirect.handlers import (
    BINDING_SECONDS,
    ENDING_SECONDS,
    CookiePlace,
    SafePage,
    SignedCookies,
    binding_name,
    binding_value,
    ending_name,
    ending_value,
    parse_ending_value,
)
from micromegas_jupyter.redirect.messages import (
    Accepted,
    AnswerRequest,
    Ended,
    EndingRequest,
    Started,
    StartRequest,
    StillWorking,
)
from micromegas_jupyter.redirect.pages import handed_over_page, reload_page
from micromegas_jupyter.redirect.redirect_address import callback_address, is_web_address
from micromegas_jupyter.redirect.routing import CALLBACK_PATH, DONE_PATH, START_PATH, digest_of, kernel_id_in, state_in
from micromegas_jupyter.server_extension.kernel_calls import KernelCalls, Silence
from micromegas_jupyter.server_extension.settings import (
    MicromegasRelay,
    address_for_browsers,
    base_of_request,
    configured_base,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import TracebackType

    from jupyter_server.auth import User


_FORBIDDEN = 403
_CORS_PREFIX = "access-control-"
_NOT_FOUND = notice_page(status=404, what="There is no such page.")
_WRONG_METHOD = notice_page(status=405, what="This address is for opening in a browser only.")
_REFUSED = notice_page(status=403, what="This server does not answer this request.")
_NOT_ALLOWED = notice_page(status=403, what="You are not allowed to use the kernels of this server.")
_NO_ADDRESS = notice_page(status=400, what="The request does not say under which address this server was reached.")
_NOT_UNDERSTOOD = "The request could not be understood."
_NO_KERNEL_STATUS = 409
_UNKNOWN = notice_page(
    status=404,
    what="This sign-in is not waiting any more. Go back to the notebook and run %micromegas_login again.",
)
# The same answer, whatever does not fit: nobody learns by trying.
_NOT_OURS = notice_page(
    status=400,
    what=(
        "This does not belong to a sign-in that was started in this browser, at this address of the server, within the "
        "last ten minutes. Go back to the notebook and run %micromegas_login again."
    ),
)
_NOT_SIGNED_IN = notice_page(
    status=403,
    what=(
        "This browser is not signed in to the Jupyter server any more. Open Jupyter again, and run %micromegas_login "
        "in the notebook."
    ),
)
MAX_WAITING_PAGES = 8
PAGE_WAIT_SECONDS = 45.0
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5
_SLOWER = 1.5
_STILL_WORKING = notice_page(status=200, what="The sign-in is still being completed. Reload this page in a moment.")


class RelayHandler(SafePage, SignedCookies, JupyterHandler):
    """Answers GET with a page that says that there is none, and any other method with a refusal.

    `query` is what the browser sent behind the question mark. Everything that logs or repeats an address, Jupyter's
    access log and its way to the log-in page among them, sees the path only.
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


class StartHandler(RelayHandler):
    """Starts a sign-in for a person of this server."""

    @web.authenticated
    async def get(self, name: str) -> None:  # type: ignore[override]  # the address has one part
        """Send the browser on."""
        user, kernel_id, base = self.user, kernel_id_in(name), self.public_base()
        if user is None or self.refuse_other_loads() or await self.refuse_unauthorized(user):
            return
        if kernel_id is None:
            self.send_page(_UNKNOWN)
            return
        if base is None:
            self.send_no_address()
            return
        reply = await self.calls.ask(kernel_id, StartRequest(name=name, redirect_uri=callback_address(base)))
        match reply:
            case Started(authorization_url=url, state_digest=state_digest) if is_web_address(url):
                self.bind_sign_in(user.username, state_digest)
                self.send_redirect(302, self._as_browsers_see_it(url))
            case Silence():
                self.send_page(notice_page(status=_NO_KERNEL_STATUS, what=f"{reply.value} {reply.remedy}"))
            case Ended(ending=ending) if not ending.is_signed_in:
                self.send_page(failure_page(what=ending.what, remedy=ending.remedy))
            case _:
                self.send_page(_UNKNOWN)

    def _as_browsers_see_it(self, url: str) -> str:
        return address_for_browsers(url, paths=self.relay.provider_paths, base_url=self.cookie_place().base_url)


class CallbackHandler(RelayHandler):
    """Receives the end of a sign-in; other loads, methods and browsers do not use it up."""

    @allow_unauthenticated  # the log-in page would take the code along in its address
    async def get(self, *_parts: str) -> None:
        """Hand the answer over and send the browser on, so that the code leaves its address bar and history."""
        if self.refuse_other_loads() or self.refuse_long_query():
            return
        state = state_in(self.query)
        kernel_id = None if state is None else kernel_id_in(state)
        if state is None or kernel_id is None:
            self.send_page(_NOT_OURS)
            return
        bound_to = self._bound_user(digest_of(state))
        if self.user is None:
            self._send_back_or_refuse(is_bound=bound_to is not None)
            return
        if bound_to != self.user.username:
            self.send_page(_NOT_OURS)
            return
        if await self.refuse_unauthorized(self.user):
            return
        await self._hand_over(kernel_id, digest_of(state))

    async def _hand_over(self, kernel_id: str, state_digest: str) -> None:
        reply = await self.calls.ask(kernel_id, AnswerRequest(query=Secret(self.query)))
        match reply:
            case Accepted():
                self._remember_ending(kernel_id, state_digest)
                self.send_redirect(303, f"{self.cookie_place().base_url}{DONE_PATH}")
            case Silence():
                self.send_page(notice_page(status=_NO_KERNEL_STATUS, what=f"{reply.value} {reply.remedy}"))
            case _:
                self.send_page(_NOT_OURS)

    def _send_back_or_refuse(self, *, is_bound: bool) -> None:
        """Answer a browser without the server's own cookie; where that is kept back on the way from another site, the
        same page loaded by this site itself has it.
        """  # noqa: D205 - one sentence
        is_from_outside = self.request.headers.get("Sec-Fetch-Site") == "cross-site"
        self.send_page(reload_page() if is_bound and is_from_outside else _NOT_SIGNED_IN)

    def _bound_user(self, state_digest: str) -> str | None:
        """Return who started the sign-in in this browser; None when nobody did, or two cookies claim to say so."""
        place = self.cookie_place()
        name = binding_name(place, state_digest)
        said = self.read_cookie(name, BINDING_SECONDS)
        username = said.removeprefix(binding_value("", state_digest))
        return None if username == said else username

    def _remember_ending(self, kernel_id: str, state_digest: str) -> None:
        place = self.cookie_place()
        self.take_cookie(binding_name(place, state_digest))
        self.give_cookie(ending_name(place), ending_value(kernel_id, state_digest), ENDING_SECONDS)


class DoneHandler(RelayHandler):
    """Shows the last page of a sign-in."""

    waiting_pages = 0

    @allow_unauthenticated  # nothing that a stranger could use is on it
    async def get(self, *_parts: str) -> None:
        """Show how the sign-in ended that this browser came back from."""
        if self.refuse_other_loads():
            return
        found = parse_ending_value(self.read_cookie(ending_name(self.cookie_place()), ENDING_SECONDS))
        if found is None or self.user is None:
            self.send_page(handed_over_page())
        elif DoneHandler.waiting_pages >= MAX_WAITING_PAGES:
            self.send_page(_STILL_WORKING)
        else:
            self.send_page(await self._ending_page(*found))

    async def _ending_page(self, kernel_id: str, state_digest: str) -> Page:
        DoneHandler.waiting_pages += 1
        try:
            async with asyncio.timeout(PAGE_WAIT_SECONDS):
                return await self._page_when_ended(kernel_id, state_digest)
        except TimeoutError:
            return _STILL_WORKING
        finally:
            DoneHandler.waiting_pages -= 1

    async def _page_when_ended(self, kernel_id: str, state_digest: str) -> Page:
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            match await self.calls.ask(kernel_id, EndingRequest(state_digest=state_digest)):
                case Ended(ending=ending):
                    return ending.page()
                case StillWorking():
                    await asyncio.sleep(pause_seconds)
                    pause_seconds = min(pause_seconds * _SLOWER, _LONGEST_PAUSE_SECONDS)
                case _:
                    return handed_over_page()


Rule = tuple[str, type[RelayHandler], dict[str, object]]


def relay_rules(base_url: str, *, relay: MicromegasRelay, calls: KernelCalls) -> list[Rule]:
    """Return the address patterns and their handlers, the most special first.

    Args:
        base_url: The server's base URL; ends with a slash.
        relay: What the administrator set.
        calls: Asks kernels.
    """
    base = re.escape(base_url)
    parts: dict[str, object] = {"relay": relay, "calls": calls}
    return [
        (rf"{base}{START_PATH}([A-Za-z0-9_.-]{{1,200}})", StartHandler, parts),
        (rf"{base}{CALLBACK_PATH}", CallbackHandler, parts),
        (rf"{base}{DONE_PATH}", DoneHandler, parts),
        # Whatever else is asked for below the prefix gets a page that repeats nothing of the address.
        (rf"{base}micromegas(?:/.*)?", RelayHandler, parts),
    ]
