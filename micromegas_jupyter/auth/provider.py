"""`OidcAuthProvider`: a person's sign-in, from the first page to the logout.

Each flow lies in `flows`; the tokens are kept valid by `tokens.manager`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, Self, TypedDict, TypeVar, Unpack

from micromegas_jupyter.auth.flows.base import LINGER_SECONDS, LoginContext, LoginFlow, PendingSignIn, StoreWatch
from micromegas_jupyter.auth.provider_connection import LoginRequest, ProviderConnection, client_proof, hidden_secret
from micromegas_jupyter.auth.tokens.manager import Identity, TokenManager, identity_of_session, session_of
from micromegas_jupyter.auth.tokens.store import FileTokenStore, LoginKey, TokenStore, build_token, parse_token
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
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.oidc.authorization import TokenSet, complete_scope

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from micromegas_jupyter.auth.flows.hub import HubService
    from micromegas_jupyter.auth.flows.jupyter import RedirectLogins
    from micromegas_jupyter.auth.logout import LogoutReport
    from micromegas_jupyter.core.http import ProviderCalls
    from micromegas_jupyter.oidc.private_key import PrivateKey


P = TypeVar("P")


class StoredOptions(TypedDict, total=False):
    """What `from_file` and `from_store` pass on to the constructor, which describes it."""

    private_key: PrivateKey | None
    bearer: Bearer
    http: ProviderCalls | None
    clock: Clock


class LoginOptions(StoredOptions, total=False):
    """What `login` passes on to `begin_login`, which describes it."""

    timeout_seconds: float | None
    authorize_params: Mapping[str, str]
    store: TokenStore | None
    resource: str | None
    randomness: Randomness


class OidcAuthProvider:
    """A person's sign-in at one OpenID provider; gives a valid bearer token each time it is asked.

    With a store it follows that store: a logout or a newer login by another program counts here too, and among all
    programs that share it a token is refreshed once. Safe to use from several threads.

    Args:
        issuer: The provider, exactly as its discovery document names it.
        client_id: The application.
        client_secret: Its secret, for providers that require one; never stored.
        token_file: Where the sign-in is stored; with neither this nor `store` it is kept in memory.
        token: Tokens as they stand in the token file; None takes what the store holds.
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
        self.issuer = issuer
        self.client_id = client_id
        self.audience = audience
        self.bearer = Bearer(bearer)
        self._clock = clock
        proof = client_proof(client_secret, private_key)
        self._connection = ProviderConnection(issuer, client_id, proof, http=http, clock=clock, randomness=randomness)
        session = None
        if token is not None:
            session = session_of(parse_token(token), issuer=issuer, client_id=client_id)
        key = LoginKey(issuer=issuer, client_id=client_id, audience=audience, scope=scope, resource=resource)
        self._manager = TokenManager(
            self._connection,
            token_store(store, token_file),
            session=session,
            key=key,
            clock=clock,
        )

    @classmethod
    def login(  # noqa: PLR0913, PLR0917 - upstream's arguments and the dependencies
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
        """Sign in with the person's browser and wait for it; stored if there is a store.

        Takes the arguments of `begin_login`, and a `browser` that opens the page. `announce` gets the address to open
        whether or not a browser seems to have opened, for an open one may be out of sight; without it the address goes
        to standard error when no browser opens.

        Raises:
            MicromegasError: What `begin_login` and `PendingLogin.result` raise.
        """
        client_secret = hidden_secret(client_secret)  # or a traceback would show it
        pending = cls.begin_login(
            issuer,
            client_id,
            client_secret,
            token_file,
            redirect_uri,
            audience,
            scope,
            flow=Flow.BROWSER,
            **options,
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
            pending.wait_closed(LINGER_SECONDS + 1)  # or the program ends before the person has seen the last page

    @classmethod
    def begin_login(  # noqa: PLR0913, PLR0917 - upstream's arguments and the dependencies
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
        private_key: PrivateKey | None = None,
        store: TokenStore | None = None,
        bearer: Bearer = Bearer.ID_TOKEN,
        resource: str | None = None,
        http: ProviderCalls | None = None,
        redirects: RedirectLogins | None = None,
        hub: HubService | None = None,
        clock: Clock = SYSTEM_CLOCK,
        randomness: Randomness = SYSTEM_RANDOMNESS,
    ) -> PendingLogin:
        """Start a sign-in that runs in the background; returns as soon as there is something to show to the person.

        Args:
            issuer: The provider, exactly as its discovery document names it.
            client_id: The application.
            client_secret: Its secret, for providers that require one.
            token_file: Where the sign-in is stored; with neither this nor `store` it is kept in memory.
            redirect_uri: A loopback address registered at the provider; None means any free port on 127.0.0.1 in the
                browser flow, and `http://127.0.0.1:48080/callback` in the paste flow, where nobody listens.
            audience: Requested at providers that take it (Auth0).
            scope: What is requested; `openid email profile offline_access` when None.
            flow: How the person signs in: browser, device or paste; redirect where there is a Hub or a Jupyter server.
            timeout_seconds: How long to wait for the person; None means five minutes in the browser flow, ten in the
                paste and the redirect flow, and as long as the code lives in the device flow.
            authorize_params: Further parameters of the authorization request (Google: `access_type=offline`).
            private_key: Authenticates the application in place of a secret.
            store: Where the sign-in is stored, in place of a token file.
            bearer: Which token the server expects.
            resource: Requested in place of an audience (RFC 8707).
            http: Makes the calls; an own `ProviderHttp` when None.
            redirects: Where a Jupyter server's requests come in, in a kernel that has one.
            hub: The service of a Hub that has one redirect for all; preferred to a Jupyter server.
            clock: Tells the time.
            randomness: Draws state, nonce and verifier.

        Raises:
            ConfigurationError: The issuer is not an https URL, or http on loopback.
            UsageError: The redirect URI is not on loopback, scope or parameters are malformed, arguments exclude
                each other, or the flow cannot be carried out here.
            TokenStoreError: The sign-in could not be stored.
            ProviderUnavailable: The provider does not answer.
            ProviderMisbehaved: The provider's description is not acceptable, or it offers no such flow.
            LoginFailed: The fixed port is taken, or the provider refuses the application.
        """
        client_secret = hidden_secret(client_secret)  # or a traceback would show it
        store = token_store(store, token_file)
        proof = client_proof(client_secret, private_key)
        request = LoginRequest(
            scope=complete_scope(scope or DEFAULT_SCOPE),
            audience=audience,
            resource=resource,
            redirect_uri=redirect_uri,
            authorize_params=authorize_params or {},
            timeout_seconds=timeout_seconds,
            bearer=Bearer(bearer),
        )
        if store is not None:
            store.check_usable()
        connection = ProviderConnection(issuer, client_id, proof, http=http, clock=clock, randomness=randomness)
        store_watch = StoreWatch(store)

        def keep(tokens: TokenSet, check_not_cancelled: Callable[[], None]) -> OidcAuthProvider:
            def check_wanted() -> None:
                check_not_cancelled()
                store_watch.check_not_emptied()

            provider = cls(
                issuer,
                client_id,
                client_secret,
                token=build_token(tokens),
                audience=audience,
                scope=request.scope,
                private_key=private_key,
                store=store,
                bearer=request.bearer,
                resource=resource,
                http=http,
                clock=clock,
                randomness=randomness,
            )
            provider._connection = provider._manager.connection = connection  # it has measured the provider's clock
            if store is not None:
                provider._manager.save(check=check_wanted)
            return provider

        context = LoginContext(request=request, connection=connection, clock=clock, randomness=randomness)
        running = start_flow(Flow(flow), context, redirects=redirects, hub=hub)
        return PendingLogin(running, keep, discard=lambda tokens: store_watch.discard(tokens, connection, clock=clock))

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        client_secret: str | Secret | None = None,
        **options: Unpack[StoredOptions],
    ) -> OidcAuthProvider:
        """Load a sign-in from a file; takes the options of the constructor, and raises as `from_store` does."""
        client_secret = hidden_secret(client_secret)  # or a traceback would show it
        return cls.from_store(FileTokenStore(path), client_secret, **options)

    @classmethod
    def from_store(
        cls, store: TokenStore, client_secret: str | Secret | None = None, **options: Unpack[StoredOptions]
    ) -> OidcAuthProvider:
        """Load a stored sign-in, without calling the provider; takes the options of the constructor.

        Raises:
            LoginRequired: Nothing is stored, or what is there is damaged.
            TokenStoreError: The store cannot be used safely.
            ConfigurationError: The stored issuer is not acceptable.
        """
        client_secret = hidden_secret(client_secret)  # or a traceback would show it
        key = store.load()[0].key
        provider = cls(
            key.issuer,
            key.client_id,
            client_secret,
            audience=key.audience,
            scope=key.scope,
            store=store,
            resource=key.resource,
            **options,
        )
        provider._manager.current()
        return provider

    @property
    def scope(self) -> str:
        """What was requested when signing in; the default when that is not known."""
        return self._manager.scope or DEFAULT_SCOPE

    @property
    def store(self) -> TokenStore | None:
        """Where the sign-in is stored; None for one in memory."""
        return self._manager.store

    @property
    def token_file(self) -> Path | None:
        """The file that the sign-in is stored in; None for one in memory or in a keyring."""
        return self._manager.store.path if isinstance(self._manager.store, FileTokenStore) else None

    @property
    def clock_offset_seconds(self) -> float:
        """How far the provider's clock is ahead of this machine's, as far as that was measured."""
        return self._connection.clock_offset_seconds

    def get_token(self, *, bearer: Bearer | Literal["id_token", "access_token"] | None = None) -> str:
        """Return a token that is valid now; costs one look at the store unless it is time to refresh.

        Args:
            bearer: Which token the server expects; None means the one that this provider was made for.

        Raises:
            LoginRequired: Nobody is signed in, or the sign-in has ended.
            TokenStoreError: The store cannot be used safely.
            LoginFailed: The provider does not accept the application.
            Unavailable: A refresh is needed and not possible now (`ProviderUnavailable`: the provider is down).
            ProviderMisbehaved: The provider's answer breaks the protocol or is for somebody else.
        """
        return self._manager.token(self.bearer if bearer is None else Bearer(bearer)).reveal()

    def renew(self) -> None:
        """Refresh the token now, however fresh it is; does nothing without a refresh token.

        Raises:
            LoginRequired: Nobody is signed in, or the provider has ended the sign-in; the token may still be valid.
            MicromegasError: What `get_token` raises, also while the token is still valid.
        """
        self._manager.renew(self.bearer)

    def invalidate(self, token: str) -> None:
        """Have the next `get_token` refresh, because a server did not accept `token`; older tokens change nothing."""
        self._manager.invalidate(Secret(token))

    def renewal_due_at(self) -> datetime | None:
        """Return when the token should be refreshed (aware UTC); None when it cannot or need not be."""
        return self._manager.renewal_due_at(self.bearer)

    def identity(self) -> Identity:
        """Return who is signed in, without calling the provider.

        Raises:
            LoginRequired: Nobody is signed in, or the tokens say nothing about their person.
            TokenStoreError: The store cannot be used safely.
        """
        return identity_of_session(self._manager.current(), issuer=self.issuer, bearer=self.bearer)

    def save(self) -> None:
        """Store the sign-in; without a store, in upstream's default `~/.micromegas/tokens.json`.

        Raises:
            LoginRequired: Nobody is signed in.
            TokenStoreError: It cannot be stored safely.
            Unavailable: Another program holds the store's lock.
        """
        if self._manager.store is None:
            self._manager.store = FileTokenStore(Path.home() / ".micromegas" / "tokens.json")
        self._manager.save()

    def logout(self, *, end_session: bool = False, browser: Browser = SYSTEM_BROWSER) -> LogoutReport:
        """End the sign-in for all programs that share the store, and have the provider revoke its tokens.

        Args:
            end_session: Whether to end the person's session at the provider, too, on a page that `browser` shows.
            browser: Opens that page.

        Raises:
            TokenStoreError: The sign-in cannot be removed.
            Unavailable: Another program holds the store's lock.
        """
        from micromegas_jupyter.auth.logout import end_login

        return end_login(self._manager, self._connection, clock=self._clock, browser=browser if end_session else None)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(issuer={self.issuer!r}, client_id={self.client_id!r}, token=***)"

    def __reduce__(self) -> str:
        raise TypeError("a sign-in cannot be pickled")


class PendingLogin(PendingSignIn[OidcAuthProvider]):
    """A sign-in that was begun by `OidcAuthProvider.begin_login` and runs in the background."""


class CompletedLogin(Generic[P]):
    """A sign-in that needed nobody, with the interface of a pending one.

    Args:
        provider: The provider that it gave.
        flow: The flow.
        at: When (aware UTC).
    """

    start_url: str | None = None
    user_code: str | None = None
    verification_uri: str | None = None
    verification_uri_complete: str | None = None
    done = True

    def __init__(self, provider: P, *, flow: Flow, at: datetime) -> None:
        self._provider = provider
        self.flow = flow
        self.expires_at = at

    def result(self, timeout_seconds: float | None = None) -> P:  # noqa: ARG002 - there is nothing to wait for
        """Return the provider."""
        return self._provider

    def on_done(self, callback: Callable[[Self], None]) -> None:
        """Call `callback` at once."""
        callback(self)

    def on_started(self, callback: Callable[[str], None]) -> None:
        """Do nothing: no browser is sent anywhere."""

    def submit(self, text: str | Secret) -> None:  # noqa: ARG002 - nothing is accepted
        """Refuse.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            "This sign-in does not wait for a pasted address.", remedy="Start one with the flow `paste` for that."
        )

    def cancel(self) -> None:
        """Do nothing: it has ended."""

    def wait_closed(self, timeout_seconds: float) -> bool:  # noqa: ARG002 - nothing is open
        """Return at once."""
        return True


def token_store(store: TokenStore | None, token_file: str | os.PathLike[str] | None) -> TokenStore | None:
    """Return the place that a caller named; None keeps a sign-in in memory.

    Raises:
        UsageError: Both were given.
    """
    if store is not None and token_file is not None:
        raise UsageError("A sign-in is kept in one place.", remedy="Give `store` or `token_file`, not both.")
    return FileTokenStore(token_file) if token_file is not None else store


def start_flow(
    flow: Flow, context: LoginContext, *, redirects: RedirectLogins | None = None, hub: HubService | None = None
) -> LoginFlow:
    """Start a flow; returns as soon as there is something to show to the person.

    A redirect needs `redirects`, where a Jupyter server's requests come in, or `hub`, the service of a Hub that has one
    redirect for all; the Hub goes first.
    """
    match flow:
        case Flow.DEVICE:
            from micromegas_jupyter.auth.flows.device import start_device

            return start_device(context)
        case Flow.BROWSER:
            from micromegas_jupyter.auth.flows.loopback import start_loopback

            return start_loopback(context)
        case Flow.PASTE:
            from micromegas_jupyter.auth.flows.paste import start_paste

            return start_paste(context)
        case Flow.REDIRECT if hub is not None:
            from micromegas_jupyter.auth.flows.hub import start_hub_redirect

            return start_hub_redirect(context, hub)
        case Flow.REDIRECT if redirects is not None:
            return redirects.start(context)
    raise UsageError(f"The flow {flow.value!r} cannot be started here.", remedy="Use browser, device or paste.")
