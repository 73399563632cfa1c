"""A sign-in that exists: it gives tokens, says whose they are, and can be kept or ended.

Getting one is `oidc_provider`'s job; `session_keeper` keeps it usable and `logout` ends it.
"""

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal

from micromegas_jupyter.auth.identity import Identity
from micromegas_jupyter.auth.known_person import known_identity
from micromegas_jupyter.auth.login_request import client_proof, hidden_secret, sign_in_store
from micromegas_jupyter.auth.logout_report import LogoutReport
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.session import session_from_storage
from micromegas_jupyter.auth.session_keeper import SessionKeeper
from micromegas_jupyter.auth.sign_in_store import SignInStore
from micromegas_jupyter.auth.token_format import parse_token
from micromegas_jupyter.auth.token_store import TokenStore
from micromegas_jupyter.config.client import DEFAULT_SCOPE, Bearer
from micromegas_jupyter.core.http import ProviderCalls
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.secrets import SecretObject
from micromegas_jupyter.core.system import SYSTEM_BROWSER, SYSTEM_CLOCK, SYSTEM_RANDOMNESS, Browser, Clock, Randomness
from micromegas_jupyter.oidc.private_key import PrivateKey


class KeptSignIn:
    """A person's sign-in at one OpenID provider; gives a valid bearer token each time it is asked.

    Bound to a store it follows that store: a logout or a newer login by another program counts here too, and among
    all programs that share it a token is renewed once. Safe to use from several threads.

    Args:
        issuer: The provider, exactly as its discovery document names it.
        client_id: The application.
        client_secret: Its secret, for providers that want one; never stored.
        token_file: Where the sign-in is kept; with neither this nor `store` it is kept in memory.
        token: Tokens as they stand in the token file; None takes what the store holds.
        audience: What was asked for when signing in.
        scope: What was asked for when signing in.
        private_key: Proves the application in place of a secret.
        store: Where the sign-in is kept, in place of a token file.
        bearer: Which token the server wants.
        resource: What was asked for in place of an audience (RFC 8707).
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
        store: SignInStore | None = None,
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
            session = session_from_storage(parse_token(token), issuer=issuer, client_id=client_id)
        self._keeper = SessionKeeper(
            self._connection,
            sign_in_store(store, token_file),
            session=session,
            audience=audience,
            scope=scope,
            clock=clock,
            resource=resource,
            randomness=randomness,
        )

    @property
    def scope(self) -> str:
        """What was asked for when signing in; the default when that is not known."""
        return self._keeper.scope or DEFAULT_SCOPE

    @property
    def store(self) -> SignInStore | None:
        """Where the sign-in is kept; None for one in memory."""
        return self._keeper.store

    @property
    def token_file(self) -> Path | None:
        """The file that the sign-in is kept in; None for one in memory or in a keyring."""
        return self._keeper.store.path if isinstance(self._keeper.store, TokenStore) else None

    @property
    def clock_offset_seconds(self) -> float:
        """How far the provider's clock is ahead of this machine's, as far as that was measured."""
        return self._keeper.clock_offset_seconds

    def get_token(self, *, bearer: Bearer | Literal["id_token", "access_token"] | None = None) -> str:
        """Return a token that is valid now; costs one look at the store unless it is time to renew.

        Args:
            bearer: Which token the server wants; None means the one that this provider was made for.

        Raises:
            LoginRequired: Nobody is signed in, or the sign-in has ended.
            TokenStoreError: The store cannot be used safely.
            LoginFailed: The provider does not accept the application.
            Unavailable: A renewal is needed and not possible now (`ProviderUnavailable`: the provider is down).
            ProviderMisbehaved: The provider's answer breaks the protocol or is for somebody else.
        """
        return self._keeper.token(self.bearer if bearer is None else Bearer(bearer)).reveal()

    def renew(self) -> None:
        """Renew the token now, however fresh it is; does nothing where nobody can renew it.

        Raises:
            LoginRequired: Nobody is signed in, or the provider has ended the sign-in; the token may still be valid.
            MicromegasError: What `get_token` raises, also while the token is still valid.
        """
        self._keeper.renew(self.bearer)

    def invalidate(self, token: str) -> None:
        """Have the next `get_token` renew, because a server did not accept `token`; older tokens change nothing."""
        self._keeper.invalidate(Secret(token))

    def renewal_due_at(self) -> datetime | None:
        """Return when the token should be renewed (aware UTC); None when nobody can or need renew it."""
        return self._keeper.renewal_due_at(self.bearer)

    def identity(self) -> Identity:
        """Return who is signed in, without calling the provider.

        Raises:
            LoginRequired: Nobody is signed in, or the tokens say nothing about their person.
            TokenStoreError: The store cannot be used safely.
        """
        return known_identity(self._keeper.current(), issuer=self.issuer, bearer=self.bearer)

    def save(self) -> None:
        """Keep the sign-in in its store; without one, in upstream's default `~/.micromegas/tokens.json`.

        Raises:
            LoginRequired: Nobody is signed in.
            TokenStoreError: It cannot be kept safely.
            Unavailable: Another program holds the store's lock.
        """
        if self._keeper.store is None:
            self._keeper.store = TokenStore(Path.home() / ".micromegas" / "tokens.json")
        self._keeper.save()

    def logout(self, *, end_session: bool = False, browser: Browser = SYSTEM_BROWSER) -> LogoutReport:
        """End the sign-in for all programs that share the store, and have the provider revoke its tokens.

        Args:
            end_session: Whether the person's session at the provider ends, too, on a page that `browser` shows.
            browser: Opens that page.

        Raises:
            TokenStoreError: The sign-in cannot be removed.
            Unavailable: Another program holds the store's lock.
        """
        from micromegas_jupyter.auth.logout import end_session as end_sign_in

        return end_sign_in(self._keeper, self._connection, clock=self._clock, browser=browser if end_session else None)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(issuer={self.issuer!r}, client_id={self.client_id!r}, token=***)"

    def __reduce__(self) -> str:
        raise TypeError("a sign-in cannot be pickled")
