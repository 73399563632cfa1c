"""What all flows share: the prompt that a person is shown, the wait for that person, and the code grant behind most."""

from __future__ import annotations

import base64
import contextvars
import hashlib
import io
import logging
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from html import escape
from types import MappingProxyType
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import (
    InternalError,
    LoginFailed,
    LoginTimedOut,
    MicromegasError,
    TokenStoreError,
    UsageError,
)
from micromegas_jupyter.oidc.authorization import (
    AuthorizationRequest,
    TokenSet,
    build_authorization_request,
    is_callback_of,
    parse_callback,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from micromegas_jupyter.auth.provider_connection import LoginRequest, ProviderConnection
    from micromegas_jupyter.auth.tokens.manager import Identity
    from micromegas_jupyter.auth.tokens.store import TokenStore
    from micromegas_jupyter.config.client import Flow
    from micromegas_jupyter.core.system import Clock, Randomness
    from micromegas_jupyter.oidc.discovery import ProviderMetadata


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginPrompt:
    """What a person is shown, and for how long it holds.

    Attributes:
        flow: The flow.
        timeout_seconds: How long to wait for the person.
        expires_at: When that ends (aware UTC).
        start_url: The address to open.
        user_code: The code to type.
        verification_uri: Where to type it.
        verification_uri_complete: The same with the code in it, for a QR code.
    """

    flow: Flow
    timeout_seconds: float
    expires_at: datetime
    start_url: str | None = field(default=None, repr=False)
    user_code: str | None = field(default=None, repr=False)
    verification_uri: str | None = None
    verification_uri_complete: str | None = field(default=None, repr=False)


class LoginFlow(ABC):
    """A flow that is waiting for a person. Used by one `PendingSignIn`, from several threads."""

    def __init__(self, prompt: LoginPrompt) -> None:
        self.prompt = prompt

    @abstractmethod
    def tokens(self) -> TokenSet | None:
        """Wait for the person and return the provider's tokens, with the ID token checked.

        None means that nobody came in time or `stop` ended the wait.
        """

    @abstractmethod
    def stop(self) -> None:
        """End the wait for the person."""

    def submit(self, text: str | Secret) -> None:  # noqa: ARG002 - only one flow takes it
        """Take what the person pasted."""
        raise UsageError(
            "This sign-in does not wait for a pasted address.", remedy="Start one with the flow `paste` for that."
        )

    def on_started(self, callback: Callable[[str], None]) -> None:  # noqa: B027 - only one flow calls it
        """Call `callback` with the redirect URI when a browser is sent to the provider, where only then it is known."""

    def show(self, outcome: LoginOutcome) -> None:  # noqa: B027 - a flow without a page of its own shows nothing
        """Show the person how it ended."""

    def close(self, *, linger_seconds: float = 0.0) -> None:  # noqa: B027 - a flow may hold nothing
        """Release what is held, once the page was seen or after `linger_seconds`; safe to call twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeGrant:
    """An authorization code grant with PKCE: the request, and the provider's description when it was made."""

    request: AuthorizationRequest
    metadata: ProviderMetadata
    connection: ProviderConnection
    needs_id_token: bool = True

    def is_answered_by(self, query: str) -> bool:
        """Whether a query string carries this grant's state."""
        return is_callback_of(query, self.request)

    def code_in(self, query: Secret) -> Secret:
        """Return the code that a callback carries; raises as `parse_callback`."""
        return parse_callback(query, request=self.request, metadata=self.metadata)

    def redeem(self, code: Secret) -> TokenSet:
        """Exchange the code for tokens, whose ID token is checked; raises as `ProviderConnection.exchange_code`."""
        return self.connection.exchange_code(self.request, code, needs_id_token=self.needs_id_token)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginContext:
    """What every flow is started with: the request, the provider, and the outside world."""

    request: LoginRequest
    connection: ProviderConnection
    clock: Clock
    randomness: Randomness

    def build_grant(self, metadata: ProviderMetadata, redirect_uri: str, *, state_prefix: str = "") -> CodeGrant:
        """Make an authorization request; touches no network."""
        authorization = build_authorization_request(
            metadata,
            client_id=self.connection.client_id,
            redirect_uri=redirect_uri,
            scope=self.request.scope,
            randomness=self.randomness,
            audience=self.request.audience,
            resource=self.request.resource,
            extra_parameters=self.request.authorize_params,
            state_prefix=state_prefix,
        )
        return CodeGrant(
            request=authorization,
            metadata=metadata,
            connection=self.connection,
            needs_id_token=self.request.needs_id_token,
        )

    def timeout_seconds(self, default_seconds: float, *, maximum: float | None = None) -> float:
        """Return how long to wait for the person."""
        asked = self.request.timeout_seconds
        seconds = default_seconds if asked is None else asked
        return seconds if maximum is None else min(seconds, maximum)

    def build_prompt(self, flow: Flow, timeout_seconds: float, **shown: str | None) -> LoginPrompt:
        """Make a prompt that holds from now on."""
        expires_at = self.clock.now() + timedelta(seconds=timeout_seconds)
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

QR_CAPTION = "The page to open, with the code filled in:"
_QR_BORDER_MODULES = 2
# A longer address makes a code that a telephone cannot read off a screen at this size.
MAX_QR_CHARACTERS = 512
# Bright white on black, whatever the terminal's own colours are: light on dark is what the drawing means.
_QR_COLOURS = "\x1b[97;40m"
_USUAL_COLOURS = "\x1b[0m"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """An HTML page and its HTTP status."""

    status: int
    html: str

    @property
    def body(self) -> bytes:
        """The page as it is sent."""
        return self.html.encode("utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginOutcome:
    """How a sign-in ended.

    Attributes:
        is_signed_in: Whether there is a token.
        who: The person's name; empty when the tokens do not say, and without a token.
        what: What went wrong, as a sentence; empty with a token.
        remedy: What to do about it.
    """

    is_signed_in: bool
    who: str = ""
    what: str = ""
    remedy: str = ""

    def page(self) -> Page:
        """Return the page that says so."""
        return success_page(who=self.who) if self.is_signed_in else failure_page(what=self.what, remedy=self.remedy)


def success_page(*, who: str = "") -> Page:
    """Return the page that says that the person is signed in."""
    return _page(
        status=200,
        title="You are signed in",
        sentences=[f"Signed in as {who}."] if who else [],
        hint="You can close this tab and continue where you started.",
    )


def failure_page(*, what: str, remedy: str) -> Page:
    """Return the page that says why there was no sign-in and what to do."""
    return _page(status=200, title="You are not signed in", sentences=[what], hint=remedy, is_failure=True)


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
    return Page(status=status, html=html)


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


def shows_qr(environ: Mapping[str, str], *, encoding: str | None) -> bool:
    """Whether a terminal shows block characters in colours, as far as its variables and its encoding say."""
    return (
        environ.get("TERM", "") not in {"", "dumb"}
        and not environ.get("NO_COLOR")
        and (encoding or "").lower().replace("-", "") == "utf8"
    )


# For a browser that is slow to fetch the last page; nearly all fetch it at once.
LINGER_SECONDS = 10.0
# After the person: discovery, token and keys of ten seconds each, and the wait for the token file's lock.
COMPLETION_SECONDS = 90.0

_WAIT_SLICE_SECONDS = 0.2

_log = logging.getLogger(__name__)


class StoreWatch:
    """Remembers whether a sign-in was stored when another one was started; `store` is None for one in memory."""

    def __init__(self, store: TokenStore | None) -> None:
        self._store = store
        self._was_filled = self._is_filled()

    def check_not_emptied(self) -> None:
        """Check that nobody has signed out since; only for the holder of the store's lock.

        A sign-in that another program has stored meanwhile is replaced. Where nothing was stored at the beginning, a
        sign-out by another program leaves no trace and is not seen.
        """
        if self._was_filled and not self._is_filled():
            raise LoginFailed("You signed out meanwhile, so this sign-in was not kept.")

    def discard(self, tokens: TokenSet, connection: ProviderConnection, *, clock: Clock) -> None:
        """Revoke tokens that were not kept, as far as the provider does so within a logout's deadline.

        Some providers end everything that a person has given the application as soon as one of its tokens is revoked
        (Google). So while a sign-in is stored, the new tokens are only forgotten, which leaves nobody who has them.
        """
        try:
            if self._is_filled():
                return
        except TokenStoreError:
            return  # it cannot be known
        from micromegas_jupyter.auth.logout import RevocationCalls

        problem = RevocationCalls(clock).revoke(tokens, connection).problem
        if problem is not None:
            _log.warning("The tokens of a sign-in that was not kept could not be revoked.", extra={"problem": problem})

    def _is_filled(self) -> bool:
        return self._store is not None and self._store.mark() is not None


class SignedIn(Protocol):
    """What a sign-in leads to, as far as its last page shows it."""

    def identity(self) -> Identity:
        """Return who signed in."""
        ...


P = TypeVar("P", bound=SignedIn)


class PendingSignIn(Generic[P]):
    """A running sign-in; safe to use from several threads.

    Its lock covers the outcome and the callbacks, and is free while they run.

    Args:
        running: Waits for the person; owned, and closed at the end.
        keep: Makes the provider of the tokens and stores them. Calls its second argument at the last moment at which
            nothing is stored yet; that raises when the sign-in was cancelled.
        discard: Revokes tokens that were not kept; called after everybody has learned of the end.
    """

    def __init__(
        self,
        running: LoginFlow,
        keep: Callable[[TokenSet, Callable[[], None]], P],
        *,
        discard: Callable[[TokenSet], None] = lambda _tokens: None,
    ) -> None:
        self._running = running
        self._keep = keep
        self._discard = discard
        self._unkept: TokenSet | None = None
        self._lock = threading.Lock()
        self._outcome: P | MicromegasError | None = None
        self._settled = threading.Event()
        self._callbacks: list[Callable[[], None]] = []
        self._is_cancelled = False
        # The caller's context comes along, so that what a callback prints lands in the caller's notebook cell.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._work,), name="micromegas-login", daemon=True)
        self._thread.start()

    @property
    def flow(self) -> Flow:
        """The flow."""
        return self._running.prompt.flow

    @property
    def start_url(self) -> str | None:
        """The address to open; None for a device sign-in.

        In the browser flow it is on loopback, in the redirect flow the Jupyter server's (a path where this process
        does not know the server's address); both hold no state and no challenge. In the paste flow it is the
        provider's own page, so do not store the address where others can read it.
        """
        return self._running.prompt.start_url

    @property
    def user_code(self) -> str | None:
        """The code that the person types; None except for a device sign-in."""
        return self._running.prompt.user_code

    @property
    def verification_uri(self) -> str | None:
        """Where the person types it, on any device; None except for a device sign-in."""
        return self._running.prompt.verification_uri

    @property
    def verification_uri_complete(self) -> str | None:
        """The same with the code in it, where the provider has that; show it, never open it automatically."""
        return self._running.prompt.verification_uri_complete

    @property
    def expires_at(self) -> datetime:
        """When the sign-in stops waiting for the person (aware UTC)."""
        return self._running.prompt.expires_at

    @property
    def done(self) -> bool:
        """Whether the sign-in has ended, successfully or not."""
        return self._settled.is_set()

    def result(self, timeout_seconds: float | None = None) -> P:
        """Wait for the end and return the provider.

        Args:
            timeout_seconds: How long to wait; None waits until the sign-in itself gives up.

        Raises:
            LoginTimedOut: Nobody came back in time, or not within `timeout_seconds` (the sign-in then continues).
            LoginRefused: The provider or the person said no.
            LoginFailed: It was cancelled, or the provider gave no token.
            ProviderMisbehaved: The provider's answer breaks the protocol or does not fit this sign-in.
            ProviderUnavailable: The provider does not answer.
            TokenStoreError: The sign-in could not be stored.
        """
        longest = self._running.prompt.timeout_seconds + COMPLETION_SECONDS
        left_seconds = longest if timeout_seconds is None else timeout_seconds
        # In slices: a Ctrl-C that comes in the instant before a wait is only noticed when that wait ends.
        while not self._settled.wait(min(max(left_seconds, 0.0), _WAIT_SLICE_SECONDS)) and left_seconds > 0:
            left_seconds -= _WAIT_SLICE_SECONDS
        with self._lock:
            outcome = self._outcome
        if outcome is None:
            raise LoginTimedOut("The sign-in has not finished yet.", remedy="Finish it, or start another one.")
        if isinstance(outcome, MicromegasError):
            raise outcome
        return outcome

    def on_done(self, callback: Callable[[Self], None]) -> None:
        """Call `callback` once, on the sign-in's thread, when it has ended; at once when it already has."""
        with self._lock:
            if self._outcome is None:
                self._callbacks.append(lambda: callback(self))
                return
        _call(lambda: callback(self))

    def on_started(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with the redirect URI when a browser is sent to the provider; in the redirect flow only.

        It is called on the thread that answers the Jupyter server, so it must not wait.
        """
        self._running.on_started(lambda redirect_uri: _call(lambda: callback(redirect_uri)))

    def submit(self, text: str | Secret) -> None:
        """Take the address that the person's browser ended at; for the paste flow only.

        The sign-in then continues by itself, and `result` returns or raises. Nothing of the text is kept, shown or
        logged.

        Raises:
            UsageError: It is not this sign-in's address, which may be tried again, or no address is expected any more.
            ProviderMisbehaved: It is from another provider or malformed; it may be tried again.
        """
        text = Secret(text) if isinstance(text, str) else text  # or a traceback would show it
        self._running.submit(text)

    def cancel(self) -> None:
        """End the sign-in; without effect once it is kept. Safe to call twice.

        Whoever then holds the lock of the store sees the sign-in kept, or never.
        """
        with self._lock:
            self._is_cancelled = True
        self._running.stop()

    def wait_closed(self, timeout_seconds: float) -> bool:
        """Wait until the person has seen the last page and all is closed; whether that happened in time."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def __repr__(self) -> str:
        return f"PendingLogin(done={self.done}, expires_at={self.expires_at.isoformat()})"

    def _work(self) -> None:
        try:
            outcome = self._run()
            self._running.show(_shown_outcome(outcome))
            self._settle(outcome)
            if self._unkept is not None:
                tokens, self._unkept = self._unkept, None
                _call(lambda: self._discard(tokens))
            self._running.close(linger_seconds=LINGER_SECONDS)
        finally:
            self._running.close()

    def _run(self) -> P | MicromegasError:
        try:
            tokens = self._running.tokens()
            if tokens is None:
                self._check_not_cancelled()
                return LoginTimedOut(f"Nobody signed in within {self._running.prompt.timeout_seconds:g} seconds.")
            try:
                self._check_not_cancelled()
                return self._keep(tokens, self._check_not_cancelled)
            except MicromegasError:
                self._unkept = tokens
                raise
        except MicromegasError as error:
            return error
        except Exception:  # noqa: BLE001 - a thread's end is its outcome: whoever waits must learn of it
            _log.exception("A sign-in failed unexpectedly.")
            return InternalError("The sign-in failed because of a defect in this program.")

    def _check_not_cancelled(self) -> None:
        with self._lock:
            is_cancelled = self._is_cancelled
        if is_cancelled:
            raise LoginFailed("The sign-in was cancelled.")

    def _settle(self, outcome: P | MicromegasError) -> None:
        with self._lock:
            self._outcome = outcome
            callbacks, self._callbacks = self._callbacks, []
        self._settled.set()
        for callback in callbacks:
            _call(callback)


def _call(callback: Callable[[], None]) -> None:
    try:
        callback()
    except Exception:  # noqa: BLE001 - one callback's defect must not cost the others
        _log.exception("A callback of a sign-in failed.")


def _shown_outcome(outcome: SignedIn | MicromegasError) -> LoginOutcome:
    if isinstance(outcome, MicromegasError):
        return LoginOutcome(is_signed_in=False, what=outcome.what, remedy=outcome.remedy)
    try:
        identity = outcome.identity()
    except MicromegasError:
        # The tokens say nothing about their person, or the store has just been emptied.
        return LoginOutcome(is_signed_in=True)
    return LoginOutcome(is_signed_in=True, who=identity.name or identity.email or identity.subject)
