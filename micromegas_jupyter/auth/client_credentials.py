"""`OidcClientCredentialsProvider`: a service account that signs in with a client secret or a private key."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from micromegas_jupyter.auth.provider_connection import ProviderConnection, hidden_secret
from micromegas_jupyter.auth.tokens.source import CachedTokenSource, ServiceToken, opaque_service_token
from micromegas_jupyter.core.http import ProviderCalls
from micromegas_jupyter.core.system import SYSTEM_CLOCK, Clock, Secret, process_variables
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.oidc.private_key import PrivateKey


class OidcClientCredentialsProvider(CachedTokenSource):
    """Returns access tokens for a service account and caches each until shortly before it expires.

    Args:
        issuer: The provider's issuer URL.
        client_id: The service account's client ID.
        client_secret: The client secret, or None if the account has a private key.
        audience: The token's audience, for providers that require one (Auth0).
        scope: The requested scope, for providers that require one (`api://…/.default` for Entra ID).
        private_key: The private key to use instead of a secret (`private_key_jwt`).
        resource: The API that the token is for, with providers that follow RFC 8707.
        http: Makes the HTTP calls. None creates a new `ProviderHttp`.
        clock: The source of the current time.

    Raises:
        ConfigurationError: The issuer is not an https URL, the secret is empty, or both or neither of secret and
            private key were given.
    """

    def __init__(  # noqa: PLR0913 - upstream's arguments
        self,
        issuer: str,
        client_id: str,
        client_secret: str | Secret | None = None,
        audience: str | None = None,
        scope: str | None = None,
        *,
        private_key: PrivateKey | None = None,
        resource: str | None = None,
        http: ProviderCalls | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(clock)
        client_secret = hidden_secret(client_secret)  # keeps it out of tracebacks
        if client_secret is not None and not client_secret.reveal():
            raise ConfigurationError("The client secret is empty.", key="client_secret")
        if (client_secret is None) is (private_key is None):
            raise ConfigurationError("A service account needs a client secret or a private key.", key="client_secret")
        credential = client_secret or private_key
        self.issuer = issuer
        self.client_id = client_id
        self.audience = audience
        self.scope = scope
        self.resource = resource
        self._connection = ProviderConnection(issuer, client_id, credential, http=http, clock=clock)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "OidcClientCredentialsProvider":
        """Read `MICROMEGAS_OIDC_ISSUER`, `…_CLIENT_ID`, `…_CLIENT_SECRET`, `…_AUDIENCE`, `…_SCOPE`, and `…_RESOURCE`.

        Raises:
            ConfigurationError: A required variable is missing or the issuer is invalid.
        """
        values = process_variables(environ)

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
            resource=values.get("MICROMEGAS_OIDC_RESOURCE") or None,
        )

    def _fetch(self) -> ServiceToken:
        """Fetch the next token; see `CachedTokenSource.get_token`."""
        tokens = self._connection.client_credentials(scope=self.scope, audience=self.audience, resource=self.resource)
        token = opaque_service_token(tokens.access_token, now=self._clock.now(), expires_at=tokens.expires_at)
        if token.expires_at is None:
            return token
        # The token expires according to the provider's clock, but the cache uses the local clock.
        offset = timedelta(seconds=self._connection.clock_offset_seconds)
        return replace(token, expires_at=token.expires_at - offset)

    def __repr__(self) -> str:
        return f"OidcClientCredentialsProvider(issuer={self.issuer!r}, client_id={self.client_id!r}, credential=***)"
