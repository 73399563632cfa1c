"""The server's sign-in URLs, which never appear in logs, and the settings for administrators.

`GET micromegas/start/<kernel_id.random>` redirects the browser to the identity provider and remembers the browser.
`GET micromegas/callback` forwards the browser's query to the kernel, once. `GET micromegas/done` waits until the
kernel has exchanged the code, and shows the outcome of the sign-in. The kernel validates the query.
"""

import asyncio
import enum
import json
import logging
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from jupyter_client.jsonutil import json_default
from jupyter_client.manager import KernelManager
from jupyter_client.session import Session
from jupyter_server.auth import User
from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.serverapp import ServerApp
from jupyter_server.services.kernels.kernelmanager import MappingKernelManager
from jupyter_server.utils import ensure_async
from tornado import web
from traitlets import Bool, Bunch, Dict, TraitError, Unicode, validate
from traitlets.config import Configurable

from micromegas_jupyter.auth.flows.base import (
    HUB_TOKEN_VARIABLE,
    NOT_FOUND_PAGE,
    NOT_UNDERSTOOD,
    REDIRECT_VARIABLE,
    STILL_WORKING_PAGE,
    WRONG_METHOD_PAGE,
    Page,
    handed_over_page,
    notice_page,
    reload_page,
)
from micromegas_jupyter.auth.flows.jupyter import (
    BINDING_SECONDS,
    CALLBACK_PATH,
    DONE_PATH,
    OUTCOME_SECONDS,
    REPLY_TYPE,
    REQUEST_TYPE,
    START_PATH,
    Accepted,
    CallbackRequest,
    CookieScope,
    Ended,
    LoginPageHandler,
    OutcomeRequest,
    Reply,
    Request,
    Started,
    StartRequest,
    StillWorking,
    binding_value,
    build_message,
    callback_address,
    digest_of,
    is_web_address,
    kernel_id_in,
    parse_outcome_value,
    parse_reply,
    public_base,
    state_in,
)
from micromegas_jupyter.core.system import Secret

_LOOPBACK_ORIGIN = re.compile(r"http://(?:127\.0\.0\.1|\[::1\]|localhost):[1-9][0-9]{0,4}", re.ASCII)
_PATH = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*", re.ASCII)
MAX_WAITING_PAGES = 8
PAGE_WAIT_SECONDS = 45.0

_PAUSE_SECONDS = 0.1
_CORS_PREFIX = "access-control-"
_REFUSED = notice_page(status=403, what="This server does not support this request.")
_NOT_ALLOWED = notice_page(status=403, what="You are not allowed to use the kernels of this server.")
_NO_ADDRESS = notice_page(status=400, what="The request doesn't specify which address of this server it was sent to.")
_UNKNOWN = notice_page(
    status=404, what="This sign-in is no longer waiting. Return to the notebook and run %micromegas_login again."
)
# The same response for every mismatch, so that attempts reveal nothing.
_NOT_OURS = notice_page(
    status=400,
    what="This does not belong to a sign-in that was started in this browser, at this address of the server, within "
    "the last ten minutes. Return to the notebook and run %micromegas_login again.",
)
_NOT_SIGNED_IN = notice_page(
    status=403,
    what="This browser is no longer signed in to the Jupyter server. Open Jupyter again, and run %micromegas_login "
    "in the notebook.",
)

PROBE_TYPE = "kernel_info_request"
GRACE_SECONDS = 1.0
"""How long a kernel that has replied to the probe may still be writing the reply to the previous request."""
REQUEST_TIMEOUT_SECONDS = 10.0
MAX_REQUESTS = 32
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024  # includes a running cell's output, which is discarded
_log = logging.getLogger(__name__)
_Message = tuple[object, object, dict[str, Any]]
"""A message's parent ID, type, and content."""


class MicromegasRelay(Configurable):
    """Redirect sign-in through this server, configured in `jupyter_server_config.py`.

    ```python
    c.MicromegasRelay.public_url = "https://lab.example.com/base/"
    ```
    """

    public_url = Unicode(
        "",
        help="The URL at which browsers reach this server, including its base URL, such as "
        "https://lab.example.com/base/. Without it, JUPYTERHUB_PUBLIC_URL or each request's own address is used.",
    ).tag(config=True)
    per_user_redirect = Bool(
        default_value=False,
        help="Offer redirect-based sign-in on servers that JupyterHub started. Users of a Hub could then take each "
        "other's tokens, so enable this only on a Hub whose users trust each other.",
    ).tag(config=True)

    provider_paths = Dict(
        key_trait=Unicode(),
        value_trait=Unicode(),
        help="Maps the URL of an identity provider that only this machine can reach to the path below the base URL "
        'at which a proxy serves its pages, such as {"http://127.0.0.1:9300": "provider"}.',
    ).tag(config=True)

    @validate("provider_paths")
    def _check_provider_paths(self, proposal: Bunch) -> dict[str, str]:
        paths: dict[str, str] = proposal["value"]
        if not all(_LOOPBACK_ORIGIN.fullmatch(origin) and _PATH.fullmatch(path) for origin, path in paths.items()):
            raise TraitError(
                "Each key of MicromegasRelay.provider_paths must be http://, a loopback address, and a port; each "
                "value must be a path of letters, digits, '-', '_', and '/'."
            )
        return paths

    @validate("public_url")
    def _check_public_url(self, proposal: Bunch) -> str:
        url: str = proposal["value"]
        base = public_base(url) if url else ""
        if base is None:
            raise TraitError(
                "MicromegasRelay.public_url must be an http or https URL without a user name, query, or fragment."
            )
        return base


def configured_base(public_url: str, environ: Mapping[str, str]) -> str:
    """Return the base URL configured by this extension's setting or by a Hub; empty if none is usable."""
    return public_url or public_base(environ.get("JUPYTERHUB_PUBLIC_URL", "")) or ""


def base_of_request(*, protocol: str, host: str, base_url: str) -> str | None:
    """Return the URL that a request was sent to, or None if it is malformed.

    The protocol reported by a proxy is used only if the server is configured to trust it (`trust_xheaders`). Jupyter
    has already checked the Host header.
    """
    base = public_base(f"{protocol}://{host}{base_url}")
    return base if base is not None and urlsplit(base).netloc == host else None


def address_for_browsers(url: str, *, paths: Mapping[str, str], base_url: str) -> str:
    """Return where to redirect a browser instead of to a provider's own URL; `url` itself if browsers can reach it.

    For a provider of `paths`, the result has neither scheme nor host, so it works for any host that the browser uses
    (RFC 9110 section 10.2.2 allows such a `Location`).
    """
    parts = urlsplit(url)
    path = paths.get(f"{parts.scheme}://{parts.netloc}")
    return url if path is None else f"{base_url}{path}{parts.path}?{parts.query}"


class RelayHandler(LoginPageHandler, JupyterHandler):
    """Responds to GET with a "not found" page, and rejects any other method.

    Anything that logs or repeats a URL, including Jupyter's access log and its redirect to the login page, sees only
    the path.
    """

    auth_resource = "kernels"

    def initialize(self, *, relay: MicromegasRelay, kernels: "KernelClient") -> None:
        """Set the objects that all handlers of a server share."""
        self.relay = relay
        self.kernels = kernels

    async def prepare(self, *, _redirect_to_login: bool = True) -> Awaitable[None] | None:  # type: ignore[override]  # as the base class does
        """Remove the query from the request before anything can log it."""
        self.take_query()
        return await super().prepare(_redirect_to_login=_redirect_to_login)

    @allow_unauthenticated
    async def get(self, *_parts: str) -> None:
        """Send a "not found" page."""
        self.send_page(NOT_FOUND_PAGE)

    @allow_unauthenticated
    def _refuse_method(self, *_parts: str) -> None:
        self.set_header("Allow", "GET")
        self.send_page(WRONG_METHOD_PAGE)

    head = post = put = patch = delete = options = _refuse_method  # tornado looks methods up by these names

    def public_base(self) -> str | None:
        """Return the base URL of this server in browsers, or None if unknown."""
        return configured_base(self.relay.public_url, os.environ) or base_of_request(
            protocol=self.request.protocol, host=self.request.host, base_url=self.base_url
        )

    def cookie_scope(self) -> CookieScope:
        """Return the scope of this server's cookies."""
        parts = urlsplit(self.public_base() or "")
        return CookieScope(is_secure=parts.scheme == "https", base_url=parts.path or self.base_url)

    async def refuse_unauthorized(self, user: User) -> bool:
        """Reject a user without access to kernels; return whether the user was rejected."""
        if await ensure_async(self.authorizer.is_authorized(self, user, "execute", self.auth_resource)):
            return False
        self.send_page(_NOT_ALLOWED)
        return True

    def set_default_headers(self) -> None:
        """Set the headers of every sign-in page."""
        super().set_default_headers()
        for name in [name for name in self._headers if name.lower().startswith(_CORS_PREFIX)]:
            self.clear_header(name)  # from headers configured for all pages (`tornado_settings`)

    def set_cors_headers(self) -> None:
        """Set no CORS headers, regardless of the server's configuration for other pages, because no page reads them."""

    def check_xsrf_cookie(self) -> None:
        """Skip the check, because no handler changes anything."""

    def write_error(self, status_code: int, **_details: Any) -> None:
        """Send the error for a request that was rejected before it reached the handler."""
        page = _REFUSED if status_code == _REFUSED.status else notice_page(status=status_code, what=NOT_UNDERSTOOD)
        self.send_page(page)

    def log_exception(self, typ: type[BaseException] | None, *_details: object) -> None:
        """Log only the type; text and traceback may contain what a browser sent."""
        self.log.debug("A request to the sign-in addresses ended with %s.", "nothing" if typ is None else typ.__name__)


class StartHandler(RelayHandler):
    """Starts a sign-in for a user of this server."""

    @web.authenticated
    async def get(self, name: str) -> None:  # type: ignore[override]  # the address has one part
        """Redirect the browser to the provider."""
        user, kernel_id, base = self.current_user, kernel_id_in(name), self.public_base()
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
                paths = self.relay.provider_paths
                self.send_redirect(302, address_for_browsers(url.reveal(), paths=paths, base_url=base_url))
            case NoReply():
                self.send_page(reply.page())
            case Ended(outcome=outcome) if not outcome.is_signed_in:
                self.send_page(outcome.page())
            case _:
                self.send_page(_UNKNOWN)


class CallbackHandler(RelayHandler):
    """Receives the callback of a sign-in; other requests, methods, and browsers do not consume it."""

    @allow_unauthenticated  # the login page would include the code in its URL
    async def get(self, *_parts: str) -> None:
        """Forward the callback and redirect the browser, to remove the code from its address bar and history."""
        if self.refuse_other_loads() or self.refuse_long_query():
            return
        state = state_in(self.query)
        kernel_id = None if state is None else kernel_id_in(state)
        if state is None or kernel_id is None:
            self.send_page(_NOT_OURS)
            return
        state_digest = digest_of(state)
        bound = self.read_cookie(self.cookie_scope().binding_name(state_digest), BINDING_SECONDS)
        if self.current_user is None:
            # The server's own cookie may be missing after a redirect from another site; when this site reloads the
            # page, the browser sends it.
            is_bound = bound.startswith(binding_value("", state_digest))
            self.send_page(reload_page() if is_bound and self.is_from_other_site else _NOT_SIGNED_IN)
        elif bound != binding_value(self.current_user.username, state_digest):
            self.send_page(_NOT_OURS)
        elif not await self.refuse_unauthorized(self.current_user):
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
                self.send_page(reply.page())
            case _:
                self.send_page(_NOT_OURS)


class DoneHandler(RelayHandler):
    """Shows the last page of a sign-in."""

    waiting_pages = 0

    @allow_unauthenticated  # the page contains nothing that a stranger could use
    async def get(self, *_parts: str) -> None:
        """Show the outcome of this browser's sign-in."""
        if self.refuse_other_loads():
            return
        found = parse_outcome_value(self.read_cookie(self.cookie_scope().outcome_name, OUTCOME_SECONDS))
        if found is None or self.current_user is None:
            self.send_page(handed_over_page())
        elif DoneHandler.waiting_pages >= MAX_WAITING_PAGES:
            self.send_page(STILL_WORKING_PAGE)
        else:
            self.send_page(await self._outcome_page(*found))

    async def _outcome_page(self, kernel_id: str, state_digest: str) -> Page:
        DoneHandler.waiting_pages += 1
        try:
            async with asyncio.timeout(PAGE_WAIT_SECONDS):
                while True:
                    match await self.kernels.request(kernel_id, OutcomeRequest(state_digest=state_digest)):
                        case Ended(outcome=outcome):
                            return outcome.page()
                        case StillWorking():
                            await asyncio.sleep(_PAUSE_SECONDS)
                        case _:
                            return handed_over_page()
        except TimeoutError:
            return STILL_WORKING_PAGE
        finally:
            DoneHandler.waiting_pages -= 1


class NoReply(enum.Enum):
    """Why a kernel didn't reply; each value is a sentence."""

    NO_KERNEL = "The notebook's kernel is no longer running."
    NOT_LISTENING = "The notebook's kernel does not recognize this sign-in because it was restarted or replaced."
    TIMEOUT = "The notebook's kernel did not respond in time."
    BUSY = "Too many sign-ins are in progress on this server."

    def page(self) -> Page:
        """Return the page with the reason and the remedy."""
        remedy = "Return to the notebook and run %micromegas_login again."
        if self is NoReply.BUSY:
            remedy = "Wait a moment and reload this page."
        return notice_page(status=409, what=f"{self.value} {remedy}")


class KernelClient:
    """Sends requests to kernels; stores only the number of pending requests."""

    def __init__(self, kernels: MappingKernelManager) -> None:
        self._kernels = kernels
        self._running = 0

    async def request(self, kernel_id: str, request: Request) -> Reply | NoReply:
        """Return a kernel's reply, or the reason why there isn't one."""
        if self._running >= MAX_REQUESTS:
            return NoReply.BUSY
        self._running += 1
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_SECONDS):
                content = await self._send(kernel_id, build_message(request))
        except TimeoutError:
            return NoReply.TIMEOUT
        except Exception as error:  # noqa: BLE001 - a kernel manager of any make may be in use
            # Its text may contain what was sent.
            _log.warning("A kernel could not be reached for a sign-in: %s.", type(error).__name__)
            return NoReply.TIMEOUT
        finally:
            self._running -= 1
        return content if isinstance(content, NoReply) else parse_reply(content) or NoReply.TIMEOUT

    async def _send(self, kernel_id: str, content: dict[str, object]) -> dict[str, Any] | NoReply:
        if kernel_id not in self._kernels:
            return NoReply.NO_KERNEL
        from jupyter_server.gateway.managers import GatewayKernelManager

        manager = self._kernels.get_kernel(kernel_id)
        if isinstance(manager, GatewayKernelManager):
            return await request_by_gateway(kernel_id, content)
        return await request_by_control_channel(manager, content)


async def request_by_control_channel(manager: KernelManager, content: dict[str, object]) -> dict[str, Any] | NoReply:
    """Send a request and return the content of its reply; the caller sets the deadline."""
    import zmq.asyncio
    from jupyter_client.connect import ConnectionFileMixin

    session = manager.session.clone()
    session.session = uuid4().hex  # the manager's own socket already uses its identity
    # The base class's method, because the server's own managers wrap the socket in an older kind of stream.
    connected = ConnectionFileMixin.connect_control(manager, identity=session.bsession)
    # A manager that is not asynchronous returns a socket that would block.
    socket = connected if isinstance(connected, zmq.asyncio.Socket) else zmq.asyncio.Socket.from_socket(connected)

    async def receive() -> _Message:
        message = session.deserialize(session.feed_identities(await socket.recv_multipart())[1])
        return message["parent_header"].get("msg_id"), message["msg_type"], dict(message["content"])

    try:
        sent = session.send(socket, REQUEST_TYPE, content)["header"]["msg_id"]
        probe = session.send(socket, PROBE_TYPE, {})["header"]["msg_id"]
        return await _await_reply(receive, sent, probe)
    finally:
        socket.close(linger=0)
        connected.close(linger=0)


async def request_by_gateway(kernel_id: str, content: dict[str, object]) -> dict[str, Any] | NoReply:
    """Send a request and return the content of its reply; the caller sets the deadline."""
    from jupyter_server.gateway.gateway_client import GatewayClient
    from jupyter_server.utils import url_path_join
    from tornado.escape import url_escape
    from tornado.httpclient import HTTPClientError, HTTPRequest
    from tornado.websocket import WebSocketClosedError, websocket_connect

    gateway = GatewayClient.instance()
    url = url_path_join(gateway.ws_url or "", gateway.kernels_endpoint, url_escape(kernel_id), "channels")
    options = gateway.load_connection_args()  # type: ignore[no-untyped-call]  # Jupyter server
    try:
        connection = await websocket_connect(HTTPRequest(url, **options), max_message_size=_MAX_MESSAGE_BYTES)
    except (HTTPClientError, OSError):
        return NoReply.NO_KERNEL

    async def receive() -> _Message:
        text = await connection.read_message()
        if text is None:
            raise WebSocketClosedError
        return _parse_message(text)

    try:
        (request, sent), (question, probe) = _build_message(REQUEST_TYPE, content), _build_message(PROBE_TYPE, {})
        await connection.write_message(request)
        await connection.write_message(question)
        return await _await_reply(receive, sent, probe)
    except WebSocketClosedError:
        return NoReply.NO_KERNEL
    finally:
        connection.close()


async def _await_reply(receive: Callable[[], Awaitable[_Message]], sent: str, probe: str) -> dict[str, Any] | NoReply:
    """Wait for the reply to `sent`; a kernel that doesn't support it replies only to the `probe` after it."""
    grace = None
    try:
        while True:
            async with asyncio.timeout(grace):
                parent, kind, content = await receive()
            if parent == sent and kind == REPLY_TYPE:
                return content
            if parent == probe and kind == "kernel_info_reply":
                grace = GRACE_SECONDS
    except TimeoutError:
        return NoReply.TIMEOUT if grace is None else NoReply.NOT_LISTENING


def _build_message(kind: str, content: dict[str, object]) -> tuple[str, str]:
    """Return a control channel message and its ID."""
    message = Session(key=b"").msg(kind, content=content)
    return json.dumps({**message, "buffers": [], "channel": "control"}, default=json_default), message["msg_id"]


def _parse_message(text: str | bytes) -> _Message:
    """Return a message's parts, or empty ones if it is not a control channel message."""
    if isinstance(text, bytes):
        return None, None, {}  # a message with buffers
    try:
        message = json.loads(text)
        if message["channel"] != "control":
            return None, None, {}
        return message["parent_header"].get("msg_id"), message["header"]["msg_type"], dict(message["content"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, None, {}


def _load_jupyter_server_extension(serverapp: ServerApp) -> None:
    """Add the sign-in URLs to a starting server, and announce them to its kernels through the environment."""
    relay = MicromegasRelay(parent=serverapp)
    if os.environ.get(HUB_TOKEN_VARIABLE) and not relay.per_user_redirect:
        # On a shared Hub, per-user redirects let users take each other's tokens.
        os.environ.pop(REDIRECT_VARIABLE, None)
        serverapp.log.info(
            "micromegas_jupyter: redirect sign-in is disabled because JupyterHub started this server, and "
            "per-user redirects let users take each other's tokens."
        )
        return
    base = re.escape(serverapp.base_url)
    shared: dict[str, object] = {"relay": relay, "kernels": KernelClient(serverapp.kernel_manager)}
    rules = [
        (rf"{base}{START_PATH}([A-Za-z0-9_.-]{{1,200}})", StartHandler, shared),
        (rf"{base}{CALLBACK_PATH}", CallbackHandler, shared),
        (rf"{base}{DONE_PATH}", DoneHandler, shared),
        # Other requests below the prefix get a page that doesn't echo the address.
        (rf"{base}micromegas(?:/.*)?", RelayHandler, shared),
    ]
    serverapp.web_app.add_handlers(".*$", rules)  # type: ignore[no-untyped-call]  # tornado
    os.environ[REDIRECT_VARIABLE] = configured_base(relay.public_url, os.environ) or serverapp.base_url
    serverapp.log.info("micromegas_jupyter: redirect sign-in is available at %smicromegas/", serverapp.base_url)
