"""The Jupyter redirect flow in the kernel: the Jupyter server receives the redirect and forwards its query.

Verifier, state, nonce, and tokens stay in the kernel. `server_extension` is the server side. Both sides exchange the
messages defined here.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, cast
from urllib.parse import parse_qsl

import msgspec

from micromegas_jupyter.auth.flows.base import (
    CONTENT_TYPE,
    NOT_A_PAGE_LOAD,
    REDIRECT_VARIABLE,
    SECURITY_HEADERS,
    CallbackFlow,
    CodeGrant,
    LoginOutcome,
    LoginPrompt,
    LoginRequest,
    Page,
    notice_page,
)
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.core.text import split_plain_url
from micromegas_jupyter.errors import LoginFailed, MicromegasError

if TYPE_CHECKING:
    import logging

    from tornado.web import RequestHandler

else:
    RequestHandler = object  # this module must not import a web server

REQUEST_TYPE = "micromegas_oauth_request"
REPLY_TYPE = "micromegas_oauth_reply"
VERSION: Literal[1] = 1

MAX_QUERY_CHARACTERS = 16 * 1024
MAX_ADDRESS_CHARACTERS = 2048
MAX_AUTHORIZATION_CHARACTERS = MAX_QUERY_CHARACTERS
MAX_SENTENCE_CHARACTERS = 2000
RANDOM_BYTES = 32
"""Number of random bytes in a name, enough to be unguessable (RFC 9700 section 4.7 requires this of a state)."""

START_PATH = "micromegas/start/"
CALLBACK_PATH = "micromegas/callback"
DONE_PATH = "micromegas/done"

_MAX_PARAMETERS = 50
# A kernel ID is nearly always a UUID. IDs from provisioners and gateways match this pattern, too.
_KERNEL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_NAME = re.compile(r"([A-Za-z0-9_-]{1,64})\.[A-Za-z0-9_-]{43}", re.ASCII)
# RFC 3986 section 3.2: a name or an IPv4 or bracketed IPv6 address, and a port, but no user.
_AUTHORITY = re.compile(r"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?", re.ASCII)

_Address = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ADDRESS_CHARACTERS)]
_Name = Annotated[str, msgspec.Meta(pattern=rf"\A{_NAME.pattern}\Z")]
_Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_Sentence = Annotated[str, msgspec.Meta(max_length=MAX_SENTENCE_CHARACTERS)]


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="action"):
    version: Literal[1] = VERSION


class StartRequest(_Message, frozen=True, tag="start"):
    """Asks where to send the browser that opened the start address `name`. The provider redirects to `redirect_uri`."""

    name: _Name
    redirect_uri: _Address


class CallbackRequest(_Message, frozen=True, tag="answer"):
    """A browser returned with this query."""

    query: Secret


class OutcomeRequest(_Message, frozen=True, tag="ending"):
    """Asks for the outcome of the sign-in whose state has this digest."""

    state_digest: _Digest


Request = StartRequest | CallbackRequest | OutcomeRequest


class Started(_Message, frozen=True, tag="started"):
    """The sign-in is waiting. The browser goes to `authorization_url`; the digest is that of its state."""

    authorization_url: Secret
    state_digest: _Digest


class Accepted(_Message, frozen=True, tag="accepted"):
    """The callback belongs to a waiting sign-in. Its outcome follows."""


class Unknown(_Message, frozen=True, tag="unknown"):
    """The sign-in doesn't exist or has finished."""


class StillWorking(_Message, frozen=True, tag="working"):
    """The sign-in received its callback but hasn't finished."""


class Ended(_Message, frozen=True, tag="ended"):
    """The sign-in is complete; the fields are those of `LoginOutcome`."""

    is_signed_in: bool = False
    who: _Sentence = ""
    what: _Sentence = ""
    remedy: _Sentence = ""

    @classmethod
    def of(cls, outcome: LoginOutcome) -> Ended:
        """Return the message for an outcome, with truncated sentences."""
        texts = {name: getattr(outcome, name)[:MAX_SENTENCE_CHARACTERS] for name in ("who", "what", "remedy")}
        return cls(is_signed_in=outcome.is_signed_in, **texts)

    @property
    def outcome(self) -> LoginOutcome:
        """The outcome that the message carries."""
        return LoginOutcome(is_signed_in=self.is_signed_in, who=self.who, what=self.what, remedy=self.remedy)


Reply = Started | Accepted | Unknown | StillWorking | Ended


def build_message(message: Request | Reply) -> dict[str, object]:
    """Return the content to send for a message."""
    content: dict[str, object] = msgspec.to_builtins(message, enc_hook=lambda secret: secret.reveal())
    return content


def parse_request(content: object) -> Request | None:
    """Parse a request; return None if it isn't in this version's format."""
    return cast("Request | None", _parse(content, Request))


def parse_reply(content: object) -> Reply | None:
    """Parse a reply; return None if it isn't in this version's format."""
    return cast("Reply | None", _parse(content, Reply))


def _parse(content: object, kind: Any) -> object:
    if not isinstance(content, Mapping) or "version" not in content:
        return None
    try:
        return msgspec.convert(content, kind, dec_hook=_secret)
    except msgspec.ValidationError:
        return None


def _secret(_type: type, value: object) -> Secret:
    if isinstance(value, str) and 0 < len(value) <= MAX_QUERY_CHARACTERS:
        return Secret(value)
    raise ValueError("not a string, or too long")


def is_kernel_id(text: str) -> bool:
    """Whether a string is valid as a name's first part, before the dot."""
    return _KERNEL_ID.fullmatch(text) is not None


def build_name(kernel_id: str, random: str) -> str:
    """Return the name of a kernel's sign-in; `random` is `RANDOM_BYTES` bytes as unpadded base64url."""
    name = f"{kernel_id}.{random}"
    if _NAME.fullmatch(name) is None:
        raise ValueError("not valid parts of a name")
    return name


def kernel_id_in(name: str) -> str | None:
    """Return the kernel ID in a name, or None if the name is invalid."""
    found = _NAME.fullmatch(name)
    return None if found is None else found.group(1)


def state_in(query: str) -> str | None:
    """Return the state if a query contains it exactly once, or None."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        return None
    states = [value for name, value in pairs if name == "state"]
    return states[0] if len(states) == 1 else None


def digest_of(name: str) -> str:
    """Return the SHA-256 of a name in hexadecimal, for places that must not store the name itself."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def public_base(url: str) -> str | None:
    """Return the base URL of a Jupyter server's pages, with a trailing slash, or None if it is invalid."""
    parts = split_plain_url(url, max_characters=MAX_ADDRESS_CHARACTERS)
    if parts is None or parts.scheme not in {"http", "https"} or set(url) & set("?#"):
        return None
    if _AUTHORITY.fullmatch(parts.netloc) is None:
        return None
    return url if url.endswith("/") else f"{url}/"


def callback_address(base: str) -> str:
    """Return the redirect URI of a server with the base URL `base`, as returned by `public_base`."""
    return f"{base}{CALLBACK_PATH}"


def is_callback_address(url: str) -> bool:
    """Whether a redirect URI belongs to a Jupyter server."""
    return url.endswith(f"/{CALLBACK_PATH}") and public_base(url.removesuffix(CALLBACK_PATH)) is not None


def is_web_address(url: str) -> bool:
    """Whether a browser may be redirected to this address: `http` or `https`, in printable ASCII."""
    return re.fullmatch(r"https?://[\x21-\x7e]+", url) is not None and "\\" not in url


REDIRECT_TIMEOUT_SECONDS = 600.0
MAX_LOGINS = 20
"""Maximum number of sign-ins that a kernel keeps, including finished ones; the oldest is dropped."""


class RedirectFlow(CallbackFlow):
    """A code grant whose redirect a Jupyter server receives; `build_grant` doesn't use the network.

    The redirect URI comes with the first start, because only the server knows the address that browsers use for it. A
    start from another address starts over with a new state. The lock also guards outcome and callback.
    """

    def __init__(self, prompt: LoginPrompt, build_grant: Callable[[str], CodeGrant]) -> None:
        super().__init__(prompt)
        self._build_grant = build_grant
        self._outcome: LoginOutcome | None = None
        self._notify_started: Callable[[str], None] = lambda _redirect_uri: None

    @property
    def state_digest(self) -> str | None:
        """The digest of the state that a callback must carry, or None before the first start."""
        with self._lock:
            return None if self._grant is None else _digest_of(self._grant)

    @property
    def outcome(self) -> LoginOutcome | None:
        """The outcome, or None while the sign-in is running."""
        with self._lock:
            return self._outcome

    def start(self, redirect_uri: str) -> Started | None:
        """Return where to redirect the browser that opened the start address, or None if it is too late."""
        with self._lock:
            if self._ended.is_set():
                return None
            if self._grant is None or self._grant.request.redirect_uri != redirect_uri:
                self._grant = self._build_grant(redirect_uri)
            started = Started(authorization_url=Secret(self._grant.request.url), state_digest=_digest_of(self._grant))
            notify = self._notify_started
        notify(redirect_uri)
        return started

    def on_started(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with the redirect URI at each start."""
        with self._lock:
            self._notify_started = callback

    def show(self, outcome: LoginOutcome) -> None:
        """Keep the outcome for the page that the browser is waiting for."""
        with self._lock:
            self._outcome = outcome


class RedirectLogins:
    """The sign-ins of one kernel, for its Jupyter server. Safe to use from several threads; no method waits.

    The server's pages are below `base_address`, a path or URL that ends with a slash.
    """

    def __init__(self, *, kernel_id: str, base_address: str) -> None:
        self.kernel_id = kernel_id
        self._base_address = base_address
        self._lock = threading.Lock()
        # Keyed by the digest of the start address's name, because the name itself is not stored.
        self._logins: OrderedDict[str, RedirectFlow] = OrderedDict()

    def start(self, request: LoginRequest) -> RedirectFlow:
        """Register a sign-in and handle its requests from now on."""
        # Fetched now, because the thread that replies to the server must not use the network later.
        metadata = request.connection.metadata()

        def build_grant(redirect_uri: str) -> CodeGrant:
            return request.build_grant(metadata, redirect_uri, state_prefix=f"{self.kernel_id}.")

        build_grant(callback_address("http://localhost/"))  # report a malformed request now, not on a page
        name = build_name(self.kernel_id, request.connection.randomness.token_urlsafe(RANDOM_BYTES))
        timeout_seconds = request.wait_seconds(REDIRECT_TIMEOUT_SECONDS, maximum=REDIRECT_TIMEOUT_SECONDS)
        prompt = request.build_prompt(
            Flow.REDIRECT, timeout_seconds, start_url=f"{self._base_address}{START_PATH}{name}"
        )
        login = RedirectFlow(prompt, build_grant)
        with self._lock:
            self._logins[digest_of(name)] = login
            oldest = self._logins.popitem(last=False)[1] if len(self._logins) > MAX_LOGINS else None
        if oldest is not None:
            oldest.stop()
        return login

    def reply_to(self, content: object) -> dict[str, object]:
        """Return the reply to a request. Unknown, replayed, expired, and malformed requests all get the same reply."""
        return build_message(self._reply(content))

    def _reply(self, content: object) -> Reply:
        match parse_request(content):
            case StartRequest(name=name, redirect_uri=redirect_uri):
                return self._start(name, redirect_uri)
            case CallbackRequest(query=query):
                return Accepted() if any(login.accept(query) for login in self._all()) else Unknown()
            case OutcomeRequest(state_digest=state_digest):
                return self._outcome(state_digest)
            case None:
                return Unknown()

    def _start(self, name: str, redirect_uri: str) -> Reply:
        with self._lock:
            login = self._logins.get(digest_of(name))
        if login is None or not is_callback_address(redirect_uri):
            return Unknown()
        try:
            return login.start(redirect_uri) or Unknown()
        except MicromegasError as error:
            return Ended.of(LoginOutcome(is_signed_in=False, what=error.what, remedy=error.remedy))

    def _outcome(self, state_digest: str) -> Reply:
        for login in self._all():
            if hmac.compare_digest(login.state_digest or "", state_digest):
                return StillWorking() if login.outcome is None else Ended.of(login.outcome)
        return Unknown()

    def _all(self) -> list[RedirectFlow]:
        with self._lock:
            return list(self._logins.values())


def _digest_of(grant: CodeGrant) -> str:
    return digest_of(grant.request.state.reveal())


BINDING_SECONDS = 600
OUTCOME_SECONDS = 120
MAX_BINDINGS = 20
"""Maximum number of concurrent sign-ins per browser."""

_BINDING = "micromegas-login-"
_OUTCOME = "micromegas-done"
_HOST_PREFIX = "__Host-"
_DIGEST_CHARACTERS = 16
_SECONDS_PER_DAY = 86_400
_TOO_LONG: Final = notice_page(status=414, what="The address is too long to be the end of a sign-in.")


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieScope:
    """The scope and names of a server's cookies; `base_url` is the path that browsers use for the server."""

    is_secure: bool
    base_url: str
    folder: str = "micromegas/"

    @property
    def prefix(self) -> str:
        """The cookie prefix that makes browsers reject cookies from sibling hosts (RFC 6265bis section 4.1.3.2)."""
        return _HOST_PREFIX if self.is_secure and self.base_url == "/" else ""

    @property
    def path(self) -> str:
        """The path of the cookies; the prefix requires the whole host."""
        return "/" if self.prefix else f"{self.base_url}{self.folder}"

    @property
    def outcome_name(self) -> str:
        """The name of the cookie that identifies the last page's sign-in."""
        return f"{self.prefix}{_OUTCOME}"

    def binding_name(self, state_digest: str) -> str:
        """Return the name of the cookie that ties a sign-in to a browser; each sign-in has its own."""
        return f"{self.prefix}{_BINDING}{state_digest[:_DIGEST_CHARACTERS]}"

    def bindings_in(self, names: Iterable[str]) -> list[str]:
        """Return the names of cookies that may tie a sign-in to this browser. Sibling hosts can set similar ones."""
        form = re.compile(rf"{self.prefix}{_BINDING}[0-9a-f]{{{_DIGEST_CHARACTERS}}}")
        return [name for name in names if form.fullmatch(name)]


def binding_value(username: str, state_digest: str) -> str:
    """Return the binding cookie's value, which identifies the browser that may return with a state."""
    return f"{state_digest} {username}"


def parse_outcome_value(value: str) -> tuple[str, str] | None:
    """Return the kernel ID and state digest in an outcome cookie, or None if it is invalid."""
    kernel_id, _, digest = value.partition(" ")
    return (kernel_id, digest) if is_kernel_id(kernel_id) and digest and " " not in digest else None


def cookie_names_in(headers: Iterable[str]) -> Counter[str]:
    """Return how often each name occurs in `Cookie` headers; their order is undefined (RFC 6265bis section 5.8.3)."""
    return Counter(part.partition("=")[0].strip() for header in headers for part in header.split(";"))


class LoginPageHandler(RequestHandler):
    """Signed cookies and pages for a handler; must precede tornado's handler in the base classes."""

    query: str = ""

    def cookie_scope(self) -> CookieScope:
        """Return the scope of the cookies."""
        raise NotImplementedError

    def cookie_names(self) -> Mapping[str, int]:
        """Return how often each cookie was sent."""
        return cookie_names_in(self.request.headers.get_list("Cookie"))

    def read_cookie(self, name: str, life_seconds: int) -> str:
        """Return a signed cookie's value, or an empty string if it is missing, duplicated, too old, or not ours."""
        if self.cookie_names().get(name) != 1:
            return ""
        value = self.get_signed_cookie(name, max_age_days=life_seconds / _SECONDS_PER_DAY)
        return "" if value is None else value.decode("utf-8", "replace")

    def send_cookie(self, name: str, value: str, life_seconds: int) -> None:
        """Set a signed cookie that scripts cannot read and that isn't sent with cross-site form posts."""
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
        """Delete a signed cookie from the browser."""
        scope = self.cookie_scope()
        self.clear_cookie(name, path=scope.path, secure=scope.is_secure, httponly=True, samesite="Lax")

    def bind_browser(self, username: str, state_digest: str) -> None:
        """Remember in this browser that its user started a sign-in here."""
        scope = self.cookie_scope()
        others = scope.bindings_in(self.cookie_names())
        if len(others) >= MAX_BINDINGS:
            for name in others:
                self.forget_cookie(name)
        self.send_cookie(scope.binding_name(state_digest), binding_value(username, state_digest), BINDING_SECONDS)

    def set_default_headers(self) -> None:
        """Set the headers of all sign-in pages and redirects."""
        super().set_default_headers()
        for name, value in SECURITY_HEADERS.items():
            self.set_header(name, value)

    def take_query(self) -> None:
        """Remove the query from the request, so that anything that logs or echoes the address sees only the path."""
        self.query = self.request.query
        self.request.uri = self.request.path
        self.request.query = ""
        self.request.arguments = {}
        self.request.query_arguments = {}
        # The previous page's address may have contained a sign-in's parameters, too.
        self.request.headers.pop("Referer", None)

    def refuse_other_loads(self) -> bool:
        """Reject any request other than a page load in a tab, such as a frame; return whether it was rejected."""
        if self.request.headers.get("Sec-Fetch-Dest", "document") == "document":
            return False
        self.send_page(NOT_A_PAGE_LOAD)
        return True

    def refuse_long_query(self) -> bool:
        """Reject an address that is too long to be a callback; return whether it was rejected."""
        if len(self.query) <= MAX_QUERY_CHARACTERS:
            return False
        self.send_page(_TOO_LONG)
        return True

    @property
    def is_from_other_site(self) -> bool:
        """Whether another site sent the browser here, so that cookies may be missing."""
        return self.request.headers.get("Sec-Fetch-Site") == "cross-site"

    def send_page(self, page: Page) -> None:
        """Send a page."""
        self.set_status(page.status)
        self.set_header("Content-Type", CONTENT_TYPE)
        self.finish(page.body)

    def send_redirect(self, status: int, location: str) -> None:
        """Send a redirect; `location` is never taken from the request."""
        self.set_status(status)
        self.set_header("Location", location)
        self.finish()

    def compute_etag(self) -> None:
        """Return None, because these pages are never cached."""


_CONNECTION_FILE = re.compile(r"kernel-(.+)\.json")
_KERNEL_ID_VARIABLE = "KERNEL_ID"  # set by gateways that start kernels on other machines
_LOCAL_BASE = re.compile(r"/(?:[\x21-\x7e]*/)?", re.ASCII)


def open_redirects(kernel: object, environ: Mapping[str, str]) -> RedirectLogins | None:
    """Return the handler for this kernel's redirect sign-ins, or None if no server sends it requests."""
    base = environ.get(REDIRECT_VARIABLE, "")
    # Only a path if the server's public address is unknown.
    is_path = _LOCAL_BASE.fullmatch(base) and not base.startswith("//")
    base_address = base if is_path else public_base(base)
    if kernel is None or base_address is None:
        return None
    # Jupyter's servers and gateways put the kernel's ID in the connection file's name.
    connection_file = getattr(getattr(kernel, "parent", None), "connection_file", None)
    found = _CONNECTION_FILE.fullmatch(Path(str(connection_file)).name)
    kernel_id = found.group(1) if found else environ.get(_KERNEL_ID_VARIABLE, "")
    if not is_kernel_id(kernel_id) or not isinstance(getattr(kernel, "control_handlers", None), dict):
        raise LoginFailed(
            "This kernel doesn't accept messages from the Jupyter server.",
            remedy="Run %micromegas_login --flow device.",
        )
    return RedirectLogins(kernel_id=kernel_id, base_address=base_address)


def listen(kernel: Any, redirects: RedirectLogins) -> None:
    """Let `redirects` handle a Jupyter server's requests on the kernel's control channel, even while a cell runs."""

    def handle(stream: object, ident: object, parent: dict[str, Any]) -> None:
        # Runs on the kernel's control thread, so it must not block. The kernel stores the message as its channel's
        # latest.
        content, parent["content"] = parent.get("content"), {}
        kernel.session.send(stream, REPLY_TYPE, redirects.reply_to(content), parent, ident)

    kernel.control_handlers[REQUEST_TYPE] = handle
    kernel.log.addFilter(hides_requests)


def hides_requests(record: logging.LogRecord) -> bool:
    """Whether a log line may be written. A kernel that logs received messages would log a code."""
    arguments = record.args if isinstance(record.args, tuple) else (record.args,)
    headers = (argument.get("header") for argument in arguments if isinstance(argument, dict))
    return not any(isinstance(header, dict) and header.get("msg_type") == REQUEST_TYPE for header in headers)
