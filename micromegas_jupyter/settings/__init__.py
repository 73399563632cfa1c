"""Environment variables and the profile file become frozen settings, or an error that names the key.

Text in, values out: reading files and the process environment is `assembly`'s job. The formats are
upstream's, so that one environment serves either implementation.
"""

from micromegas_jupyter.settings.client import DEFAULT_SCOPE, ClientSettings, parse_client_settings
from micromegas_jupyter.settings.server import (
    AccessSettings,
    ApiKeySetting,
    IssuerSetting,
    OidcServerSettings,
    parse_access_settings,
)
from micromegas_jupyter.settings.urls import LOOPBACK_HOSTS, check_issuer_url, is_loopback_url

__all__ = [
    "DEFAULT_SCOPE",
    "LOOPBACK_HOSTS",
    "AccessSettings",
    "ApiKeySetting",
    "ClientSettings",
    "IssuerSetting",
    "OidcServerSettings",
    "check_issuer_url",
    "is_loopback_url",
    "parse_access_settings",
    "parse_client_settings",
]
