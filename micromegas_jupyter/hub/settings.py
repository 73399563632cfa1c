"""The service's settings: the environment that `configure` and the Hub gave it, read once."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from micromegas_jupyter.auth.flows.messages import public_base
from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.config.decoding import (
    check_issuer_url,
)
from micromegas_jupyter.core.secrets import Secret
from micromegas_jupyter.core.urls import LOOPBACK_HOSTS
from micromegas_jupyter.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY_FILE: Final = "JUPYTERHUB_SSL_KEYFILE"
CERTIFICATE_FILE: Final = "JUPYTERHUB_SSL_CERTFILE"
AUTHORITY_FILE: Final = "JUPYTERHUB_SSL_CLIENT_CA"
_NAMES: Final = (KEY_FILE, CERTIFICATE_FILE, AUTHORITY_FILE)
_REMEDY: Final = "The Hub sets all three when internal_ssl is on: start this program as a service of the Hub."
ISSUER: Final = "MICROMEGAS_HUB_ISSUER"
CLIENT_ID: Final = "MICROMEGAS_HUB_CLIENT_ID"
CLIENT_SECRET: Final = "MICROMEGAS_HUB_CLIENT_SECRET"  # noqa: S105 - a variable's name
BEARER: Final = "MICROMEGAS_HUB_BEARER"
PUBLIC_URL: Final = "MICROMEGAS_HUB_PUBLIC_URL"
HUB_PUBLIC_URL: Final = "JUPYTERHUB_PUBLIC_URL"
REDIRECT_CLIENT_ID: Final = "MICROMEGAS_HUB_REDIRECT_CLIENT_ID"
EXCHANGE_AUDIENCE: Final = "MICROMEGAS_HUB_EXCHANGE_AUDIENCE"
EXCHANGE_RESOURCE: Final = "MICROMEGAS_HUB_EXCHANGE_RESOURCE"
EXCHANGE_SCOPE: Final = "MICROMEGAS_HUB_EXCHANGE_SCOPE"
_FROM_THE_HUB: Final = "The Hub sets it: start this program as a service in jupyterhub_config.py (docs/jupyterhub.md)."
_LOOPBACK: Final = "127.0.0.1"
_ALL_ADDRESSES: Final = "0.0.0.0"  # noqa: S104 - only where the service's URL is not on loopback


@dataclass(frozen=True, slots=True, kw_only=True)
class InternalTls:
    """Files in PEM.

    Attributes:
        key_file: This program's private key.
        certificate_file: Its certificate, which the Hub asks for.
        authority_file: Whose certificates are trusted besides the usual ones.
    """

    key_file: str
    certificate_file: str
    authority_file: str

    def context(self) -> ssl.SSLContext:
        """Return how to call the Hub."""
        try:
            context = ssl.create_default_context()
            context.load_verify_locations(self.authority_file)
            context.load_cert_chain(self.certificate_file, self.key_file)
        except (OSError, ValueError):
            raise ConfigurationError(
                "The certificates for calls within the Hub cannot be used.", key=CERTIFICATE_FILE, remedy=_REMEDY
            ) from None
        return context


def read_internal_tls(environ: Mapping[str, str]) -> InternalTls | None:
    """Return what the environment names; None where the Hub's programs speak plain http."""
    key, certificate, authority = (environ.get(name, "") for name in _NAMES)
    if not (key or certificate or authority):
        return None
    missing = next((name for name in _NAMES if not environ.get(name)), None)
    if missing is not None:
        raise ConfigurationError(f"{missing} is not set, and others of its kind are.", key=missing, remedy=_REMEDY)
    return InternalTls(key_file=key, certificate_file=certificate, authority_file=authority)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeSetting:
    """What a person's token is exchanged for (RFC 8693); at least one of them is set.

    Attributes:
        audience: The name, at the provider, of what the new token is for.
        resource: The same as an address.
        scope: What the new token may do.
    """

    audience: str | None = None
    resource: str | None = None
    scope: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """All that the service is told.

    Attributes:
        api_url: The Hub's API, without a slash at its end.
        api_token: The service's own Hub token.
        prefix: The path of the service's addresses; begins and ends with a slash.
        host: The address that it listens at.
        port: The port that it listens at.
        issuer: The identity provider at which people sign in to the Hub.
        client_id: The Hub's application there.
        client_secret: That application's secret; only for an exchange.
        bearer: Which token kernels get.
        public_url: An address at the host that browsers reach the service at; None when nothing says it.
        redirect_client_id: The application with which kernels sign in by redirect; None when they cannot.
        exchange: What tokens are exchanged for; None for the tokens themselves.
        internal_tls: How the Hub's API is called; None for plain http, or https as everywhere.
    """

    api_url: str
    api_token: Secret
    prefix: str
    host: str
    port: int
    issuer: str
    client_id: str
    client_secret: Secret | None = None
    bearer: Bearer = Bearer.ID_TOKEN
    public_url: str | None = None
    redirect_client_id: str | None = None
    exchange: ExchangeSetting | None = field(default=None)
    internal_tls: InternalTls | None = None

    @property
    def public_prefix(self) -> str:
        """What the addresses of the service begin with in browsers; the path alone where nothing says more."""
        if self.public_url is None:
            return self.prefix
        parts = urlsplit(self.public_url)
        return f"{parts.scheme}://{parts.netloc}{self.prefix}"

    @property
    def redirect_uri(self) -> str | None:
        """The one redirect address of the whole Hub; None where its address in browsers is not known."""
        return None if self.public_url is None else f"{self.public_prefix}callback"


def read_service_settings(environ: Mapping[str, str]) -> ServiceSettings:
    """Return the settings that the environment holds."""
    issuer = _required(environ, ISSUER)
    check_issuer_url(issuer, key=ISSUER)
    host, port = listening_address(_required(environ, "JUPYTERHUB_SERVICE_URL", remedy=_FROM_THE_HUB))
    secret = environ.get(CLIENT_SECRET)
    return ServiceSettings(
        api_url=_required(environ, "JUPYTERHUB_API_URL", remedy=_FROM_THE_HUB).rstrip("/"),
        api_token=Secret(_required(environ, "JUPYTERHUB_API_TOKEN", remedy=_FROM_THE_HUB)),
        prefix=_required(environ, "JUPYTERHUB_SERVICE_PREFIX", remedy=_FROM_THE_HUB),
        host=host,
        port=port,
        issuer=issuer,
        client_id=_required(environ, CLIENT_ID),
        client_secret=Secret(secret) if secret else None,
        bearer=_bearer(environ.get(BEARER) or Bearer.ID_TOKEN.value),
        public_url=environ.get(PUBLIC_URL) or public_base(environ.get(HUB_PUBLIC_URL, "")),
        redirect_client_id=environ.get(REDIRECT_CLIENT_ID) or None,
        exchange=_exchange(environ),
        internal_tls=read_internal_tls(environ),
    )


def _required(environ: Mapping[str, str], key: str, *, remedy: str | None = None) -> str:
    value = environ.get(key)
    if not value:
        raise ConfigurationError(
            f"{key} is not set.",
            key=key,
            remedy=remedy or "Call micromegas_jupyter.hub.configure in jupyterhub_config.py, which sets it.",
        )
    return value


def _bearer(text: str) -> Bearer:
    try:
        return Bearer(text)
    except ValueError:
        raise ConfigurationError(f"{BEARER} is neither id_token nor access_token.", key=BEARER) from None


def listening_address(url: str, *, key: str = "JUPYTERHUB_SERVICE_URL") -> tuple[str, int]:
    """Return host and port at which a service with this address listens.

    Raises:
        ConfigurationError: It is not of the form `http://host:port`.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or parts.scheme != "http" or parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigurationError(
            f"{key} is not of the form http://host:port.",
            key=key,
            remedy="Give configure a service_url such as http://127.0.0.1:8190.",
        )
    return (_LOOPBACK if host in LOOPBACK_HOSTS else _ALL_ADDRESSES), port


def check_resource(resource: str | None, *, key: str = EXCHANGE_RESOURCE) -> None:
    """Check what a token is exchanged for; None and an empty text are nothing.

    Raises:
        ConfigurationError: It is no absolute address, or has a fragment (RFC 8707, section 2).
    """
    if not resource:
        return
    try:
        parts = urlsplit(resource)
    except ValueError:
        parts = None
    if parts is None or not parts.scheme or not (parts.netloc or parts.path) or "#" in resource:
        raise ConfigurationError(
            f"{key} is no absolute address without a fragment.",
            key=key,
            remedy="Give the resource as the identity provider knows it, such as https://lake.example.com.",
        )


def _exchange(environ: Mapping[str, str]) -> ExchangeSetting | None:
    audience, resource = environ.get(EXCHANGE_AUDIENCE), environ.get(EXCHANGE_RESOURCE)
    scope = environ.get(EXCHANGE_SCOPE)
    check_resource(resource)
    if not (audience or resource or scope):
        return None
    return ExchangeSetting(audience=audience or None, resource=resource or None, scope=scope or None)
