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


# Gives a slow browser time to fetch the last page; nearly all fetch it immediately.
LINGER_SECONDS = 10.0
# After the user has signed in: ten seconds each for discovery, token, and keys, plus the wait for the token file's
# lock.
COMPLETION_SECONDS = 90.0

_WAIT_SLICE_SECONDS = 0.2

_log = logging.getLogger(__name__)


class ProviderOptions(TypedDict, total=False):
    """Options that other calls pass to the constructor of `OidcAuthProvider`, which describes them."""

    private_key: PrivateKey | None
    bearer: Bearer
    http: ProviderCalls | None
    clock: Clock


class LoginOptions(ProviderOptions, total=False):
    """Options that `login` passes to `begin_login`, which describes them."""

    timeout_seconds: float | None
    authorize_params: Mapping[str, str] | None
    store: TokenStore | None
    resource: str | None
    randomness: Randomness


class OidcAuthProvider(SessionSource):
    """A user's sign-in with an OpenID provider; returns a valid bearer token on each call.

    With a store, it follows that store: a logout or a newer sign-in by another program takes effect here, too, and
    each token is refreshed only once among all programs that share the store. Safe to use from several threads.

    Args:
        issuer: The provider's issuer URL, exactly as in its discovery document.
        client_id: The application's client ID.
        client_secret: The application's secret, if the provider requires one; never stored.
        token_file: The file that stores the sign-in. Without this and `store`, the sign-in is kept in memory.
        token: Tokens in the token file's format; None loads them from the store.
        audience: The audience that was requested when signing in.
        scope: The scope that was requested when signing in.
        private_key: Authenticates the application instead of a secret.
        store: Stores the sign-in instead of a token file.
        bearer: The kind of token that the server expects.
        resource: The resource that was requested instead of an audience (RFC 8707).
        http: Makes the HTTP calls. None creates a new `ProviderHttp`.
        clock: The source of the current time.
        randomness: The source of unguessable values.

    Raises:
        ConfigurationError: The issuer is neither an https URL nor http on loopback.
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
        # Keeps them out of tracebacks.
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
        """Keep a sign-in's tokens, in the store if there is one, unless `check` raises immediately before that."""
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
        """Sign in with the user's browser, wait for the result, and store it if there is a store.

        Takes the arguments of `begin_login` and a `browser` that opens the page. `announce` always receives the
        address to open, because a browser may have opened out of sight. Without `announce`, the address is printed to
        standard error if no browser opens.

        Raises:
            MicromegasError: As raised by `begin_login` and `PendingLogin.result`.
        """
        client_secret = hidden_secret(client_secret)  # keeps it out of tracebacks
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
            pending.wait_closed(LINGER_SECONDS + 1)  # let the user see the last page before the program exits

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

        The constructor describes the other arguments.

        Args:
            redirect_uri: A loopback address registered with the provider. None means any free port on 127.0.0.1 in the
                browser flow, and `http://127.0.0.1:48080/callback`, on which nothing listens, in the paste flow.
            scope: The scope to request; None means `openid email profile offline_access`.
            flow: How the user signs in: browser, device, or paste; or redirect with a Hub or a Jupyter server.
            timeout_seconds: How long to wait for the user. None means five minutes in the browser flow, ten in the
                paste and redirect flows, and the code's lifetime in the device flow.
            authorize_params: Additional parameters of the authorization request (Google: `access_type=offline`).
            redirects: The handler of the Jupyter server's requests, in a kernel that has one.
            hub: The service of a Hub with a shared redirect; preferred to a Jupyter server.

        Raises:
            ConfigurationError: The issuer is neither an https URL nor http on loopback.
            UsageError: The redirect URI is not on loopback, scope or parameters are malformed, arguments are mutually
                exclusive, or the flow is not available here.
            TokenStoreError: The sign-in could not be stored.
            ProviderUnavailable: The provider does not respond.
            ProviderMisbehaved: The provider's metadata is invalid, or the provider does not support the flow.
            LoginFailed: The fixed port is in use, or the provider rejects the application.
        """
        client_secret = hidden_secret(client_secret)  # keeps it out of tracebacks
        from micromegas_jupyter.auth.flows.base import LoginRequest  # a user who is already signed in needs no flow

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
        """Load a sign-in from a file. Takes the options of the constructor and raises the errors of `from_store`."""
        client_secret = hidden_secret(client_secret)  # keeps it out of tracebacks
        return cls.from_store(FileTokenStore(path), client_secret, **options)

    @classmethod
    def from_store(
        cls, store: TokenStore, client_secret: str | Secret | None = None, **options: Unpack[ProviderOptions]
    ) -> OidcAuthProvider:
        """Load a stored sign-in without calling the provider; takes the options of the constructor.

        Raises:
            LoginRequired: No sign-in is stored, or it is damaged.
            TokenStoreError: The store cannot be used safely.
            ConfigurationError: The stored issuer is invalid.
        """
        client_secret = hidden_secret(client_secret)  # keeps it out of tracebacks
        clock = options.get("clock", SYSTEM_CLOCK)
        credential = client_credential(client_secret, options.get("private_key"))
        connect = partial(ProviderConnection, client_credential=credential, http=options.get("http"), clock=clock)
        bearer = options.get("bearer", Bearer.ID_TOKEN)
        return open_stored_login(store, connect, bearer=bearer, clock=clock, provider_type=cls)

    @property
    def scope(self) -> str:
        """The scope that was requested when signing in, or the default if unknown."""
        return self._scope or DEFAULT_SCOPE

    @property
    def token_file(self) -> Path | None:
        """The file that stores the sign-in, or None if it is in memory or in a keyring."""
        return self.store.path if isinstance(self.store, FileTokenStore) else None

    def get_token(self, *, bearer: Bearer | Literal["id_token", "access_token"] | None = None) -> str:
        """Return a currently valid token; costs one check of the store unless it is time to refresh.

        Args:
            bearer: The kind of token that the server expects; None means the provider's default.

        Raises:
            LoginRequired: No user is signed in, or the sign-in has expired.
            TokenStoreError: The store cannot be used safely.
            LoginFailed: The provider rejects the application.
            Unavailable: A refresh is needed but currently not possible (`ProviderUnavailable`: the provider is down).
            ProviderMisbehaved: The provider's response breaks the protocol or is for another user.
        """
        return self._valid_token(None if bearer is None else Bearer(bearer)).reveal()

    def identity(self) -> Identity:
        """Return who is signed in, without calling the provider.

        Raises:
            LoginRequired: No user is signed in, or the tokens don't identify the user.
            TokenStoreError: The store cannot be used safely.
        """
        return identity_of_session(self._current(), issuer=self.issuer, bearer=self.bearer)

    def save(self) -> None:
        """Store the sign-in, in upstream's default `~/.micromegas/tokens.json` if there is no store.

        Raises:
            LoginRequired: No user is signed in.
            TokenStoreError: The sign-in cannot be stored safely.
            Unavailable: Another program holds the store's lock.
        """
        if self.store is None:
            self.store = FileTokenStore(Path.home() / ".micromegas" / "tokens.json")
        self._keep()

    def logout(self, *, end_session: bool = False, browser: Browser = SYSTEM_BROWSER) -> LogoutReport:
        """End the sign-in for all programs that share the store, and revoke its tokens.

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
    """A sign-in that `OidcAuthProvider.begin_login` started and that runs in the background.

    Safe to use from several threads. Its lock guards the outcome and the callbacks, and isn't held while callbacks
    run.
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
        # Copies the caller's context, so that callbacks print to the caller's notebook cell.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._work,), name="micromegas-login", daemon=True)
        self._thread.start()

    @property
    def flow(self) -> Flow:
        """The flow that this sign-in uses."""
        return self._running.prompt.flow

    @property
    def start_url(self) -> str | None:
        """The address to open, or None for a device sign-in.

        In the browser flow, the address is on loopback. In the redirect flow, it is the Jupyter server's address, or a
        path if this process does not know the server's address. Neither contains a state or a challenge. In the paste
        flow, it is the provider's own page, so do not store it where others can read it.
        """
        return self._running.prompt.start_url

    @property
    def user_code(self) -> str | None:
        """The code that the user enters, or None for flows other than device."""
        return self._running.prompt.user_code

    @property
    def verification_uri(self) -> str | None:
        """The page to enter the code on, or None for flows other than device."""
        return self._running.prompt.verification_uri

    @property
    def verification_uri_complete(self) -> str | None:
        """The same page with the code filled in, if the provider has one. Show it, but never open it automatically."""
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
        """Wait for the sign-in to finish and return the provider.

        Args:
            timeout_seconds: How long to wait; None waits until the sign-in times out.

        Raises:
            LoginTimedOut: The user did not return in time, or not within `timeout_seconds` (the sign-in then
                continues).
            LoginRefused: The provider denied the sign-in, or the user canceled it there.
            LoginFailed: The sign-in was canceled, or the provider did not return a token.
            ProviderMisbehaved: The provider's response breaks the protocol or does not match this sign-in.
            ProviderUnavailable: The provider does not respond.
            TokenStoreError: The sign-in could not be stored.
        """
        longest = self._running.prompt.timeout_seconds + COMPLETION_SECONDS
        left_seconds = longest if timeout_seconds is None else timeout_seconds
        # Waits in slices, because a Ctrl-C just before a wait is noticed only when that wait ends.
        while not self._settled.wait(min(max(left_seconds, 0.0), _WAIT_SLICE_SECONDS)) and left_seconds > 0:
            left_seconds -= _WAIT_SLICE_SECONDS
        with self._lock:
            outcome = self._outcome
        if outcome is None:
            raise LoginTimedOut("The sign-in isn't complete yet.", remedy="Finish it, or start a new one.")
        if isinstance(outcome, MicromegasError):
            raise outcome.copy()  # several cells may wait for one sign-in
        return outcome

    def on_done(self, callback: Callable[[Self], None]) -> None:
        """Call `callback` once, on the sign-in's thread, when the sign-in finishes; immediately if it already has."""
        with self._lock:
            if self._outcome is None:
                self._callbacks.append(lambda: callback(self))
                return
        _call(lambda: callback(self))

    def on_started(self, callback: Callable[[str], None]) -> None:
        """Call `callback` with the redirect URI when a browser is sent to the provider; only used by the redirect flow.

        It is called on the thread that replies to the Jupyter server, so it must not wait.
        """
        self._running.on_started(lambda redirect_uri: _call(lambda: callback(redirect_uri)))

    def submit(self, text: str | Secret) -> None:
        """Submit the last address in the user's browser; for the paste flow only.

        The sign-in then continues, and `result` returns or raises. The input is never stored, shown, or logged.

        Raises:
            UsageError: The address isn't this sign-in's (the user may try again), or no address is expected any
                longer.
            ProviderMisbehaved: The address is malformed or from another provider; the user may try again.
        """
        text = Secret(text) if isinstance(text, str) else text  # keeps it out of tracebacks
        self._running.submit(text)

    def cancel(self) -> None:
        """Cancel the sign-in and discard its tokens; has no effect once the sign-in is complete. Safe to call twice."""
        with self._lock:
            self._is_cancelled = True
        self._running.stop()

    def wait_closed(self, timeout_seconds: float) -> bool:
        """Wait until the user has seen the last page and all resources are closed; return False on timeout."""
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
        except Exception:  # noqa: BLE001 - threads that wait for this sign-in must receive any error
            _log.exception("A sign-in failed unexpectedly.")
            return InternalError("The sign-in failed because of a bug in this program.")

    def _check_wanted(self) -> None:
        """Raise if the sign-in was canceled or its user signed out elsewhere; called just before it is stored."""
        self._check_not_cancelled()
        # If nothing was stored at the beginning, another program's sign-out can't be detected.
        if self._was_stored and not _is_filled(self._request.store):
            raise LoginFailed("You signed out in the meantime, so this sign-in was discarded.")

    def _check_not_cancelled(self) -> None:
        with self._lock:
            if self._is_cancelled:
                raise LoginFailed("The sign-in was canceled.")


class CompletedLogin(PendingLogin):
    """A completed sign-in with a Hub's token, which doesn't involve the user."""

    def __init__(self, provider: HubTokenProvider, *, at: datetime) -> None:
        from micromegas_jupyter.auth.flows.base import LoginFlow, LoginPrompt

        self._running = LoginFlow(LoginPrompt(flow=Flow.HUB, timeout_seconds=0.0, expires_at=at))
        self._lock = threading.Lock()
        self._outcome = provider  # type: ignore[assignment]  # provides tokens and identity, like the other
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
    """Load a stored sign-in; `connect` receives issuer and client ID when a token is due. Raises as `from_store`."""
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
    """Start a sign-in; returns when there is something to show. Raises as `OidcAuthProvider.begin_login`."""
    if request.store is not None:
        request.store.check_usable()
    was_stored = _is_filled(request.store)
    running = start_flow(flow, request, redirects=redirects, hub=hub)
    return PendingLogin(request, running, was_stored=was_stored, provider_type=provider_type)


def start_flow(
    flow: Flow, request: LoginRequest, *, redirects: RedirectLogins | None = None, hub: HubService | None = None
) -> LoginFlow:
    """Start a flow; returns as soon as there is something to show. For redirects, `hub` precedes `redirects`."""
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
    raise UsageError(f"The flow {flow.value!r} is not available here.", remedy="Use browser, device, or paste.")


def discard_tokens(tokens: TokenSet, store: TokenStore | None, connection: ProviderConnection) -> None:
    """Revoke discarded tokens, if the provider can do so within a logout's deadline.

    Some providers (Google) revoke all of a user's tokens for the application when one of them is revoked. So while a
    sign-in is stored, the new tokens are only discarded, and no copy of them remains.
    """
    from micromegas_jupyter.auth.logout import RevocationCalls

    try:
        if _is_filled(store):
            return
    except TokenStoreError:
        return  # this can't be determined
    problem = RevocationCalls(connection.clock).revoke(tokens, connection).problem
    if problem is not None:
        _log.warning("The tokens of a discarded sign-in could not be revoked.", extra={"problem": problem})


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
    except Exception:  # noqa: BLE001 - one failing callback must not affect the others
        _log.exception("A sign-in callback failed.")


def _shown_outcome(outcome: OidcAuthProvider | MicromegasError) -> LoginOutcome:
    from micromegas_jupyter.auth.flows.base import LoginOutcome

    if isinstance(outcome, MicromegasError):
        return LoginOutcome(is_signed_in=False, what=outcome.what, remedy=outcome.remedy)
    try:
        identity = outcome.identity()
    except MicromegasError:
        # The tokens don't identify the user, or the store was emptied in the meantime.
        return LoginOutcome(is_signed_in=True)
    return LoginOutcome(is_signed_in=True, who=identity.name or identity.email or identity.subject)
