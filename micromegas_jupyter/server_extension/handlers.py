"""The sign-in addresses of the server, none of which a log holds, and what an administrator can set about them.

`GET micromegas/start/<kernel_id.random>` sends the browser to the identity provider and remembers which browser it was,
`GET micromegas/callback` passes to the kernel what the browser came back with, once, and `GET micromegas/done` waits
for the kernel to exchange the code and shows how the sign-in ended. The kernel judges what it is passed.
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
from traitlets import Bool, Dict, TraitError, Unicode, validate
from traitlets.config import Configurable

from micromegas_jupyter.auth.flows.handlers import (
    BINDING_SECONDS,
    OUTCOME_SECONDS,
    CookieScope,
    LoginPageHandler,
    binding_value,
    parse_outcome_value,
)
from micromegas_jupyter.auth.flows.messages import (
    CALLBACK_PATH,
    DONE_PATH,
    START_PATH,
    Accepted,
    CallbackRequest,
    Ended,
    OutcomeRequest,
    Started,
    StartRequest,
    StillWorking,
    callback_address,
    digest_of,
    is_web_address,
    kernel_id_in,
    public_base,
    state_in,
)
from micromegas_jupyter.auth.flows.pages import (
    NOT_FOUND_PAGE,
    NOT_UNDERSTOOD,
    STILL_WORKING_PAGE,
    WRONG_METHOD_PAGE,
    Page,
    failure_page,
    handed_over_page,
    notice_page,
    reload_page,
)
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.server_extension.kernel_client import KernelClient, NoReply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping
    from types import TracebackType

    from jupyter_server.auth import User
    from traitlets import Bunch

HUB_VARIABLE = "JUPYTERHUB_PUBLIC_URL"

_LOOPBACK_ORIGIN = re.compile(r"http://(?:127\.0\.0\.1|\[::1\]|localhost):[1-9][0-9]{0,4}", re.ASCII)
_PATH = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*", re.ASCII)
MAX_WAITING_PAGES = 8
PAGE_WAIT_SECONDS = 45.0

_FIRST_PAUSE_SECONDS = 0.02
_MAX_PAUSE_SECONDS = 0.5
_PAUSE_FACTOR = 1.5
_FORBIDDEN = 403
_NO_KERNEL_STATUS = 409
_CORS_PREFIX = "access-control-"
_REFUSED = notice_page(status=403, what="This server does not answer this request.")
_NOT_ALLOWED = notice_page(status=403, what="You are not allowed to use the kernels of this server.")
_NO_ADDRESS = notice_page(status=400, what="The request does not say which address of this server it was sent to.")
_UNKNOWN = notice_page(
    status=404,
    what="This sign-in is not waiting any more. Go back to the notebook and run %micromegas_login again.",
)
# The same answer for every mismatch: nobody learns by trying.
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


class MicromegasRelay(Configurable):
    """Sign-in by redirect through this server: `c.MicromegasRelay.…` in `jupyter_server_config.py`."""

    public_url = Unicode(
        "",
        help=(
            "The address at which browsers reach this server, its base URL included, such as "
            "https://lab.example.com/base/. Without it, JUPYTERHUB_PUBLIC_URL or each request's own address is used."
        ),
    ).tag(config=True)
    per_user_redirect = Bool(
        default_value=False,
        help=(
            "Offer sign-in by redirect in a server that JupyterHub started. Users of a Hub could then take each "
            "other's tokens: only for a Hub whose users trust each other."
        ),
    ).tag(config=True)

    provider_paths = Dict(
        key_trait=Unicode(),
        value_trait=Unicode(),
        help=(
            "Where browsers find the pages of an identity provider that only this machine reaches: its address and "
            'the path below the base URL at which a proxy shows them, such as {"http://127.0.0.1:9300": "provider"}.'
        ),
    ).tag(config=True)

    @validate("provider_paths")
    def _check_provider_paths(self, proposal: Bunch) -> dict[str, str]:
        paths: dict[str, str] = proposal["value"]
        if not all(_LOOPBACK_ORIGIN.fullmatch(origin) and _PATH.fullmatch(path) for origin, path in paths.items()):
            raise TraitError(
                "MicromegasRelay.provider_paths: each key is http://, a loopback address and a port; each value is a "
                "path of letters, digits, '-', '_' and '/'."
            )
        return paths

    @validate("public_url")
    def _check_public_url(self, proposal: Bunch) -> str:
        url: str = proposal["value"]
        base = public_base(url) if url else ""
        if base is None:
            raise TraitError(
                "MicromegasRelay.public_url is not an http or https address without user, query and fragment."
            )
        return base


def configured_base(public_url: str, environ: Mapping[str, str]) -> str:
    """Return what was configured, by this extension's setting or by a Hub; empty when nothing usable was."""
    return public_url or public_base(environ.get(HUB_VARIABLE, "")) or ""


def base_of_request(*, protocol: str, host: str, base_url: str) -> str | None:
    """Return the address that a request was sent to; None when it is malformed.

    Args:
        protocol: `http` or `https`; a proxy's word is taken only where the server is configured to (`trust_xheaders`).
        host: The Host header, which has passed Jupyter's check.
        base_url: The server's base URL.
    """
    base = public_base(f"{protocol}://{host}{base_url}")
    return base if base is not None and urlsplit(base).netloc == host else None


def address_for_browsers(url: str, *, paths: Mapping[str, str], base_url: str) -> str:
    """Return where to send a browser instead of to a provider's own address; `url` itself where browsers reach it.

    For a provider of `paths` it has neither scheme nor host, so it holds at whichever host the browser is (RFC 9110
    section 10.2.2 allows such a `Location`).
    """
    parts = urlsplit(url)
    path = paths.get(f"{parts.scheme}://{parts.netloc}")
    return url if path is None else f"{base_url}{path}{parts.path}?{parts.query}"


class RelayHandler(LoginPageHandler, JupyterHandler):
    """Answers GET with a page that says that there is none, and any other method with a refusal.

    Everything that logs or repeats an address, Jupyter's access log and its way to the login page among them, sees the
    path only.
    """

    auth_resource = "kernels"

    def initialize(self, *, relay: MicromegasRelay, kernels: KernelClient) -> None:
        """Take what all handlers of a server share."""
        self.relay = relay
        self.kernels = kernels

    async def prepare(self, *, _redirect_to_login: bool = True) -> Awaitable[None] | None:  # type: ignore[override]  # as the base class does
        """Take the query out of the request before anything can log it."""
        self.take_query()
        return await super().prepare(_redirect_to_login=_redirect_to_login)

    @allow_unauthenticated
    async def get(self, *_parts: str) -> None:
        """Answer that there is no such page."""
        self.send_page(NOT_FOUND_PAGE)

    @allow_unauthenticated
    def _refuse_method(self, *_parts: str) -> None:
        self.set_header("Allow", "GET")
        self.send_page(WRONG_METHOD_PAGE)

    head = post = put = patch = delete = options = _refuse_method  # tornado looks methods up by these names

    @property
    def user(self) -> User | None:
        """Who is signed in to the server."""
        user: User | None = self.current_user
        return user

    def public_base(self) -> str | None:
        """Return the address at which browsers reach this server; None when it is not known."""
        return configured_base(self.relay.public_url, os.environ) or base_of_request(
            protocol=self.request.protocol, host=self.request.host, base_url=self.base_url
        )

    def cookie_scope(self) -> CookieScope:
        """Return where this server's cookies are sent."""
        parts = urlsplit(self.public_base() or "")
        return CookieScope(is_secure=parts.scheme == "https", base_url=parts.path or self.base_url)

    async def refuse_unauthorized(self, user: User) -> bool:
        """Refuse a person who may not use kernels; whether it was one."""
        if await ensure_async(self.authorizer.is_authorized(self, user, "execute", self.auth_resource)):
            return False
        self.send_page(_NOT_ALLOWED)
        return True

    def send_no_reply(self, reason: NoReply) -> None:
        """Say why the kernel did not reply."""
        self.send_page(notice_page(status=_NO_KERNEL_STATUS, what=f"{reason.value} {reason.remedy}"))

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
        page = _REFUSED if status_code == _FORBIDDEN else notice_page(status=status_code, what=NOT_UNDERSTOOD)
        self.send_page(page)

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Log the type only; text and traceback may hold what a browser sent."""
        del value, tb
        self.log.debug("A request to the sign-in addresses ended with %s.", "nothing" if typ is None else typ.__name__)


class StartHandler(RelayHandler):
    """Starts a sign-in for a person of this server."""

    @web.authenticated
    async def get(self, name: str) -> None:  # type: ignore[override]  # the address has one part
        """Send the browser to the provider."""
        user, kernel_id, base = self.user, kernel_id_in(name), self.public_base()
        if user is None or self.refuse_other_loads() or await self.refuse_unauthorized(user):
            return
        if kernel_id is None or base is None:
            self.send_page(_UNKNOWN if kernel_id is None else _NO_ADDRESS)
            return
        reply = await self.kernels.request(kernel_id, StartRequest(name=name, redirect_uri=callback_address(base)))
        match reply:
            case Started(authorization_url=url, state_digest=state_digest) if is_web_address(url.reveal()):
                self.bind_browser(user.username, state_digest)
                base_url = self.cookie_scope().base_url
                self.send_redirect(
                    302, address_for_browsers(url.reveal(), paths=self.relay.provider_paths, base_url=base_url)
                )
            case NoReply():
                self.send_no_reply(reply)
            case Ended(outcome=outcome) if not outcome.is_signed_in:
                self.send_page(failure_page(what=outcome.what, remedy=outcome.remedy))
            case _:
                self.send_page(_UNKNOWN)


class CallbackHandler(RelayHandler):
    """Receives the end of a sign-in; other loads, methods and browsers do not use it up."""

    @allow_unauthenticated  # the login page would take the code along in its address
    async def get(self, *_parts: str) -> None:
        """Pass the answer on and send the browser on, so that the code leaves its address bar and history."""
        if self.refuse_other_loads() or self.refuse_long_query():
            return
        state = state_in(self.query)
        kernel_id = None if state is None else kernel_id_in(state)
        if state is None or kernel_id is None:
            self.send_page(_NOT_OURS)
            return
        state_digest = digest_of(state)
        bound = self.read_cookie(self.cookie_scope().binding_name(state_digest), BINDING_SECONDS)
        if self.user is None:
            # Where the server's own cookie is withheld on the way from another site, the same page loaded by this site
            # itself has it.
            is_bound = bound.startswith(binding_value("", state_digest))
            self.send_page(reload_page() if is_bound and self.is_from_other_site else _NOT_SIGNED_IN)
        elif bound != binding_value(self.user.username, state_digest):
            self.send_page(_NOT_OURS)
        elif not await self.refuse_unauthorized(self.user):
            await self._pass_on(kernel_id, state_digest)

    async def _pass_on(self, kernel_id: str, state_digest: str) -> None:
        reply = await self.kernels.request(kernel_id, CallbackRequest(query=Secret(self.query)))
        match reply:
            case Accepted():
                scope = self.cookie_scope()
                self.forget_cookie(scope.binding_name(state_digest))
                self.send_cookie(scope.outcome_name, f"{kernel_id} {state_digest}", OUTCOME_SECONDS)
                self.send_redirect(303, f"{scope.base_url}{DONE_PATH}")
            case NoReply():
                self.send_no_reply(reply)
            case _:
                self.send_page(_NOT_OURS)


class DoneHandler(RelayHandler):
    """Shows the last page of a sign-in."""

    waiting_pages = 0

    @allow_unauthenticated  # nothing that a stranger could use is on it
    async def get(self, *_parts: str) -> None:
        """Show how the sign-in ended that this browser came back from."""
        if self.refuse_other_loads():
            return
        found = parse_outcome_value(self.read_cookie(self.cookie_scope().outcome_name, OUTCOME_SECONDS))
        if found is None or self.user is None:
            self.send_page(handed_over_page())
        elif DoneHandler.waiting_pages >= MAX_WAITING_PAGES:
            self.send_page(STILL_WORKING_PAGE)
        else:
            self.send_page(await self._outcome_page(*found))

    async def _outcome_page(self, kernel_id: str, state_digest: str) -> Page:
        DoneHandler.waiting_pages += 1
        pause_seconds = _FIRST_PAUSE_SECONDS
        try:
            async with asyncio.timeout(PAGE_WAIT_SECONDS):
                while True:
                    match await self.kernels.request(kernel_id, OutcomeRequest(state_digest=state_digest)):
                        case Ended(outcome=outcome):
                            return outcome.page()
                        case StillWorking():
                            await asyncio.sleep(pause_seconds)
                            pause_seconds = min(pause_seconds * _PAUSE_FACTOR, _MAX_PAUSE_SECONDS)
                        case _:
                            return handed_over_page()
        except TimeoutError:
            return STILL_WORKING_PAGE
        finally:
            DoneHandler.waiting_pages -= 1


Rule = tuple[str, type[RelayHandler], dict[str, object]]


def relay_rules(base_url: str, *, relay: MicromegasRelay, kernels: KernelClient) -> list[Rule]:
    """Return the address patterns below `base_url` and their handlers, the most specific first."""
    base = re.escape(base_url)
    shared: dict[str, object] = {"relay": relay, "kernels": kernels}
    return [
        (rf"{base}{START_PATH}([A-Za-z0-9_.-]{{1,200}})", StartHandler, shared),
        (rf"{base}{CALLBACK_PATH}", CallbackHandler, shared),
        (rf"{base}{DONE_PATH}", DoneHandler, shared),
        # Whatever else is asked for below the prefix gets a page that repeats nothing of the address.
        (rf"{base}micromegas(?:/.*)?", RelayHandler, shared),
    ]
