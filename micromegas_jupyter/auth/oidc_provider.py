"""`OidcAuthProvider`: a person's sign-in, from the first page to the logout.

What it does once it exists is `kept_sign_in`'s; each way of signing in is started by `starting_login`.
"""

import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypedDict, Unpack

from micromegas_jupyter.auth.kept_sign_in import KeptSignIn
from micromegas_jupyter.auth.login_request import (
    NO_PARAMETERS,
    LoginRequest,
    client_proof,
    hidden_secret,
    sign_in_store,
)
from micromegas_jupyter.auth.pending_login import LINGER_SECONDS, PendingSignIn
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.sign_in_store import SignInStore
from micromegas_jupyter.auth.token_format import build_token
from micromegas_jupyter.auth.token_store import TokenStore
from micromegas_jupyter.config.client import DEFAULT_SCOPE, Bearer, Flow
from micromegas_jupyter.core.http import ProviderCalls
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.system import SYSTEM_BROWSER, SYSTEM_CLOCK, SYSTEM_RANDOMNESS, Browser, Clock, Randomness
from micromegas_jupyter.oidc.authorization import complete_scope
from micromegas_jupyter.oidc.private_key import PrivateKey
from micromegas_jupyter.oidc.tokens import TokenSet

if TYPE_CHECKING:
    from micromegas_jupyter.auth.hub_service import HubService
    from micromegas_jupyter.auth.redirect_desk import RedirectDesk


class LoginOptions(TypedDict, total=False):
    """What `login` hands on to `begin_login`, where it is described."""

    timeout_seconds: float | None
    authorize_params: Mapping[str, str]
    private_key: PrivateKey | None
    store: SignInStore | None
    bearer: Bearer
    resource: str | None
    http: ProviderCalls | None
    clock: Clock
    randomness: Randomness


class OidcAuthProvider(KeptSignIn):
    """A person's sign-in at one OpenID provider; gives a valid bearer token each time it is asked.

    The arguments, and what it does once somebody is signed in, are described at `KeptSignIn`.
    """

    @classmethod
    def login(  # noqa: PLR0913, PLR0917 - upstream's arguments and the seams
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
    ) -> "OidcAuthProvider":
        """Sign in with the person's browser and wait for it; kept when there is a place.

        Takes the arguments of `begin_login`, and a `browser` that opens the page. `announce` is told the address to
        open whether or not a browser seems to have opened, for an open one may be out of sight; without it the
        address goes to standard error when no browser opens.

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
    def begin_login(  # noqa: PLR0913, PLR0917 - upstream's arguments and the seams
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
        authorize_params: Mapping[str, str] = NO_PARAMETERS,
        private_key: PrivateKey | None = None,
        store: SignInStore | None = None,
        bearer: Bearer = Bearer.ID_TOKEN,
        resource: str | None = None,
        http: ProviderCalls | None = None,
        desk: "RedirectDesk | None" = None,
        hub: "HubService | None" = None,
        clock: Clock = SYSTEM_CLOCK,
        randomness: Randomness = SYSTEM_RANDOMNESS,
    ) -> "PendingLogin":
        """Start a sign-in that goes on by itself; returns as soon as there is something to show to the person.

        Args:
            issuer: The provider, exactly as its discovery document names it.
            client_id: The application.
            client_secret: Its secret, for providers that want one.
            token_file: Where the sign-in is kept; with neither this nor `store` it is kept in memory.
            redirect_uri: A loopback address registered at the provider; None means any free port on 127.0.0.1 in the
                browser flow, and `http://127.0.0.1:48080/callback` in the paste flow, where nobody listens.
            audience: Asked for at providers that want it (Auth0).
            scope: What is asked for; `openid email profile offline_access` when None.
            flow: How the person signs in: browser, device or paste; redirect where there is a desk.
            timeout_seconds: How long to wait for the person; five minutes in the browser flow, ten in the paste and the
                redirect flow and as long as the code lives in the device flow when None.
            authorize_params: Further parameters of the authorization request (Google: `access_type=offline`).
            private_key: Proves the application in place of a secret.
            store: Where the sign-in is kept, in place of a token file.
            bearer: Which token the server wants.
            resource: Asked for in place of an audience (RFC 8707).
            http: Makes the calls; an own `ProviderHttp` when None.
            desk: Where a Jupyter server's requests come in, in a kernel that has one.
            hub: The service of a Hub that has one redirect for all; goes before a desk.
            clock: Tells the time.
            randomness: Draws state, nonce and verifier.

        Raises:
            ConfigurationError: The issuer is not an https URL, or http on loopback.
            UsageError: The redirect URI is not on loopback, scope or parameters are malformed, arguments exclude
                each other, or the flow cannot be carried out here.
            TokenStoreError: The sign-in could not be kept.
            ProviderUnavailable: The provider does not answer.
            ProviderMisbehaved: The provider's description is not acceptable, or it offers no such flow.
            LoginFailed: The fixed port is taken, or the provider refuses the application.
        """
        # A stored sign-in needs none of the flows.
        from micromegas_jupyter.auth.login_place import LoginPlace
        from micromegas_jupyter.auth.starting_login import start_login

        client_secret = hidden_secret(client_secret)  # or a traceback would show it
        place = sign_in_store(store, token_file)
        proof = client_proof(client_secret, private_key)
        asked = LoginRequest(
            scope=complete_scope(scope or DEFAULT_SCOPE),
            audience=audience,
            resource=resource,
            redirect_uri=redirect_uri,
            authorize_params=authorize_params,
            timeout_seconds=timeout_seconds,
            bearer=Bearer(bearer),
        )
        if place is not None:
            place.check_usable()
        connection = ProviderConnection(issuer, client_id, proof, http=http, clock=clock, randomness=randomness)
        login_place = LoginPlace(place)

        def keep(tokens: TokenSet, check_not_cancelled: Callable[[], None]) -> OidcAuthProvider:
            def check_wanted() -> None:
                check_not_cancelled()
                login_place.check_not_emptied()

            provider = cls(
                issuer,
                client_id,
                client_secret,
                token=build_token(tokens),
                audience=audience,
                scope=asked.scope,
                private_key=private_key,
                store=place,
                bearer=asked.bearer,
                resource=resource,
                http=http,
                clock=clock,
                randomness=randomness,
            )
            provider._connection.assume_clock_offset(connection.clock_offset_seconds)
            if place is not None:
                provider._keeper.save(check=check_wanted)
            return provider

        running = start_login(Flow(flow), asked, connection, clock=clock, randomness=randomness, desk=desk, hub=hub)
        return PendingLogin(running, keep, discard=lambda tokens: login_place.discard(tokens, connection, clock=clock))

    @classmethod
    def from_file(  # noqa: PLR0913 - the seams
        cls,
        path: str | os.PathLike[str],
        client_secret: str | Secret | None = None,
        *,
        private_key: PrivateKey | None = None,
        bearer: Bearer = Bearer.ID_TOKEN,
        http: ProviderCalls | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> "OidcAuthProvider":
        """Take up a sign-in that is kept in a file; raises as `from_store` does."""
        client_secret = hidden_secret(client_secret)  # or a traceback would show it
        return cls.from_store(
            TokenStore(path), client_secret, private_key=private_key, bearer=bearer, http=http, clock=clock
        )

    @classmethod
    def from_store(  # noqa: PLR0913 - the seams
        cls,
        store: SignInStore,
        client_secret: str | Secret | None = None,
        *,
        private_key: PrivateKey | None = None,
        bearer: Bearer = Bearer.ID_TOKEN,
        http: ProviderCalls | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> "OidcAuthProvider":
        """Take up a stored sign-in; nothing is asked of the provider yet.

        Raises:
            LoginRequired: Nothing is stored, or what is there is damaged.
            TokenStoreError: The store cannot be used safely.
            ConfigurationError: The stored issuer is not acceptable.
        """
        client_secret = hidden_secret(client_secret)  # or a traceback would show it
        login, _ = store.load()
        provider = cls(
            login.issuer,
            login.client_id,
            client_secret,
            audience=login.audience,
            scope=login.scope,
            private_key=private_key,
            store=store,
            bearer=bearer,
            resource=login.resource,
            http=http,
            clock=clock,
        )
        provider._keeper.current()
        return provider


class PendingLogin(PendingSignIn[OidcAuthProvider]):
    """A sign-in that was begun by `OidcAuthProvider.begin_login` and goes on by itself."""
