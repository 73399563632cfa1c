"""The server half of authentication: who bears this token. Events go to the logger `micromegas_jupyter.access`."""

from micromegas_jupyter.access.api_keys import ApiKeyValidator
from micromegas_jupyter.access.config import validator_from_environment
from micromegas_jupyter.access.oidc import OidcValidator
from micromegas_jupyter.access.validator import MultiValidator
from micromegas_jupyter.core.protocols import AuthContext, AuthType, TokenValidator
from micromegas_jupyter.errors import Rejected, Unavailable

__all__ = [
    "ApiKeyValidator",
    "AuthContext",
    "AuthType",
    "MultiValidator",
    "OidcValidator",
    "Rejected",
    "TokenValidator",
    "Unavailable",
    "validator_from_environment",
]
