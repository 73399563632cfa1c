"""`OidcAuthProvider`: a user's sign-in, from the first page to logout; `tokens.source` keeps its tokens valid."""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypedDict, Unpack

from micromegas_jupyter.auth.provider_connection import ProviderConnection, client_credential, hidden_secret
from micromegas_jupyter.auth.tokens.source import Identity, SessionSource, identity_of_session, session_of
from micromegas_jupyter.auth.tokens.store import FileTokenStore, LoginKey, TokenStore, parse_token
from micromegas_jupyter.config.client import DEFAULT_SCOPE, Bearer, Flow
from micromegas_jupyter.core.system import (
    SYSTEM_BROWSER,
    SYSTEM_CLOCK,
    SYSTEM_RANDOMNESS,
    Browser,
    Clock,
    Randomness,
    Secret,
    SecretObject,
)
from micromegas_jupyter.core.text import as_issuer
from micromegas_jupyter.errors import (
    InternalError,
    LoginFailed,
    LoginTimedOut,
    MicromegasError,
    TokenStoreError,
    UsageError,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from micromegas_jupyter.auth.flows.base import LoginFlow, LoginOutcome, LoginRequest
    from micromegas_jupyter.auth.flows.hub import HubService, HubTokenProvider
    from micromegas_jupyter.auth.flows.jupyter import RedirectLogins
    from micromegas_jupyter.auth.logout import LogoutReport
    from micromegas_jupyter.core.http import ProviderCalls
    from micromegas_jupyter.oidc.authorization import TokenSet
    from micromegas_jupyter.oidc.private_key import PrivateKey


# For a browser that is slow to fetch the last page; nearly all fetch it immediately.
LINGER_SECONDS = 10.0
# After the person: discovery, token and keys of ten seconds each, and the wait for the token file's lock.
COMPLETION_SECONDS = 90.0

_WAIT_SLICE_SECONDS = 0.2

_log = logging.getLogger(__name__)


class ProviderOptions(TypedDict, total=False):
    """Options that other calls pass on to the constructor of `OidcAuthProvider`, which describes them."""

    private_key: PrivateKey | None
    bearer: Bearer
    http: ProviderCalls | None
    clock: Clock


class LoginOptions(ProviderOptions, total=False):
    """Options that `login` passes on to `begin_login`, which describes them."""

    timeout_seconds: float | None
    authorize_params: Mapping[str, str] | None
    store: TokenStore | None
    resource: str | None
    randomness: Randomness


class OidcAuthProvider(SessionSource):
    """A user's sign-in to one OpenID provider; provides a valid bearer token on each call.

    With a store it follows that store: a logout or a newer login by another program counts here too, and among all
    programs that share it a token is refreshed once. Safe to use from several threads.

    Args:
        issuer: The provider, exactly as its discovery document names it.
        client_id: The application.
        client_secret: Its secret, for providers that require one; never stored.
        token_file: Where the sign-in is stored; with neither this nor `store` it is kept in memory.
        token: Tokens in the form of the token file; None loads those in the store.
        audience: What was requested when signing in.
        scope: What was requested when signing in.
        private_key: Authenticates the application in place of a secret.
        store: Where the sign-in is stored, in place of a token file.
        bearer: Which token the server expects.
        resource: What was requested in place of an audience (RFC 8707).
        http: Makes the calls; an own `ProviderHttp` when None.
        clock: Tells the time.
        randomness: Draws what must not be guessed.

    Raises:
        ConfigurationError: The issuer is not an https URL, or http on loopback.
        UsageError: Both a store and a token file, or both a secret and a private key were given.
        LoginRequired: `token` cannot be read or belongs to another provider or application.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - upstream's arguments
        self,
        issuer: str,
        client_id: str,
        client_secret: str | Secret | None = None,
        token_file: str | os.PathLike[str] | None = None,
        token: Mapping[str, object] | None = None,
        audience: str | None = None,
        scope: str | None = None,
        *,
        private_key: PrivateKey | None = None,
        store: TokenStore | None = None,
        bearer: Bearer = Bearer.ID_TOKEN,
        resource: str | None = None,
        http: ProviderCalls | None = None,
        clock: Clock = SYSTEM_CLOCK,
        randomness: Randomness = SYSTEM_RANDOMNESS,
    ) -> None:
        # Or a traceback would show them.
        client_secret, token = hidden_secret(client_secret), None if token is None else SecretObject(token)
        credential = client_credential(client_secret, private_key)
        connection = ProviderConnection(issuer, client_id, credential, http=http, clock=clock, randomness=randomness)
        key = LoginKey(issuer=issuer, client_id=client_id, audience=audience, scope=scope, resource=resource)
        store = _one_store(token_file, store)
        super().__init__(lambda: connection, store, key=key, bearer=Bearer(bearer), clock=clock)
        if token is not None:
            self._begin(session_of(parse_token(token), issuer=issuer, client_id=client_id))

    @classmethod
    def _from_tokens(cls, tokens: TokenSet, request: LoginRequest, *, check: Callable[[], None]) -> Self:
        """Keep what a sign-in brought, in the store if there is one, unless `check` raises just before that."""
        connection, provider = request.connection, cls.__new__(cls)
        SessionSource.__init__(
            provider,
            lambda: connection,
            request.store,
            key=request.key,
            bearer=request.bearer,
            clock=connection.clock,
        )
        provider._begin(session_of(tokens, issuer=connection.issuer, client_id=connection.client_id))  # noqa: SLF001 - own class
        if provider.store is not None:
            provider._keep(check=check)  # noqa: SLF001 - own class
        return provider

    @classmethod
    def login(  # noqa: PLR0913, PLR0917 - upstream's arguments
        cls,
        issuer: str,
        client_id: str,
        client_secret: str | Secret | None = None,
        token_file: str | os.PathLike[str] | None = None,
        redirect_uri: str | None = None,
        audience: str | None = None,
        scope: str | None = None,
        *,
        browser: Browser = SYSTEM_BROWSER,
        announce: Callable[[str], None] | None = None,
        **options: Unpack[LoginOptions],
    ) -> OidcAuthProvider:
        """Sign in with the user's browser and wait for it; stored if there is a store.

        Takes the arguments of `begin_login`, and a `browser` that opens the page. `announce` gets the address to open
        whether or not a browser seems to have opened, for an open one may be out of sight; without it the address goes
        to standard error when no browser opens.

        Raises:
            MicromegasError: What `begin_login` and `PendingLogin.result` raise.
        """
        client_secret = hidden_secret(client_secret)  # or a traceback would show it
        pending = cls.begin_login(
            issuer, client_id, client_secret, token_file, redirect_uri, audience, scope, flow=Flow.BROWSER, **options
        )
        start_url = pending.start_url or ""
        try:
            if announce is not None:
                announce(start_url)
            if not browser.open(start_url) and announce is None:
                sys.stderr.write(f"Open this address in a browser on this machine to sign in: {start_url}\n")
            return pending.result()
        finally:
            pending.cancel()
            pending.wait_closed(LINGER_SECONDS + 1)  # or the program exits before the user has seen the last page

    @classmethod
    def begin_login(  # noqa: D417, PLR0913, PLR0917 - upstream's arguments
        cls,
        issuer: str,
        client_id: str,
        client_secret: str | Secret | None = None,
        token_file: str | os.PathLike[str] | None = None,
        redirect_uri: str | None = None,
        audience: str | None = None,
        scope: str | None = None,
        *,
        flow: Flow = Flow.BROWSER,
        timeout_seconds: float | None = None,
        authorize_params: Mapping[str, str] | None = None,
        store: TokenStore | None = None,
        resource: str | None = None,
        redirects: RedirectLogins | None = None,
        hub: HubService | None = None,
        private_key: PrivateKey | None = None,
        bearer: Bearer = Bearer.ID_TOKEN,
        http: ProviderCalls | None = None,
        clock: Clock = SYSTEM_CLOCK,
        randomness: Randomness = SYSTEM_RANDOMNESS,
    ) -> PendingLogin:
        """Start a sign-in in the background; returns as soon as there is something to show to the user.

        The constructor describes the arguments that are not described here.

        Args:
            redirect_uri: A loopback address registered with the provider; None means any free port on 127.0.0.1 in the
                browser flow, and `http://127.0.0.1:48080/callback` in the paste flow, which needs no listener.
            scope: The scopes to request; None means `openid email profile offline_access`.
            flow: The sign-in flow: browser, device, or paste; redirect with a Hub or a Jupyter server.
            timeout_seconds: How long to wait for the user; None means five minutes in the browser flow, ten in the
                paste and the redirect flow, and as long as the code lives in the device flow.
            authorize_params: Further parameters of the authorization request (Google: `access_type=offline`).
            redirects: Receives the requests of a Jupyter server, if the kernel has one.
            hub: The service of a Hub that has one redirect for all; preferred to a Jupyter server.

        Raises:
            ConfigurationError: The issuer is not an https URL, or http on loopback.
            UsageError: The redirect URI is not on loopback, scope or parameters are malformed, arguments exclude
                each other, or the flow cannot be carried out here.
            TokenStoreError: The sign-in could not be stored.
            ProviderUnavailable: The provider doesn't respond.
            ProviderMisbehaved: The provider's description is not acceptable, or it offers no such flow.
            LoginFailed: The fixed port is in use, or the provider rejects the application.
        """
        client_secret = hidden_secret(client_secret)  # or a traceback would show it
        from micromegas_jupyter.auth.flows.base import LoginRequest  # a user who is signed in needs no flow

        request = LoginRequest(
            connection=ProviderConnection(
                issuer,
                client_id,
                client_credential(client_secret, private_key),
                http=http,
                clock=clock,
                randomness=randomness,
            ),
            store=_one_store(token_file, store),
            bearer=Bearer(bearer),
            scope=scope or DEFAULT_SCOPE,
            audience=audience,
            resource=resource,
            redirect_uri=redirect_uri,
            authorize_params=authorize_params or {},
            timeout_seconds=timeout_seconds,
        )
        return begin_login(request, Flow(flow), redirects=redirects, hub=hub, provider_type=cls)

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], client_secret: str | Secret | None = None, **options: Unpack[ProviderOptions]
    ) -> OidcAuthProvider:
        """Load a sign-in from a file; takes the options of the constructor, and raises as `from_store` does."""
        client_secret = hidden_secret(client_secret)  # or a traceback would show it
        return cls.from_store(FileTokenStore(path), client_secret, **options)

    @classmethod
    def from_store(
        cls, store: TokenStore, client_secret: str | Secret | None = None, **options: Unpack[ProviderOptions]
    ) -> OidcAuthProvider:
        """Load a stored sign-in, without calling the provider; takes the options of the constructor.

        Raises:
            LoginRequired: Nothing is stored, or what is there is damaged.
            TokenStoreError: The store cannot be used safely.
            ConfigurationError: The stored issuer is not acceptable.
        """
        client_secret = hidden_secret(client_secret)  # or a traceback would show it
        clock = options.get("clock", SYSTEM_CLOCK)
        credential = client_credential(client_secret, options.get("private_key"))
        connect = partial(ProviderConnection, client_credential=credential, http=options.get("http"), clock=clock)
        bearer = options.get("bearer", Bearer.ID_TOKEN)
        return open_stored_login(store, connect, bearer=bearer, clock=clock, provider_type=cls)

    @property
    def scope(self) -> str:
        """The scope that was requested when signing in; the default if that is unknown."""
        return self._scope or DEFAULT_SCOPE

    @property
    def token_file(self) -> Path | None:
        """The file that the sign-in is stored in; None for one in memory or in a keyring."""
        return self.store.path if isinstance(self.store, FileTokenStore) else None

    def get_token(self, *, bearer: Bearer | Literal["id_token", "access_token"] | None = None) -> str:
        """Return a token that is valid now; costs one look at the store unless it is time to refresh.

        Args:
            bearer: Which token the server expects; None means the one that this provider was made for.

        Raises:
            LoginRequired: The user isn't signed in, or the sign-in has expired.
            TokenStoreError: The store cannot be used safely.
            LoginFailed: The provider rejects the application.
            Unavailable: A refresh is needed and not possible now (`ProviderUnavailable`: the provider is down).
            ProviderMisbehaved: The provider's response breaks the protocol or is for another user.
        """
        return self._valid_token(None if bearer is None else Bearer(bearer)).reveal()

    def identity(self) -> Identity:
        """Return who is signed in, without calling the provider.

        Raises:
            LoginRequired: The user isn't signed in, or the tokens don't identify the user.
            TokenStoreError: The store cannot be used safely.
        """
        return identity_of_session(self._current(), issuer=self.issuer, bearer=self.bearer)

    def save(self) -> None:
        """Store the sign-in; without a store, in upstream's default `~/.micromegas/tokens.json`.

        Raises:
            LoginRequired: The user isn't signed in.
            TokenStoreError: It cannot be stored safely.
            Unavailable: Another program holds the store's lock.
        """
        if self.store is None:
            self.store = FileTokenStore(Path.home() / ".micromegas" / "tokens.json")
        self._keep()

    def logout(self, *, end_session: bool = False, browser: Browser = SYSTEM_BROWSER) -> LogoutReport:
        """End the sign-in for all programs that share the store, and have the provider revoke its tokens.

        Args:
            end_session: Whether to also end the user's session with the provider, on a page that `browser` opens.
            browser: Opens that page.

        Raises:
            TokenStoreError: The sign-in cannot be removed.
            Unavailable: Another program holds the store's lock.
        """
        from micromegas_jupyter.auth.logout import end_login

        session, files_removed = self._end()
        shown_by = browser if end_session else None
        return end_login(session, files_removed, self._connection, clock=self._clock, browser=shown_by)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(issuer={self.issuer!r}, client_id={self.client_id!r}, token=***)"


class PendingLogin:
    """A sign-in that was begun by `OidcAuthProvider.begin_login` and runs in the background.

    Safe to use from several threads. Its lock covers the outcome and the callbacks, and is free while they run.
    """

    def __init__(
        self, request: LoginRequest, running: LoginFlow, *, was_stored: bool, provider_type: type[OidcAuthProvider]
    ) -> None:
        self._request = request
        self._provider_type = provider_type
        self._running = running
        self._was_stored = was_stored
        self._unkept: TokenSet | None = None
        self._lock = threading.Lock()
        self._outcome: OidcAuthProvider | MicromegasError | None = None
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
        """The code that the user enters, or None for other flows than device."""
        return self._running.prompt.user_code

    @property
    def verification_uri(self) -> str | None:
        """The page to enter the code on, or None for other flows than device."""
        return self._running.prompt.verification_uri

    @property
    def verification_uri_complete(self) -> str | None:
        """The same with the code in it, where the provider has that; show it, never open it automatically."""
        return self._running.prompt.verification_uri_complete

    @property
    def expires_at(self) -> datetime:
        """When the sign-in stops waiting for the user (aware UTC)."""
        return self._running.prompt.expires_at

    @property
    def done(self) -> bool:
        """Whether the sign-in has finished, successfully or not."""
        return self._settled.is_set()

    def result(self, timeout_seconds: float | None = None) -> OidcAuthProvider:
        """Wait for the end and return the provider.

        Args:
            timeout_seconds: How long to wait; None waits until the sign-in itself gives up.

        Raises:
            LoginTimedOut: The user didn't sign in within `timeout_seconds` (the sign-in continues) or in time.
            LoginRefused: The provider or the user denied the request.
            LoginFailed: The sign-in was canceled, or the provider didn't return a token.
            ProviderMisbehaved: The provider's response violates the protocol or belongs to another sign-in.
            ProviderUnavailable: The provider doesn't respond.
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
            raise LoginTimedOut("The sign-in isn't complete yet.", remedy="Finish it, or start another one.")
        if isinstance(outcome, MicromegasError):
            raise outcome.copy()  # several cells may wait for one sign-in
        return outcome

    def on_done(self, callback: Callable[[Self], None]) -> None:
        """Call `callback` once, on the sign-in's thread, when the sign-in is done, or now if it already is."""
        with self._lock:
            if self._outcome is None:
                self._callbacks.append(lambda: callback(self))
                return
        _call(lambda: callback(self))

    def on_started(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with the redirect URI when a browser is sent to the provider; in the redirect flow only.

        It is called on the thread that serves the Jupyter server, so it must not block.
        """
        self._running.on_started(lambda redirect_uri: _call(lambda: callback(redirect_uri)))

    def submit(self, text: str | Secret) -> None:
        """Submit the last address in the user's browser; for the paste flow only.

        The sign-in then continues, and `result` returns or raises. Nothing of the text is kept, shown or
        logged.

        Raises:
            UsageError: The address belongs to another sign-in (try again), or no address is expected now.
            ProviderMisbehaved: It is from another provider or malformed; it may be tried again.
        """
        text = Secret(text) if isinstance(text, str) else text  # or a traceback would show it
        self._running.submit(text)

    def cancel(self) -> None:
        """End the sign-in, which then is never kept; without effect once it is. Safe to call twice."""
        with self._lock:
            self._is_cancelled = True
        self._running.stop()

    def wait_closed(self, timeout_seconds: float) -> bool:
        """Wait until the user has seen the last page and all is closed; return whether that happened in time."""
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def __repr__(self) -> str:
        return f"PendingLogin(done={self.done}, expires_at={self.expires_at.isoformat()})"

    def _work(self) -> None:
        try:
            outcome = self._run()
            self._running.show(_shown_outcome(outcome))
            with self._lock:
                self._outcome = outcome
                callbacks, self._callbacks = self._callbacks, []
            self._settled.set()
            for callback in callbacks:
                _call(callback)
            if self._unkept is not None:
                tokens, self._unkept = self._unkept, None
                _call(lambda: discard_tokens(tokens, self._request.store, self._request.connection))
            self._running.close(linger_seconds=LINGER_SECONDS)
        finally:
            self._running.close()

    def _run(self) -> OidcAuthProvider | MicromegasError:
        try:
            tokens = self._running.tokens()
            if tokens is None:
                self._check_not_cancelled()
                return LoginTimedOut(f"Nobody signed in within {self._running.prompt.timeout_seconds:g} seconds.")
            try:
                self._check_not_cancelled()
                return self._provider_type._from_tokens(tokens, self._request, check=self._check_wanted)  # noqa: SLF001 - same module
            except MicromegasError:
                self._unkept = tokens
                raise
        except MicromegasError as error:
            return error
        except Exception:  # noqa: BLE001 - a thread's end is its outcome: whoever waits must learn of it
            _log.exception("A sign-in failed unexpectedly.")
            return InternalError("The sign-in failed because of a bug in this program.")

    def _check_wanted(self) -> None:
        """Raise if the sign-in was cancelled or its user signed out elsewhere; called just before it is stored."""
        self._check_not_cancelled()
        # If nothing was stored at the beginning, a sign-out by another program leaves no trace.
        if self._was_stored and not _is_filled(self._request.store):
            raise LoginFailed("You signed out in the meantime, so this sign-in was not kept.")

    def _check_not_cancelled(self) -> None:
        with self._lock:
            if self._is_cancelled:
                raise LoginFailed("The sign-in was canceled.")


class CompletedLogin(PendingLogin):
    """A completed sign-in with a Hub's token, which needs no user."""

    def __init__(self, provider: HubTokenProvider, *, at: datetime) -> None:
        from micromegas_jupyter.auth.flows.base import LoginFlow, LoginPrompt

        self._running = LoginFlow(LoginPrompt(flow=Flow.HUB, timeout_seconds=0.0, expires_at=at))
        self._lock = threading.Lock()
        self._outcome = provider  # type: ignore[assignment]  # it gives tokens and says who signed in, as the other
        self._settled = threading.Event()
        self._settled.set()
        self.provider = provider

    def wait_closed(self, timeout_seconds: float) -> bool:  # noqa: ARG002 - nothing is open
        """Return immediately."""
        return True


def open_stored_login(
    store: TokenStore,
    connect: Callable[[str, str], ProviderConnection],
    *,
    bearer: Bearer,
    clock: Clock = SYSTEM_CLOCK,
    provider_type: type[OidcAuthProvider] = OidcAuthProvider,
) -> OidcAuthProvider:
    """Load a stored sign-in; `connect` gets issuer and client ID when a token is due. Raises as `from_store`."""
    key = store.load()[0].key
    as_issuer(key.issuer, "issuer")
    provider = provider_type.__new__(provider_type)
    SessionSource.__init__(
        provider, lambda: connect(key.issuer, key.client_id), store, key=key, bearer=Bearer(bearer), clock=clock
    )
    provider._current()  # noqa: SLF001 - own class
    return provider


def begin_login(
    request: LoginRequest,
    flow: Flow,
    *,
    redirects: RedirectLogins | None = None,
    hub: HubService | None = None,
    provider_type: type[OidcAuthProvider] = OidcAuthProvider,
) -> PendingLogin:
    """Start a sign-in; returns as soon as there is something to show. Raises as `OidcAuthProvider.begin_login`."""
    if request.store is not None:
        request.store.check_usable()
    was_stored = _is_filled(request.store)
    running = start_flow(flow, request, redirects=redirects, hub=hub)
    return PendingLogin(request, running, was_stored=was_stored, provider_type=provider_type)


def start_flow(
    flow: Flow, request: LoginRequest, *, redirects: RedirectLogins | None = None, hub: HubService | None = None
) -> LoginFlow:
    """Start a flow; returns as soon as there is something to show. For a redirect, `hub` goes before `redirects`."""
    match flow:
        case Flow.DEVICE:
            from micromegas_jupyter.auth.flows.device import DeviceFlow

            return DeviceFlow(request)
        case Flow.BROWSER:
            from micromegas_jupyter.auth.flows.loopback import LoopbackFlow

            return LoopbackFlow(request)
        case Flow.PASTE:
            from micromegas_jupyter.auth.flows.paste import PasteFlow

            return PasteFlow(request)
        case Flow.REDIRECT if hub is not None:
            from micromegas_jupyter.auth.flows.hub import HubRedirectFlow

            return HubRedirectFlow(request, hub)
        case Flow.REDIRECT if redirects is not None:
            return redirects.start(request)
    raise UsageError(f"The flow {flow.value!r} cannot be started here.", remedy="Use browser, device or paste.")


def discard_tokens(tokens: TokenSet, store: TokenStore | None, connection: ProviderConnection) -> None:
    """Revoke tokens that were not kept, as far as the provider does so within a logout's deadline.

    Some providers end everything that a person has given the application as soon as one of its tokens is revoked
    (Google). So while a sign-in is stored, the new tokens are only forgotten, which leaves nobody who has them.
    """
    from micromegas_jupyter.auth.logout import RevocationCalls

    try:
        if _is_filled(store):
            return
    except TokenStoreError:
        return  # it cannot be known
    problem = RevocationCalls(connection.clock).revoke(tokens, connection).problem
    if problem is not None:
        _log.warning("The tokens of a sign-in that was not kept could not be revoked.", extra={"problem": problem})


def _one_store(token_file: str | os.PathLike[str] | None, store: TokenStore | None) -> TokenStore | None:
    if token_file is None:
        return store
    if store is not None:
        raise UsageError("A sign-in can only be stored in one place.", remedy="Pass either `store` or `token_file`.")
    return FileTokenStore(token_file)


def _is_filled(store: TokenStore | None) -> bool:
    return store is not None and store.mark() is not None


def _call(callback: Callable[[], None]) -> None:
    try:
        callback()
    except Exception:  # noqa: BLE001 - one callback's defect must not cost the others
        _log.exception("A callback of a sign-in failed.")


def _shown_outcome(outcome: OidcAuthProvider | MicromegasError) -> LoginOutcome:
    from micromegas_jupyter.auth.flows.base import LoginOutcome

    if isinstance(outcome, MicromegasError):
        return LoginOutcome(is_signed_in=False, what=outcome.what, remedy=outcome.remedy)
    try:
        identity = outcome.identity()
    except MicromegasError:
        # The tokens don't identify the user, or the store has just been emptied.
        return LoginOutcome(is_signed_in=True)
    return LoginOutcome(is_signed_in=True, who=identity.name or identity.email or identity.subject)
