"""`HubTokenProvider`: the sign-in that a JupyterHub has of the person whose server this is, as a bearer token.

The Hub signs people in, keeps their refresh tokens and renews; the bearer is here in memory only. How the service is
asked is `hub_service`'s job, which sign-in a program uses is decided in `wiring`.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable

from micromegas_jupyter.auth.hub_refusals import HUB
from micromegas_jupyter.auth.hub_service import HubToken
from micromegas_jupyter.auth.identity import Identity, identity_of_bearer
from micromegas_jupyter.auth.tokens.service import ServiceToken, ServiceTokenCache
from micromegas_jupyter.core.protocols import AuthProvider
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock
from micromegas_jupyter.core.urls import host_text
from micromegas_jupyter.errors import LoginRequired, MicromegasError


class HubTokens(Protocol):
    """What this needs of `HubService`."""

    def token(self) -> HubToken:
        """Ask for a bearer token."""
        ...


@runtime_checkable
class StoredSignIn(AuthProvider, Protocol):
    """What this needs of a sign-in that the person made here."""

    def identity(self) -> Identity:
        """Return who is signed in."""
        ...

    def renew(self) -> None:
        """Renew the token now."""
        ...

    def renewal_due_at(self) -> datetime | None:
        """Return from when on `get_token` renews."""
        ...

    def invalidate(self, token: str) -> None:
        """Forget a token that the server refused."""
        ...


class HubTokenProvider:
    """Gives the Hub's token of this person; safe to use from several threads, of which one asks for all.

    A token is asked for when there is none, and anew in the last quarter of its life; while the service does not
    answer, one that is still valid serves on. Its end follows from its remaining life.

    Args:
        service: Gives the tokens.
        issuer: The provider that the settings name; a token of another one is not used. None takes any.
        stored: Gives a sign-in that the person made here with the same settings; used when the Hub refuses to give a
            token, not when it cannot be asked. None when there is none.
        clock: Tells the time.
    """

    def __init__(
        self,
        service: HubTokens,
        *,
        issuer: str | None = None,
        stored: Callable[[], StoredSignIn | None] = lambda: None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._service = service
        self._issuer = issuer
        self._stored = stored
        self._clock = clock
        self._kept = ServiceTokenCache(self._fetch, clock=self._clock)
        self._newest: HubToken | None = None
        self._ends_at = self._clock.now()
        self._instead: StoredSignIn | None = None

    @property
    def through(self) -> str:
        """What signed the person in: `JupyterHub`; empty while a sign-in of their own stands in."""
        return HUB if self._instead is None else ""

    def get_token(self) -> str:
        """Return a token that is valid now.

        Raises:
            LoginRequired: The Hub gives no token; the remedy says what to do here or there.
            ProviderUnavailable: A token is needed, and the service, the Hub or the provider does not answer.
            ProviderMisbehaved: The service's answer cannot be used.
        """
        instead = self._instead
        if instead is not None:
            try:
                return instead.get_token()
            except LoginRequired:
                self._instead = None  # it has ended, so the Hub is asked again
        try:
            return self._kept.get_token()
        except LoginRequired:
            token = self._token_instead()
            if token is None:
                raise
            return token

    def identity(self) -> Identity:
        """Return who is signed in, by the newest token; asks nobody.

        Raises:
            LoginRequired: No token has been given yet.
            TokenStoreError: The person's own sign-in stands in and cannot be read.
        """
        if self._instead is not None:
            return self._instead.identity()
        newest = self._newest
        if newest is None:
            stored = self._stored()
            if stored is not None:
                return stored.identity()  # it stands in as soon as the Hub refuses
            raise LoginRequired("Nobody has been signed in through JupyterHub here yet.")
        return identity_of_bearer(newest.text, user=newest.user, issuer=newest.issuer, expires_at=self._ends_at)

    def renew(self) -> None:
        """Ask for another token; the Hub gives the same one again while enough of its life is left.

        Raises:
            LoginRequired: The Hub gives no token any more.
            ProviderUnavailable: The service does not answer.
        """
        if self._instead is not None:
            self._instead.renew()
            return
        self._kept.renew()

    def invalidate(self, token: str) -> None:
        """Forget `token`, because the server refused it."""
        if self._instead is not None:
            self._instead.invalidate(token)
        else:
            self._kept.invalidate(token)

    def renewal_due_at(self) -> datetime | None:
        """Return from when on `get_token` asks for another one (aware UTC, this machine's clock)."""
        if self._instead is not None:
            return self._instead.renewal_due_at()
        return self._kept.renewal_due_at()

    def _fetch(self) -> ServiceToken:
        asked_at = self._clock.now()  # the life that is left began to run out before the answer came
        given = self._service.token()
        if self._issuer is not None and given.issuer != self._issuer:
            raise self._other_issuer(given.issuer)
        ends_at = asked_at + timedelta(seconds=given.expires_in_seconds)
        self._newest, self._ends_at = given, ends_at
        return ServiceToken(text=given.text, obtained_at=asked_at, expires_at=ends_at)

    def _other_issuer(self, issuer: str) -> LoginRequired:
        error = LoginRequired(
            f"JupyterHub signs you in at {host_text(issuer)}, and the settings name {self._issuer} as the provider.",
            remedy="Sign in there with %micromegas_login (`micromegas login` in a terminal). If the server takes "
            "tokens of the Hub's provider, correct MICROMEGAS_OIDC_ISSUER, or leave it out.",
        )
        error.giver = HUB
        return error

    def _token_instead(self) -> str | None:
        try:
            instead = self._stored()
            token = None if instead is None else instead.get_token()
        except MicromegasError:
            return None  # what the Hub said is the news
        self._instead = instead
        return token

    def __repr__(self) -> str:
        return f"HubTokenProvider(service={self._service!r})"

    def __reduce__(self) -> str:
        raise TypeError("a sign-in cannot be pickled")
