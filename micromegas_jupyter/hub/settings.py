"""The service's settings, read once from the environment that `configure` and the Hub set."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from micromegas_jupyter.auth.flows.jupyter import public_base
from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.core.system import Secret
from micromegas_jupyter.core.text import LOOPBACK_HOSTS, as_issuer
from micromegas_jupyter.errors import ConfigurationError

KEY_FILE: Final = "JUPYTERHUB_SSL_KEYFILE"
CERTIFICATE_FILE: Final = "JUPYTERHUB_SSL_CERTFILE"
AUTHORITY_FILE: Final = "JUPYTERHUB_SSL_CLIENT_CA"
_TLS_FILES: Final = (KEY_FILE, CERTIFICATE_FILE, AUTHORITY_FILE)
_TLS_REMEDY: Final = "The Hub sets all three when internal_ssl is on; start this program as a Hub service."
_HUB_REMEDY: Final = "The Hub sets it; start this program as a service in jupyterhub_config.py (docs/jupyterhub.md)."
_CONFIGURE_REMEDY: Final = "Call micromegas_jupyter.hub.configure in jupyterhub_config.py, which sets it."
_LOOPBACK: Final = "127.0.0.1"
_ALL_ADDRESSES: Final = "0.0.0.0"  # noqa: S104 - only if the service URL is not on loopback


def read_internal_tls(environ: Mapping[str, str]) -> ssl.SSLContext | None:
    """Return the TLS settings for calls to the Hub's API, or None if the Hub uses plain http internally."""
    key, certificate, authority = (environ.get(name, "") for name in _TLS_FILES)
    if not (key or certificate or authority):
        return None
    missing = next((name for name in _TLS_FILES if not environ.get(name)), None)
    if missing is not None:
        raise ConfigurationError(f"{missing} is not set, but related variables are.", key=missing, remedy=_TLS_REMEDY)
    try:
        context = ssl.create_default_context()
        context.load_verify_locations(authority)
        context.load_cert_chain(certificate, key)
    except (OSError, ValueError):
        raise ConfigurationError(
            "The certificates for the Hub's internal calls cannot be used.", key=CERTIFICATE_FILE, remedy=_TLS_REMEDY
        ) from None
    return context


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """All settings of the service: the addresses of the Hub's API and the service, and the provider."""

    api_url: str  # without a trailing slash
    api_token: Secret
    prefix: str  # of the service's paths; starts and ends with a slash
    host: str
    port: int
    issuer: str
    client_id: str
    client_secret: Secret | None = None  # only for a token exchange
    bearer: Bearer = Bearer.ID_TOKEN
    public_url: str | None = None
    redirect_client_id: str | None = None
    exchange: Mapping[str, str | None] | None = None  # audience, resource, and scope (RFC 8693); at least one is set
    internal_tls: ssl.SSLContext | None = None
    ca_bundle: str | None = None  # CAs to trust for the provider instead of the default ones

    @property
    def public_prefix(self) -> str:
        """The prefix of the service's URLs in browsers, or only the path if the public URL is unknown."""
        if self.public_url is None:
            return self.prefix
        parts = urlsplit(self.public_url)
        return f"{parts.scheme}://{parts.netloc}{self.prefix}"

    @property
    def redirect_uri(self) -> str | None:
        """The Hub's shared redirect URI, or None if the Hub's public URL is unknown."""
        return None if self.public_url is None else f"{self.public_prefix}callback"


def read_service_settings(environ: Mapping[str, str]) -> ServiceSettings:
    """Read the settings from the environment."""
    issuer = _require(environ, "MICROMEGAS_HUB_ISSUER", _CONFIGURE_REMEDY)
    as_issuer(issuer, "MICROMEGAS_HUB_ISSUER")
    host, port = parse_service_url(_require(environ, "JUPYTERHUB_SERVICE_URL", _HUB_REMEDY))
    secret = environ.get("MICROMEGAS_HUB_CLIENT_SECRET")
    targets = ("audience", "resource", "scope")
    exchange = {name: environ.get(f"MICROMEGAS_HUB_EXCHANGE_{name.upper()}") or None for name in targets}
    check_resource(exchange["resource"])
    try:
        bearer = Bearer(environ.get("MICROMEGAS_HUB_BEARER") or Bearer.ID_TOKEN.value)
    except ValueError:
        key = "MICROMEGAS_HUB_BEARER"
        raise ConfigurationError(f"{key} must be id_token or access_token.", key=key) from None
    return ServiceSettings(
        api_url=_require(environ, "JUPYTERHUB_API_URL", _HUB_REMEDY).rstrip("/"),
        api_token=Secret(_require(environ, "JUPYTERHUB_API_TOKEN", _HUB_REMEDY)),
        prefix=_require(environ, "JUPYTERHUB_SERVICE_PREFIX", _HUB_REMEDY),
        host=host,
        port=port,
        issuer=issuer,
        client_id=_require(environ, "MICROMEGAS_HUB_CLIENT_ID", _CONFIGURE_REMEDY),
        client_secret=Secret(secret) if secret else None,
        bearer=bearer,
        public_url=environ.get("MICROMEGAS_HUB_PUBLIC_URL") or public_base(environ.get("JUPYTERHUB_PUBLIC_URL", "")),
        redirect_client_id=environ.get("MICROMEGAS_HUB_REDIRECT_CLIENT_ID") or None,
        exchange=exchange if any(exchange.values()) else None,
        internal_tls=read_internal_tls(environ),
        ca_bundle=environ.get("MICROMEGAS_HUB_CA_BUNDLE") or None,
    )


def _require(environ: Mapping[str, str], key: str, remedy: str) -> str:
    value = environ.get(key)
    if not value:
        raise ConfigurationError(f"{key} is not set.", key=key, remedy=remedy)
    return value


def parse_service_url(url: str, *, key: str = "JUPYTERHUB_SERVICE_URL") -> tuple[str, int]:
    """Return the host and port on which a service with the URL `http://host:port` listens."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme != "http" or parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigurationError(
            f"{key} must have the form http://host:port.",
            key=key,
            remedy="Pass a service_url to configure, such as http://127.0.0.1:8190.",
        )
    return (_LOOPBACK if host in LOOPBACK_HOSTS else _ALL_ADDRESSES), port


def check_resource(resource: str | None, *, key: str = "MICROMEGAS_HUB_EXCHANGE_RESOURCE") -> None:
    """Check that an exchange's target, if any, is an absolute URI without a fragment (RFC 8707)."""
    if not resource:
        return
    try:
        parts = urlsplit(resource)
    except ValueError:
        parts = None
    if parts is None or not parts.scheme or not (parts.netloc or parts.path) or "#" in resource:
        raise ConfigurationError(
            f"{key} must be an absolute URI without a fragment.",
            key=key,
            remedy="Use the resource that is registered with the identity provider, such as https://lake.example.com.",
        )
