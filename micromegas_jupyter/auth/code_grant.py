"""One authorization request with the provider that it goes to: what an answer must fit, and what its code is worth.

Showing the request and receiving the answer are `browser_login`'s, `redirect_login`'s and `paste_login`'s.
"""

from dataclasses import dataclass

from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.oidc.authorization import AuthorizationRequest, is_callback_of, parse_callback
from micromegas_jupyter.oidc.discovery import ProviderMetadata
from micromegas_jupyter.oidc.tokens import TokenSet


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeGrant:
    """A started authorization code grant with PKCE.

    Attributes:
        request: What was asked, with state, nonce and verifier.
        metadata: The provider's description as it was when the request was made.
        connection: Calls the provider.
        needs_id_token: Whether tokens without an ID token are an error.
    """

    request: AuthorizationRequest
    metadata: ProviderMetadata
    connection: ProviderConnection
    needs_id_token: bool = True

    def is_answered_by(self, query: str) -> bool:
        """Whether a query string carries this grant's state."""
        return is_callback_of(query, self.request)

    def code_in(self, query: Secret) -> Secret:
        """Return the code that an answer carries; raises as `parse_callback` does."""
        return parse_callback(query, request=self.request, metadata=self.metadata)

    def redeem(self, code: Secret) -> TokenSet:
        """Exchange the code for tokens, whose ID token was checked; raises as `ProviderConnection.exchange_code`."""
        return self.connection.exchange_code(self.request, code, needs_id_token=self.needs_id_token)
