"""Environment variables and configuration files become frozen settings, or an error that names the key.

Text in, values out: reading files and the process environment is `assembly`'s job. The formats are
upstream's with optional additions, so that one environment serves either implementation.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from micromegas_jupyter.settings.access_config import AccessFiles, access_files, parse_access_settings
    from micromegas_jupyter.settings.api_keys import (
        API_KEY_ISSUER,
        API_KEY_SCOPES,
        INGEST_SCOPE,
        READ_SCOPE,
        ApiKeySetting,
        parse_api_keys,
        render_api_keys,
    )
    from micromegas_jupyter.settings.client import DEFAULT_SCOPE, ClientSettings
    from micromegas_jupyter.settings.client_config import parse_client_settings
    from micromegas_jupyter.settings.client_presets import CLIENT_PRESETS, ClientPreset
    from micromegas_jupyter.settings.client_profile import is_profile_name
    from micromegas_jupyter.settings.client_proofs import same_application, without_proofs
    from micromegas_jupyter.settings.decoding import MAX_SETTING_BYTES
    from micromegas_jupyter.settings.issuers import SIGNATURE_ALGORITHMS, ClaimValue, IssuerSetting, TokenKind
    from micromegas_jupyter.settings.presets import PRESETS
    from micromegas_jupyter.settings.roles import EVERY_TABLE, RoleSetting
    from micromegas_jupyter.settings.server import (
        AccessSettings,
        LegacyApiKeys,
        OidcServerSettings,
        RateLimits,
    )
    from micromegas_jupyter.settings.server_limits import ServerLimits, parse_server_limits
    from micromegas_jupyter.settings.sign_in import (
        AssertionAudience,
        Bearer,
        Flow,
        PrivateKeySetting,
        TokenStorage,
        WorkloadExchange,
        WorkloadPlatform,
        WorkloadSetting,
    )
    from micromegas_jupyter.settings.urls import LOOPBACK_HOSTS, check_fetch_url, check_issuer_url, is_loopback_url

_HOME = {
    "API_KEY_ISSUER": "api_keys",
    "API_KEY_SCOPES": "api_keys",
    "AccessFiles": "access_config",
    "AccessSettings": "server",
    "ApiKeySetting": "api_keys",
    "AssertionAudience": "sign_in",
    "Bearer": "sign_in",
    "CLIENT_PRESETS": "client_presets",
    "ClaimValue": "issuers",
    "ClientPreset": "client_presets",
    "ClientSettings": "client",
    "DEFAULT_SCOPE": "client",
    "EVERY_TABLE": "roles",
    "Flow": "sign_in",
    "INGEST_SCOPE": "api_keys",
    "IssuerSetting": "issuers",
    "LOOPBACK_HOSTS": "urls",
    "LegacyApiKeys": "server",
    "MAX_SETTING_BYTES": "decoding",
    "OidcServerSettings": "server",
    "PRESETS": "presets",
    "PrivateKeySetting": "sign_in",
    "READ_SCOPE": "api_keys",
    "RateLimits": "server",
    "RoleSetting": "roles",
    "SIGNATURE_ALGORITHMS": "issuers",
    "ServerLimits": "server_limits",
    "TokenKind": "issuers",
    "TokenStorage": "sign_in",
    "WorkloadExchange": "sign_in",
    "WorkloadPlatform": "sign_in",
    "WorkloadSetting": "sign_in",
    "access_files": "access_config",
    "check_fetch_url": "urls",
    "check_issuer_url": "urls",
    "is_loopback_url": "urls",
    "is_profile_name": "client_profile",
    "parse_access_settings": "access_config",
    "parse_api_keys": "api_keys",
    "parse_client_settings": "client_config",
    "parse_server_limits": "server_limits",
    "render_api_keys": "api_keys",
    "same_application": "client_proofs",
    "without_proofs": "client_proofs",
}

__all__ = [
    "API_KEY_ISSUER",
    "API_KEY_SCOPES",
    "CLIENT_PRESETS",
    "DEFAULT_SCOPE",
    "EVERY_TABLE",
    "INGEST_SCOPE",
    "LOOPBACK_HOSTS",
    "MAX_SETTING_BYTES",
    "PRESETS",
    "READ_SCOPE",
    "SIGNATURE_ALGORITHMS",
    "AccessFiles",
    "AccessSettings",
    "ApiKeySetting",
    "AssertionAudience",
    "Bearer",
    "ClaimValue",
    "ClientPreset",
    "ClientSettings",
    "Flow",
    "IssuerSetting",
    "LegacyApiKeys",
    "OidcServerSettings",
    "PrivateKeySetting",
    "RateLimits",
    "RoleSetting",
    "ServerLimits",
    "TokenKind",
    "TokenStorage",
    "WorkloadExchange",
    "WorkloadPlatform",
    "WorkloadSetting",
    "access_files",
    "check_fetch_url",
    "check_issuer_url",
    "is_loopback_url",
    "is_profile_name",
    "parse_access_settings",
    "parse_api_keys",
    "parse_client_settings",
    "parse_server_limits",
    "render_api_keys",
    "same_application",
    "without_proofs",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
