"""What a sign-in asks for, as one value, and the parts that a caller may give in several ways.

Starting it is `starting_login`'s job.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from micromegas_jupyter.auth.tokens.store import FileTokenStore, TokenStore
from micromegas_jupyter.config.client import DEFAULT_SCOPE, Bearer
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.errors import UsageError
from micromegas_jupyter.oidc.client_auth import ClientProof
from micromegas_jupyter.oidc.private_key import PrivateKey

NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginRequest:
    """What is asked of the provider and of the person.

    Attributes:
        scope: What is asked for; has `openid` in it.
        audience: Asked for at providers that want it (Auth0).
        resource: Asked for in place of an audience (RFC 8707).
        redirect_uri: A loopback address registered at the provider; None leaves it to the flow.
        authorize_params: Further parameters of the authorization request.
        timeout_seconds: How long the person is waited for; None leaves it to the flow.
        bearer: Which token is wanted in the end.
    """

    scope: str = DEFAULT_SCOPE
    audience: str | None = None
    resource: str | None = None
    redirect_uri: str | None = None
    authorize_params: Mapping[str, str] = field(default_factory=lambda: NO_PARAMETERS)
    timeout_seconds: float | None = None
    bearer: Bearer = Bearer.ID_TOKEN

    @property
    def needs_id_token(self) -> bool:
        """Whether tokens without an ID token would be of no use; one that comes is checked either way."""
        return self.bearer is Bearer.ID_TOKEN


def client_proof(client_secret: str | Secret | None, private_key: PrivateKey | None) -> ClientProof:
    """Return what the application proves itself with; an empty secret is none.

    Raises:
        UsageError: Both were given.
    """
    secret = hidden_secret(client_secret)
    has_secret = secret is not None and secret.reveal() != ""
    if has_secret and private_key is not None:
        raise UsageError("An application proves itself with a client secret or a private key.", remedy="Give one.")
    return secret if has_secret else private_key


def hidden_secret(client_secret: str | Secret | None) -> Secret | None:
    """Return a secret as one that does not show among the variables of a traceback."""
    return Secret(client_secret) if isinstance(client_secret, str) else client_secret


def token_store(store: TokenStore | None, token_file: str | os.PathLike[str] | None) -> TokenStore | None:
    """Return the place that a caller named; None keeps a sign-in in memory.

    Raises:
        UsageError: Both were given.
    """
    if store is not None and token_file is not None:
        raise UsageError("A sign-in is kept in one place.", remedy="Give `store` or `token_file`, not both.")
    return FileTokenStore(token_file) if token_file is not None else store
