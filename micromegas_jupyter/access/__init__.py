"""The server half of authentication: identifies the bearer of a token. Logs events to `micromegas_jupyter.access`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from micromegas_jupyter.access.api_keys import ApiKeyValidator
    from micromegas_jupyter.access.config import validator_from_environment
    from micromegas_jupyter.access.oidc import OidcValidator
    from micromegas_jupyter.access.validator import MultiValidator
    from micromegas_jupyter.core.protocols import AuthContext, AuthType, TokenValidator
    from micromegas_jupyter.errors import Rejected, Unavailable

# Executors import one module from this package, but not the ones that validate tokens.
_HOME = {
    "ApiKeyValidator": "access.api_keys",
    "AuthContext": "core.protocols",
    "AuthType": "core.protocols",
    "MultiValidator": "access.validator",
    "OidcValidator": "access.oidc",
    "Rejected": "errors",
    "TokenValidator": "core.protocols",
    "Unavailable": "errors",
    "validator_from_environment": "access.config",
}

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


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"micromegas_jupyter.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
