"""`OidcClientCredentialsProvider`: a service account that signs in with its own secret."""

import os
from collections.abc import Mapping
from datetime import timedelta

from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.auth.renewal_turn import RenewalTurn
from micromegas_jupyter.auth.session import Freshness, freshness_of
from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.errors import ConfigurationError, ProviderMisbehaved, Unavailable
from micromegas_jupyter.http import ProviderCalls
from micromegas_jupyter.oidc.token import TokenSet
from micromegas_jupyter.seams import SYSTEM_CLOCK, Clock

# What a token's life counts as when the provider does not say: RFC 6749 section 5.1 leaves it open.
UNKNOWN_LIFETIME = timedelta(minutes=5)


class OidcClientCredentialsProvider:
    """Gives access tokens of a service account; each is kept until it ends soon, and one thread gets the next.

    Args:
        issuer: The provider.
        client_id: The service account.
        client_secret: Its secret.
        audience: What the token is for, at providers that ask (Auth0).
        scope: What the token may do, at providers that ask (`api://…/.default` at Entra ID).
        http: Makes the calls; an own `ProviderHttp` when None.
        clock: Tells the time.

    Raises:
        ConfigurationError: The issuer is not an https URL, or the secret is empty.
    """

    def __init__(  # noqa: PLR0913 - upstream's arguments
        self,
        issuer: str,
        client_id: str,
        client_secret: str | Secret,
        audience: str | None = None,
        scope: str | None = None,
        *,
        http: ProviderCalls | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        secret = client_secret if isinstance(client_secret, Secret) else Secret(client_secret)
        if not secret.reveal():
            raise ConfigurationError("The client secret is empty.", key="client_secret")
        self.issuer = issuer
        self.client_id = client_id
        self.audience = audience
        self.scope = scope
        self._clock = clock
        self._connection = ProviderConnection(issuer, client_id, secret, http=http, clock=clock)
        self._turn: RenewalTurn[TokenSet] = RenewalTurn(clock)
        self._kept: TokenSet | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "OidcClientCredentialsProvider":
        """Read `MICROMEGAS_OIDC_ISSUER`, `_CLIENT_ID`, `_CLIENT_SECRET` and, when set, `_AUDIENCE` and `_SCOPE`.

        Raises:
            ConfigurationError: A variable is missing or the issuer is not acceptable.
        """
        values = os.environ if environ is None else environ

        def required(name: str) -> str:
            value = values.get(name)
            if not value:
                raise ConfigurationError(f"{name} environment variable not set.", key=name, remedy=f"Set {name}.")
            return value

        return cls(
            required("MICROMEGAS_OIDC_ISSUER"),
            required("MICROMEGAS_OIDC_CLIENT_ID"),
            Secret(required("MICROMEGAS_OIDC_CLIENT_SECRET")),
            audience=values.get("MICROMEGAS_OIDC_AUDIENCE") or None,
            scope=values.get("MICROMEGAS_OIDC_SCOPE") or None,
        )

    def get_token(self) -> str:
        """Return an access token that is valid now.

        Raises:
            LoginFailed: The provider does not accept the service account.
            ProviderUnavailable: A token is needed and the provider does not answer.
            ProviderMisbehaved: The provider's answer breaks the protocol.
        """
        kept = self._kept
        freshness = self._freshness(kept)
        if kept is not None and freshness is Freshness.FRESH:
            return kept.access_token.reveal()
        is_valid = freshness is Freshness.ENDING
        try:
            fetched = self._turn.run(self._fetch_unless_fresh, is_optional=is_valid)
        except (Unavailable, ProviderMisbehaved):
            if kept is None or not is_valid:
                raise
            fetched = None
        tokens = fetched or kept
        if tokens is None:  # only an optional fetch is left out, and then a token is kept
            raise Unavailable("No token could be fetched.")
        return tokens.access_token.reveal()

    def _fetch_unless_fresh(self) -> TokenSet:
        kept = self._kept
        if kept is not None and self._freshness(kept) is Freshness.FRESH:
            return kept
        self._kept = self._connection.client_credentials(scope=self.scope, audience=self.audience)
        return self._kept

    def _freshness(self, tokens: TokenSet | None) -> Freshness:
        if tokens is None or tokens.obtained_at is None:
            return Freshness.ENDED
        ends_at = tokens.expires_at or tokens.obtained_at + UNKNOWN_LIFETIME
        return freshness_of(tokens.obtained_at, ends_at, self._clock.now())

    def __repr__(self) -> str:
        return f"OidcClientCredentialsProvider(issuer={self.issuer!r}, client_id={self.client_id!r}, client_secret=***)"

    def __reduce__(self) -> str:
        raise TypeError("a sign-in cannot be pickled")
