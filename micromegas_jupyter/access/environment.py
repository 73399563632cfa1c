"""Builds the validator that the server's environment variables describe.

What the variables may say is `settings`'s rule; what is done with a finding is the server's.
"""

from collections.abc import Mapping

from micromegas_jupyter.access.api_keys import ApiKeyValidator
from micromegas_jupyter.access.multi import Closeable, MultiValidator
from micromegas_jupyter.access.oidc_validator import OidcValidator
from micromegas_jupyter.contracts import TokenValidator
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.http import ProviderHttp
from micromegas_jupyter.seams import SYSTEM_CLOCK
from micromegas_jupyter.settings import parse_access_settings

_PROVIDER_TIMEOUT_SECONDS = 10.0
_MAX_DOCUMENT_BYTES = 1_000_000


def validator_from_environment(environ: Mapping[str, str]) -> TokenValidator:
    """Build a validator of the API keys and OpenID tokens that `environ` accepts; asks API keys first.

    Reads `MICROMEGAS_API_KEYS`, `MICROMEGAS_OIDC_CONFIG` and `MICROMEGAS_ADMINS`. No provider is called yet, so
    this works while one is down.

    Raises:
        ConfigurationError: A variable is malformed, or nothing would ever be accepted.
    """
    settings = parse_access_settings(environ)
    validators: list[TokenValidator] = []
    also_close: list[Closeable] = []
    if settings.api_keys:
        validators.append(ApiKeyValidator(settings.api_keys))
    if settings.oidc is not None:
        http = ProviderHttp(timeout_seconds=_PROVIDER_TIMEOUT_SECONDS, max_bytes=_MAX_DOCUMENT_BYTES)
        also_close.append(http)
        validators.append(OidcValidator(settings.oidc, settings.admins, http=http, clock=SYSTEM_CLOCK))
    if not validators:
        raise ConfigurationError(
            "Neither API keys nor an OpenID provider are configured, so nobody could sign in.",
            key="MICROMEGAS_OIDC_CONFIG",
            remedy="Set MICROMEGAS_OIDC_CONFIG or MICROMEGAS_API_KEYS, or start the server with --disable-auth.",
        )
    return MultiValidator(validators, also_close=also_close)
