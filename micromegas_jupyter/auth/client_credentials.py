"""`OidcClientCredentialsProvider`: a service account that signs in with its own secret or private key."""

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
    """Returns access tokens of a service account. Each is cached until shortly before it expires.

    Args:
        issuer: The provider.
        client_id: The service account.
        client_secret: Its secret; None when it has a private key.
        audience: The token's audience, if the provider requires one (Auth0).
        scope: What the token may do, at providers that ask (`api://…/.default` at Entra ID).
        private_key: Its key, in place of a secret (`private_key_jwt`).
        resource: The API that the token is for, at providers that follow RFC 8707.
        http: Makes the calls; an own `ProviderHttp` when None.
        clock: Tells the time.

    Raises:
        ConfigurationError: The issuer is not an https URL, the secret is empty, or there is not exactly one of secret
            and private key.
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
        client_secret = hidden_secret(client_secret)  # or a traceback would show it
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
        """Read `MICROMEGAS_OIDC_ISSUER`, `_CLIENT_ID`, `_CLIENT_SECRET`; when set, `_AUDIENCE`, `_SCOPE`, `_RESOURCE`.

        Raises:
            ConfigurationError: A variable is missing or the issuer is not acceptable.
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
        """Get the next token; see `CachedTokenSource.get_token`."""
        tokens = self._connection.client_credentials(scope=self.scope, audience=self.audience, resource=self.resource)
        token = opaque_service_token(tokens.access_token, now=self._clock.now(), expires_at=tokens.expires_at)
        if token.expires_at is None:
            return token
        # It ends by the provider's clock, and the cache follows this machine's.
        offset = timedelta(seconds=self._connection.clock_offset_seconds)
        return replace(token, expires_at=token.expires_at - offset)

    def __repr__(self) -> str:
        return f"OidcClientCredentialsProvider(issuer={self.issuer!r}, client_id={self.client_id!r}, credential=***)"
