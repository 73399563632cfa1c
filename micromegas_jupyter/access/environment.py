"""Builds the validator that the server's environment variables describe.

What the variables may say is `settings`'s rule; what is done with a finding is the server's.
"""

from collections.abc import Callable, Mapping

from micromegas_jupyter.access.reloading import ReloadingValidator
from micromegas_jupyter.config.access import AccessSettings, LegacyApiKeys


def validator_from_environment(
    environ: Mapping[str, str],
    *,
    legacy_api_keys: LegacyApiKeys | None = None,
    check: Callable[[AccessSettings], None] | None = None,
) -> ReloadingValidator:
    """Build a validator of the API keys and OpenID tokens that `environ` accepts; asks API keys first.

    Reads the variables `MICROMEGAS_OIDC_CONFIG`, `MICROMEGAS_API_KEYS`, `MICROMEGAS_ADMINS` and
    `MICROMEGAS_LEGACY_API_KEYS`, and the files that `MICROMEGAS_ACCESS_CONFIG` and `MICROMEGAS_API_KEY_FILE` name;
    a change of these files takes effect by itself. No provider is called yet, so this works while one is down.

    Args:
        environ: The variables; a copy is kept.
        legacy_api_keys: What becomes of API keys in plain text, whatever the configuration says.
        check: Looks at settings before they come into force, now and after each change; may refuse them with a
            `ConfigurationError`.

    Raises:
        ConfigurationError: A variable or a file is malformed or missing, or nothing would ever be accepted.
    """
    return ReloadingValidator(environ, legacy_api_keys=legacy_api_keys, check=check)
