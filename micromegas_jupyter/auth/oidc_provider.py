"""`OidcAuthProvider`: a person's sign-in, from the browser to the logout.

It joins the parts: `browser_login` gets a sign-in, `session_keeper` keeps it usable, `logout` ends it.
"""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from micromegas_jupyter.auth.identity import Identity, LogoutReport
from micromegas_jupyter.auth.logout import end_session
from micromegas_jupyter.auth.loopback_address import parse_loopback_address
from micromegas_jupyter.auth.loopback_receiver import LoopbackReceiver
from micromegas_jupyter.auth.pending_login import LINGER_SECONDS, PendingSignIn
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.session import Bearer, session_from_storage
from micromegas_jupyter.auth.session_keeper import SessionKeeper
from micromegas_jupyter.auth.token_format import build_token, parse_token
from micromegas_jupyter.auth.token_store import TokenStore
from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.errors import LoginRequired
from micromegas_jupyter.http import ProviderCalls
from micromegas_jupyter.oidc.authorization import build_authorization_request, is_callback_of, parse_callback
from micromegas_jupyter.seams import SYSTEM_BROWSER, SYSTEM_CLOCK, SYSTEM_RANDOMNESS, Browser, Clock, Randomness
from micromegas_jupyter.settings.client import DEFAULT_SCOPE

NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})


class OidcAuthProvider:
    """A person's sign-in at one OpenID provider; gives a valid bearer token each time it is asked.

    Bound to a token file it follows that file: a logout or a newer login by another program counts here too, and
    among all programs that share the file a token is renewed once. Safe to use from several threads.

    Args:
        issuer: The provider, exactly as its discovery document names it.
        client_id: The application.
        client_secret: Its secret, for providers that want one; never stored.
        token_file: Where the sign-in is kept; None keeps it in memory.
        token: Tokens as they stand in the token file; None takes what the file holds.
        audience: What was asked for when signing in.
        scope: What was asked for when signing in.
        http: Makes the calls; an own `ProviderHttp` when None.
        clock: Tells the time.

    Raises:
        ConfigurationError: The issuer is not an https URL, or http on loopback.
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
        http: ProviderCalls | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.issuer = issuer
        self.client_id = client_id
        self.audience = audience
        self._clock = clock
        self._connection = ProviderConnection(issuer, client_id, _secret(client_secret), http=http, clock=clock)
        session = None
        if token is not None:
            session = session_from_storage(parse_token(token), issuer=issuer, client_id=client_id)
        self._keeper = SessionKeeper(
            self._connection,
            None if token_file is None else TokenStore(token_file),
            session=session,
            audience=audience,
            scope=scope,
            clock=clock,
        )

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
        timeout_seconds: float = 300.0,
        announce: Callable[[str], None] | None = None,
        authorize_params: Mapping[str, str] = NO_PARAMETERS,
        http: ProviderCalls | None = None,
        clock: Clock = SYSTEM_CLOCK,
        randomness: Randomness = SYSTEM_RANDOMNESS,
    ) -> "OidcAuthProvider":
        """Sign in with the person's browser and wait for it; stored when there is a token file.

        Takes the arguments of `begin_login`, and a `browser` that opens the page. `announce` is told the address to
        open whether or not a browser seems to have opened, for an open one may be out of sight; without it the
        address goes to standard error when no browser opens.

        Raises:
            MicromegasError: What `begin_login` and `PendingLogin.result` raise.
        """
        pending = cls.begin_login(
            issuer,
            client_id,
            client_secret,
            token_file,
            redirect_uri,
            audience,
            scope,
            timeout_seconds=timeout_seconds,
            authorize_params=authorize_params,
            http=http,
            clock=clock,
            randomness=randomness,
        )
        try:
            if announce is not None:
                announce(pending.start_url)
            if not browser.open(pending.start_url) and announce is None:
                sys.stderr.write(f"Open this address in a browser on this machine to sign in: {pending.start_url}\n")
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
        timeout_seconds: float = 300.0,
        authorize_params: Mapping[str, str] = NO_PARAMETERS,
        http: ProviderCalls | None = None,
        clock: Clock = SYSTEM_CLOCK,
        randomness: Randomness = SYSTEM_RANDOMNESS,
    ) -> "PendingLogin":
        """Start a sign-in that goes on by itself; returns as soon as the provider has described itself.

        Args:
            issuer: The provider, exactly as its discovery document names it.
            client_id: The application.
            client_secret: Its secret, for providers that want one.
            token_file: Where the sign-in is kept; None keeps it in memory.
            redirect_uri: A loopback address registered at the provider; None means any free port on 127.0.0.1.
            audience: Asked for at providers that want it (Auth0).
            scope: What is asked for; `openid email profile offline_access` when None.
            timeout_seconds: How long to wait for the person.
            authorize_params: Further parameters of the authorization request (Google: `access_type=offline`).
            http: Makes the calls; an own `ProviderHttp` when None.
            clock: Tells the time.
            randomness: Draws state, nonce and verifier.

        Raises:
            ConfigurationError: The issuer is not an https URL, or http on loopback.
            UsageError: The redirect URI is not on loopback, or scope or parameters are malformed.
            TokenStoreError: The token file could not be written.
            ProviderUnavailable: The provider does not answer.
            ProviderMisbehaved: The provider's description is not acceptable.
            LoginFailed: The fixed port is taken.
        """
        address = parse_loopback_address(redirect_uri)
        if token_file is not None:
            TokenStore(token_file).check_usable()
        connection = ProviderConnection(issuer, client_id, _secret(client_secret), http=http, clock=clock)
        metadata = connection.metadata()
        receiver = LoopbackReceiver(address, randomness=randomness)
        try:
            request = build_authorization_request(
                metadata,
                client_id=client_id,
                redirect_uri=receiver.redirect_uri,
                scope=scope or DEFAULT_SCOPE,
                randomness=randomness,
                audience=audience,
                extra_parameters=authorize_params,
            )
        except BaseException:
            receiver.close()
            raise

        def complete(query: str) -> OidcAuthProvider:
            code = parse_callback(query, request=request, metadata=metadata)
            tokens = connection.exchange_code(request, code)
            provider = cls(
                issuer,
                client_id,
                client_secret,
                token_file,
                token=build_token(tokens),
                audience=audience,
                scope=request.scope,
                http=http,
                clock=clock,
            )
            if token_file is not None:
                provider.save()
            return provider

        receiver.serve(authorization_url=request.url, is_own=lambda query: is_callback_of(query, request))
        return PendingLogin(receiver, complete, timeout_seconds=timeout_seconds, clock=clock)

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        client_secret: str | Secret | None = None,
        *,
        http: ProviderCalls | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> "OidcAuthProvider":
        """Take up a stored sign-in; nothing is asked of the provider yet.

        Raises:
            LoginRequired: Nothing is stored, or what is there is damaged.
            TokenStoreError: The file cannot be used safely.
            ConfigurationError: The stored issuer is not acceptable.
        """
        login, _ = TokenStore(path).load()
        provider = cls(
            login.issuer,
            login.client_id,
            client_secret,
            path,
            audience=login.audience,
            scope=login.scope,
            http=http,
            clock=clock,
        )
        provider._keeper.current()
        return provider

    @property
    def scope(self) -> str:
        """What was asked for when signing in; the default when that is not known."""
        return self._keeper.scope or DEFAULT_SCOPE

    @property
    def token_file(self) -> Path | None:
        """Where the sign-in is kept."""
        return None if self._keeper.store is None else self._keeper.store.path

    def get_token(self, *, bearer: Literal["id_token", "access_token"] = "id_token") -> str:
        """Return a token that is valid now; costs one look at the file unless it is time to renew.

        Args:
            bearer: Which token the server wants.

        Raises:
            LoginRequired: Nobody is signed in, or the sign-in has ended.
            TokenStoreError: The file cannot be used safely.
            Unavailable: A renewal is needed and not possible now (`ProviderUnavailable`: the provider is down).
            ProviderMisbehaved: The provider's answer breaks the protocol or is for somebody else.
        """
        return self._keeper.token(Bearer(bearer)).reveal()

    def identity(self) -> Identity:
        """Return who is signed in, without calling the provider.

        Raises:
            LoginRequired: Nobody is signed in, or the sign-in has no ID token.
            TokenStoreError: The file cannot be used safely.
        """
        session = self._keeper.current()
        if session.claims is None:
            raise LoginRequired("The sign-in has no ID token.")
        return Identity(
            subject=session.claims.subject,
            name=session.claims.name,
            email=session.claims.email,
            issuer=session.claims.issuer,
            expires_at=session.claims.expires_at,
            renews=session.tokens.refresh_token is not None,
        )

    def save(self) -> None:
        """Store the sign-in in the token file; without one, in upstream's default `~/.micromegas/tokens.json`.

        Raises:
            LoginRequired: Nobody is signed in.
            TokenStoreError: The file cannot be written safely.
            Unavailable: Another program holds the file's lock.
        """
        if self._keeper.store is None:
            self._keeper.store = TokenStore(Path.home() / ".micromegas" / "tokens.json")
        self._keeper.save()

    def logout(self) -> LogoutReport:
        """End the sign-in for all programs that share the file, and have the provider revoke its tokens.

        Raises:
            TokenStoreError: The file cannot be removed.
            Unavailable: Another program holds the file's lock.
        """
        return end_session(self._keeper, self._connection, clock=self._clock)

    def __repr__(self) -> str:
        return f"OidcAuthProvider(issuer={self.issuer!r}, client_id={self.client_id!r}, token=***)"

    def __reduce__(self) -> str:
        raise TypeError("a sign-in cannot be pickled")


class PendingLogin(PendingSignIn[OidcAuthProvider]):
    """A sign-in that was begun by `OidcAuthProvider.begin_login` and goes on by itself."""


def _secret(text: str | Secret | None) -> Secret | None:
    if text is None or isinstance(text, Secret):
        return text
    return Secret(text) if text else None
