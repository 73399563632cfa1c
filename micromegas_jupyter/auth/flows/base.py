"""What all flows share: the prompt that a person is shown, the wait for that person, and the code grant behind most."""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from html import escape
from types import MappingProxyType
from typing import TYPE_CHECKING, TextIO

from micromegas_jupyter.auth.tokens.store import LoginKey, TokenStore
from micromegas_jupyter.config.client import DEFAULT_SCOPE, Bearer, Flow
from micromegas_jupyter.core.text import has_color
from micromegas_jupyter.errors import MicromegasError, UsageError
from micromegas_jupyter.oidc.authorization import (
    AuthorizationRequest,
    TokenSet,
    build_authorization_request,
    complete_scope,
    is_callback_of,
    parse_callback,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from micromegas_jupyter.auth.provider_connection import ProviderConnection
    from micromegas_jupyter.core.system import Secret
    from micromegas_jupyter.oidc.authorization import ProviderMetadata


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginPrompt:
    """What a person is shown: the address to open, or the code to type and where; and for how long it holds."""

    flow: Flow
    timeout_seconds: float
    expires_at: datetime
    start_url: str | None = field(default=None, repr=False)
    user_code: str | None = field(default=None, repr=False)
    verification_uri: str | None = None
    verification_uri_complete: str | None = field(default=None, repr=False)


class LoginFlow:
    """A flow that is waiting for a person. Used by one `PendingLogin`, from several threads."""

    def __init__(self, prompt: LoginPrompt) -> None:
        self.prompt = prompt

    def tokens(self) -> TokenSet | None:
        """Wait for the person and return the tokens, with the ID token checked; None when nobody came in time."""
        raise NotImplementedError

    def stop(self) -> None:
        """End the wait for the person."""

    def submit(self, text: str | Secret) -> None:  # noqa: ARG002 - only one flow takes it
        """Take what the person pasted."""
        raise UsageError(
            "This sign-in does not wait for a pasted address.", remedy="Start one with the flow `paste` for that."
        )

    def on_started(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with the redirect URI when a browser is sent to the provider, where only then it is known."""

    def show(self, outcome: LoginOutcome) -> None:
        """Show the person how it ended."""

    def close(self, *, linger_seconds: float = 0.0) -> None:
        """Release what is held, once the page was seen or after `linger_seconds`; safe to call twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeGrant:
    """An authorization code grant with PKCE: the request, and the provider's description when it was made."""

    request: AuthorizationRequest
    metadata: ProviderMetadata
    connection: ProviderConnection
    needs_id_token: bool = True

    def code_in(self, query: Secret) -> Secret:
        """Return the code that a callback carries; raises as `parse_callback`."""
        return parse_callback(query, request=self.request, metadata=self.metadata)

    def redeem(self, code: Secret) -> TokenSet:
        """Exchange the code for tokens, whose ID token is checked; raises as `ProviderConnection.exchange_code`."""
        return self.connection.exchange_code(self.request, code, needs_id_token=self.needs_id_token)


class CallbackFlow(LoginFlow):
    """A code grant that ends with one answer, which another thread brings. Its lock covers grant and answer."""

    def __init__(self, prompt: LoginPrompt, grant: CodeGrant | None = None) -> None:
        super().__init__(prompt)
        self._lock = threading.Lock()
        self._grant = grant
        self._callback: Secret | MicromegasError | None = None
        self._ended = threading.Event()

    def accept(self, query: Secret) -> bool:
        """Take a callback's query if it is this sign-in's, which takes one only; whether it is."""
        with self._lock:
            if self._grant is None or self._ended.is_set() or not is_callback_of(query.reveal(), self._grant.request):
                return False
            try:
                self._callback = self._grant.code_in(query)
            except MicromegasError as error:
                self._callback = error
            self._ended.set()
            return True

    def tokens(self) -> TokenSet | None:
        """Wait for the answer and exchange its code."""
        self._ended.wait(self.prompt.timeout_seconds)
        self._ended.set()  # what comes from now on comes too late
        with self._lock:
            grant, answer, self._callback = self._grant, self._callback, None
        if isinstance(answer, MicromegasError):
            raise answer
        return None if answer is None or grant is None else grant.redeem(answer)

    def stop(self) -> None:
        """End the wait; without effect once an answer was taken."""
        self._ended.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginRequest:
    """A requested sign-in, which every flow starts with; `OidcAuthProvider.begin_login` describes the fields."""

    connection: ProviderConnection
    store: TokenStore | None = None
    bearer: Bearer = Bearer.ID_TOKEN
    scope: str = DEFAULT_SCOPE
    audience: str | None = None
    resource: str | None = None
    redirect_uri: str | None = None
    authorize_params: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scope", complete_scope(self.scope))

    @property
    def key(self) -> LoginKey:
        """The key that the sign-in is stored with."""
        return LoginKey(
            issuer=self.connection.issuer,
            client_id=self.connection.client_id,
            audience=self.audience,
            scope=self.scope,
            resource=self.resource,
        )

    @property
    def needs_id_token(self) -> bool:
        """Whether a sign-in without an ID token fails."""
        return self.bearer is Bearer.ID_TOKEN

    def build_grant(self, metadata: ProviderMetadata, redirect_uri: str, *, state_prefix: str = "") -> CodeGrant:
        """Make an authorization request; touches no network."""
        authorization = build_authorization_request(
            metadata,
            client_id=self.connection.client_id,
            redirect_uri=redirect_uri,
            scope=self.scope,
            randomness=self.connection.randomness,
            audience=self.audience,
            resource=self.resource,
            extra_parameters=self.authorize_params,
            state_prefix=state_prefix,
        )
        return CodeGrant(
            request=authorization, metadata=metadata, connection=self.connection, needs_id_token=self.needs_id_token
        )

    def wait_seconds(self, default_seconds: float, *, maximum: float | None = None) -> float:
        """Return how long to wait for the person."""
        seconds = default_seconds if self.timeout_seconds is None else self.timeout_seconds
        return seconds if maximum is None else min(seconds, maximum)

    def build_prompt(self, flow: Flow, timeout_seconds: float, **shown: str | None) -> LoginPrompt:
        """Make a prompt that holds from now on."""
        expires_at = self.connection.clock.now() + timedelta(seconds=timeout_seconds)
        return LoginPrompt(flow=flow, timeout_seconds=timeout_seconds, expires_at=expires_at, **shown)


# Contrast of text on its background is at least 4.5:1 in both schemes (WCAG 2.2, 1.4.3).
STYLE = (
    ":root{color-scheme:light dark;--page:#f5f6f8;--card:#fff;--text:#1c2128;--quiet:#57606a;--good:#1a7f37;"
    "--bad:#b42318;--line:#d8dee4}"
    "@media(prefers-color-scheme:dark){:root{--page:#0d1117;--card:#161b22;--text:#e6edf3;--quiet:#9da7b3;"
    "--good:#3fb950;--bad:#ff8177;--line:#30363d}}"
    "*{box-sizing:border-box}"
    "body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1rem;background:var(--page);"
    "color:var(--text);font:1rem/1.5 system-ui,sans-serif}"
    "main{max-width:34rem;width:100%;padding:2rem;background:var(--card);border:1px solid var(--line);"
    "border-radius:.75rem;text-align:center}"
    "h1{font-size:1.35rem;margin:.75rem 0}p{margin:.5rem 0;overflow-wrap:anywhere}.hint{color:var(--quiet)}"
    ".mark{display:inline-grid;place-items:center;width:3rem;height:3rem;border-radius:50%;border:2px solid;"
    "font-size:1.5rem;font-weight:700}.success .mark{color:var(--good)}.failure .mark{color:var(--bad)}"
)
STYLE_HASH = "sha256-" + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
CONTENT_TYPE = "text/html; charset=utf-8"
# Source: RFC 9700 sections 4.2.4 and 4.16 (the address holds code and state: no referrer, no caches, no framing).
SECURITY_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": (
            f"default-src 'none'; style-src '{STYLE_HASH}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
        ),
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
)

_QR_CAPTION = "The page to open, with the code filled in:"
_QR_BORDER_MODULES = 2
# A longer address makes a code that a telephone cannot read off a screen at this size.
MAX_QR_CHARACTERS = 512
# Bright white on black, whatever the terminal's own colours are: light on dark is what the drawing means.
_QR_COLOURS = "\x1b[97;40m"
_USUAL_COLOURS = "\x1b[0m"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """An HTML page as it is sent, and its HTTP status."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginOutcome:
    """How a sign-in ended: who signed in, as far as the tokens say, or what went wrong and what to do about it."""

    is_signed_in: bool
    who: str = ""
    what: str = ""
    remedy: str = ""

    def page(self) -> Page:
        """Return the page that says so."""
        if not self.is_signed_in:
            title = "You are not signed in"
            return _page(status=200, title=title, sentences=[self.what], hint=self.remedy, is_failure=True)
        return _page(
            status=200,
            title="You are signed in",
            sentences=[f"Signed in as {self.who}."] if self.who else [],
            hint="You can close this tab and continue where you started.",
        )


def notice_page(*, status: int, what: str) -> Page:
    """Return a page for requests that do not belong to a running sign-in."""
    return _page(status=status, title="Nothing to do here", sentences=[what], is_failure=True)


def handed_over_page() -> Page:
    """Return the page for an answer whose outcome is only known where the sign-in began."""
    return _page(
        status=200,
        title="Back to where you started",
        sentences=["Your answer was passed on."],
        hint="You can close this tab: the notebook shows whether you are signed in.",
    )


def reload_page() -> Page:
    """Return the page that reloads itself at once, as a page of this site and no longer of the one before."""
    return _page(status=200, title="One moment", sentences=[], head='<meta http-equiv="refresh" content="0">')


def _page(  # noqa: PLR0913 - the parts of a page
    *, status: int, title: str, sentences: list[str], hint: str = "", is_failure: bool = False, head: str = ""
) -> Page:
    paragraphs = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    closing = f'<p class="hint">{escape(hint)}</p>' if hint else ""
    # A screen reader announces a failure at once and a success when it is done with what it is saying.
    role, mark, kind = ("alert", "!", "failure") if is_failure else ("status", "✓", "success")
    html = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"{head}<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f'<body><main role="{role}" class="{kind}"><span class="mark" aria-hidden="true">{mark}</span>'
        f"<h1>{escape(title)}</h1>{paragraphs}{closing}</main></body></html>"
    )
    return Page(status=status, body=html.encode())


NOT_FOUND_PAGE = notice_page(status=404, what="There is no such page.")
WRONG_METHOD_PAGE = notice_page(status=405, what="This address can only be opened in a browser.")
NOT_A_PAGE_LOAD = notice_page(status=403, what="This address can only be opened in a browser tab.")
STILL_WORKING_PAGE = notice_page(status=200, what="The sign-in is still being completed. Reload this page in a moment.")
NOT_UNDERSTOOD = "The request could not be understood."


def terminal_qr(address: str, *, columns: int) -> list[str]:
    """Return a QR code of the address, line by line; empty when it is missing, too long to scan, or too wide."""
    if not 0 < len(address) <= MAX_QR_CHARACTERS:
        return []
    import segno

    symbol = segno.make_qr(address, error="l")
    if symbol.symbol_size(border=_QR_BORDER_MODULES)[0] > columns:
        return []
    drawn = io.StringIO()
    symbol.terminal(drawn, compact=True, border=_QR_BORDER_MODULES)
    return [f"{_QR_COLOURS}{line}{_USUAL_COLOURS}" for line in drawn.getvalue().splitlines()]


def qr_lines(address: str, *, stream: TextIO, environ: Mapping[str, str]) -> list[str]:
    """Return a QR code of the address with its caption; empty where the stream is no terminal that can show it."""
    shows_blocks = (stream.encoding or "").lower().replace("-", "") == "utf8"
    if not shows_blocks or not has_color(stream, environ):
        return []
    lines = terminal_qr(address, columns=shutil.get_terminal_size().columns)
    return [_QR_CAPTION, *lines] if lines else []
