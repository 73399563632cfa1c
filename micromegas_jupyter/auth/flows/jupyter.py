"""The Jupyter redirect flow, in the kernel: the Jupyter server receives the redirect and passes on what it carries.

Verifier, state, nonce and tokens stay in the kernel. `server_extension` is the server's half, and `messages` what both
say to each other.
"""

import hmac
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

from micromegas_jupyter.auth.flows.base import CodeGrant, LoginContext, LoginFlow, LoginPrompt
from micromegas_jupyter.auth.flows.messages import (
    RANDOM_BYTES,
    START_PATH,
    Accepted,
    CallbackRequest,
    Ended,
    OutcomeRequest,
    Reply,
    Started,
    StartRequest,
    StillWorking,
    Unknown,
    build_message,
    build_name,
    callback_address,
    digest_of,
    is_callback_address,
    parse_request,
)
from micromegas_jupyter.auth.flows.pages import LoginOutcome
from micromegas_jupyter.config.client import Flow
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.errors import MicromegasError
from micromegas_jupyter.oidc.authorization import TokenSet

REDIRECT_TIMEOUT_SECONDS = 600.0
MAX_LOGINS = 20
"""How many sign-ins a kernel answers for, including ended ones; the oldest is forgotten."""


class RedirectFlow(LoginFlow):
    """A code grant whose redirect a Jupyter server receives.

    The redirect URI comes with the first start, because only the server knows under which address a browser reaches
    it; a start from another address begins anew, with a state of its own.

    `build_grant` makes an authorization request for a redirect URI without the network; `fetch_keys` fetches and keeps
    the provider's keys. The lock covers the grant, its answer, the outcome, and the callback for a start.
    """

    def __init__(
        self,
        prompt: LoginPrompt,
        build_grant: Callable[[str], CodeGrant],
        *,
        fetch_keys: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(prompt)
        self._build_grant = build_grant
        self._fetch_keys = fetch_keys
        self._lock = threading.Lock()
        self._grant: CodeGrant | None = None
        self._answer: Secret | MicromegasError | None = None
        self._ended = threading.Event()
        self._outcome: LoginOutcome | None = None
        self._notify_started: Callable[[str], None] = lambda _redirect_uri: None

    @property
    def state_digest(self) -> str | None:
        """The digest of the state that a callback must carry; None before the first start."""
        with self._lock:
            return None if self._grant is None else _digest_of(self._grant)

    @property
    def outcome(self) -> LoginOutcome | None:
        """How it ended; None while it runs."""
        with self._lock:
            return self._outcome

    def start(self, redirect_uri: str) -> Started | None:
        """Return where the browser goes that opened the start address; None when it is too late."""
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

    def accept(self, query: Secret) -> bool:
        """Take a callback's query if it is this sign-in's, which takes one only; whether it is."""
        with self._lock:
            if self._grant is None or self._ended.is_set() or not self._grant.is_answered_by(query.reveal()):
                return False
            try:
                self._answer = self._grant.code_in(query)
            except MicromegasError as error:
                self._answer = error
            self._ended.set()
            return True

    def tokens(self) -> TokenSet | None:
        """Wait for the callback and exchange its code."""
        # While the person signs in there is time for it; a failure now is retried when the token is checked.
        with suppress(MicromegasError):
            self._fetch_keys()
        self._ended.wait(self.prompt.timeout_seconds)
        self._ended.set()  # what comes from now on comes too late
        with self._lock:
            grant, answer, self._answer = self._grant, self._answer, None
        if isinstance(answer, MicromegasError):
            raise answer
        return None if answer is None or grant is None else grant.redeem(answer)

    def stop(self) -> None:
        """End the wait; without effect once a callback was accepted."""
        self._ended.set()

    def show(self, outcome: LoginOutcome) -> None:
        """Keep the outcome for the page that the browser is waiting for."""
        with self._lock:
            self._outcome = outcome


class RedirectLogins:
    """The sign-ins of one kernel, for its Jupyter server. Safe to use from several threads; nothing here waits.

    Its lock covers which sign-ins there are. `kernel_id` is the server's name for this kernel; the server's pages lie
    below `base_address`, a path or an address that ends with a slash.
    """

    def __init__(self, *, kernel_id: str, base_address: str) -> None:
        self.kernel_id = kernel_id
        self._base_address = base_address
        self._lock = threading.Lock()
        # By the digest of the start address's name: the name itself is not kept.
        self._logins: OrderedDict[str, RedirectFlow] = OrderedDict()

    def start(self, context: LoginContext) -> RedirectFlow:
        """Start a sign-in, and answer for it from now on."""
        # Kept as it is now: later, on the thread that answers the server, nothing may be fetched.
        metadata = context.connection.metadata()

        def build_grant(redirect_uri: str) -> CodeGrant:
            return context.build_grant(metadata, redirect_uri, state_prefix=f"{self.kernel_id}.")

        build_grant(callback_address("http://localhost/"))  # report a malformed request now, not on a page
        name = build_name(self.kernel_id, context.randomness.token_urlsafe(RANDOM_BYTES))
        timeout_seconds = context.timeout_seconds(REDIRECT_TIMEOUT_SECONDS, maximum=REDIRECT_TIMEOUT_SECONDS)
        prompt = context.build_prompt(
            Flow.REDIRECT, timeout_seconds, start_url=f"{self._base_address}{START_PATH}{name}"
        )
        login = RedirectFlow(prompt, build_grant, fetch_keys=context.connection.keys)
        self.add(name, login)
        return login

    def add(self, name: str, login: RedirectFlow) -> None:
        """Answer for a sign-in whose start address has this name."""
        with self._lock:
            self._logins[digest_of(name)] = login
            oldest = self._logins.popitem(last=False)[1] if len(self._logins) > MAX_LOGINS else None
        if oldest is not None:
            oldest.stop()

    def reply_to(self, content: object) -> dict[str, object]:
        """Return the reply to a request; what is unknown, replayed, expired or malformed gets the same one."""
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
