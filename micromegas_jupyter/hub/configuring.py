"""`configure`: what `jupyterhub_config.py` needs so that kernels get tokens, in one call.

It fills traitlets' configuration and starts nothing; what it refuses to fill is `configuration_checks`'s.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.hub import settings as names
from micromegas_jupyter.hub.config_sections import class_names, read_list, read_value, sections_with
from micromegas_jupyter.hub.configuration_checks import (
    AUTHENTICATORS,
    check_authenticator,
    check_crypt_key,
    check_roles,
    check_spawner,
)
from micromegas_jupyter.hub.own_rights import SERVICE_SCOPES
from micromegas_jupyter.hub.refreshing import SignInRefresher
from micromegas_jupyter.redirect.redirect_address import public_base
from micromegas_jupyter.settings import Bearer, check_issuer_url

if TYPE_CHECKING:
    from traitlets.config import Config

SERVICE_NAME: Final = "micromegas"
SERVICE_ROLE: Final = "micromegas-sign-in"
SERVICE_PATH: Final = f"services/{SERVICE_NAME}/"
KERNEL_VARIABLE: Final = "KERNEL_MICROMEGAS_HUB"
DEFAULT_SERVICE_URL: Final = "http://127.0.0.1:8190"
LEAST_MARGIN_SECONDS: Final = 2
MOST_MARGIN_SECONDS: Final = 3600
MOST_AGE_SECONDS: Final = 5
"""How long the Hub takes a person's record as it is. The look costs little, and tokens may be short-lived."""

_LOG: Final = logging.getLogger("micromegas_jupyter.hub")
_ANY_HOST: Final = frozenset({"", "0.0.0.0", "::", "*"})  # noqa: S104 - compared only
_DEFAULT_PORT: Final = 8000
_ACCESS: Final = f"access:services!service={SERVICE_NAME}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What `configure` was asked for, checked."""

    issuer: str
    client_id: str
    bearer: Bearer
    public_url: str | None
    kernel_url: str
    service_url: str
    margin_seconds: int
    environment: dict[str, str]


def configure(  # noqa: PLR0913 - what a Hub can choose
    config: Config,
    *,
    issuer: str,
    bearer: str = Bearer.ID_TOKEN.value,
    public_url: str | None = None,
    kernel_url: str | None = None,
    service_url: str = DEFAULT_SERVICE_URL,
    redirect_client_id: str | None = None,
    exchange_audience: str | None = None,
    exchange_resource: str | None = None,
    exchange_scope: str | None = None,
    margin_seconds: int = 60,
    allow_shared_system_user: bool = False,
) -> None:
    """Add the sign-in service to a Hub's configuration; call it last in `jupyterhub_config.py`.

    Args:
        config: `c`, which holds the authenticator's settings already.
        issuer: The identity provider's issuer, exactly as its discovery document writes it.
        bearer: Which of a person's tokens kernels get: `id_token` or `access_token`.
        public_url: The Hub's address in browsers, base URL included; `c.JupyterHub.public_url` when left out. Sign-in
            by redirect needs it.
        kernel_url: The service's address for kernels; what the Hub's own `bind_url` leads to when left out, and the
            service itself where `subdomain_host` gives it a host name that kernels need not know.
        service_url: Where the service listens, `http://host:port`. With a host that is not this machine it listens at
            all addresses.
        redirect_client_id: A public application at the provider, with which kernels may sign in by one redirect of
            the whole Hub where they do not want the Hub's token; none when left out.
        exchange_audience: Exchange each token (RFC 8693) for one with this audience.
        exchange_resource: The same as an address (`resource`).
        exchange_scope: What the exchanged token may do.
        margin_seconds: How much is left of a token at least that a kernel gets.
        allow_shared_system_user: Accept a spawner whose servers all run as one system user, where each person can
            take every other's tokens.

    Raises:
        ConfigurationError: The configuration cannot or must not give tokens to kernels; reason and remedy are named.
    """
    check_authenticator(config)
    check_crypt_key(config)
    check_spawner(config, allow_shared_system_user=allow_shared_system_user)
    check_roles(config)
    check_issuer_url(issuer or "", key="issuer")  # None: a variable of the Hub's environment that is not set
    names.listening_address(service_url, key="service_url")
    names.check_resource(exchange_resource, key="exchange_resource")
    wish = _Wish(
        issuer=issuer,
        client_id=_application(config, "client_id"),
        bearer=_checked_bearer(bearer),
        public_url=_checked_url(public_url or read_value(config, "JupyterHub", "public_url"), key="public_url"),
        kernel_url=_kernel_url(config, kernel_url, service_url=service_url),
        service_url=service_url,
        margin_seconds=_checked_margin(margin_seconds),
        environment=_set_only(
            {
                names.REDIRECT_CLIENT_ID: redirect_client_id,
                names.EXCHANGE_AUDIENCE: exchange_audience,
                names.EXCHANGE_RESOURCE: exchange_resource,
                names.EXCHANGE_SCOPE: exchange_scope,
            }
        ),
    )
    if redirect_client_id and not (wish.public_url or read_value(config, "JupyterHub", "subdomain_host")):
        raise ConfigurationError(
            "redirect_client_id needs the address of the Hub in browsers, which is not set.",
            key="public_url",
            remedy="Give configure a public_url, such as https://hub.example.com.",
        )
    if exchange_audience or exchange_resource or exchange_scope:
        wish.environment[names.CLIENT_SECRET] = _application(config, "client_secret")
    _say_what_a_sign_out_leaves(config)
    _add_service(config, wish)
    _add_roles(config)
    _add_variable(config, wish.kernel_url)
    _make_hub_renew(config, wish)


def _say_what_a_sign_out_leaves(config: Config) -> None:
    """Say that servers outlive their person's sign-out, unless the administrator has chosen what becomes of them."""
    if read_value(config, "JupyterHub", "shutdown_on_logout") is None:
        _LOG.warning(
            "Servers go on after their person has signed out of the Hub, and their kernels get tokens as before. Set "
            "c.JupyterHub.shutdown_on_logout: True stops the servers then, False leaves them and this line out."
        )


def _add_service(config: Config, wish: _Wish) -> None:
    services = read_list(config, "JupyterHub", "services")
    if any(service.get("name") == SERVICE_NAME for service in services if isinstance(service, dict)):
        raise ConfigurationError(
            f"There is a service with the name {SERVICE_NAME} already.",
            key="JupyterHub.services",
            remedy="Call configure once, and give no other service that name.",
        )
    environment = _set_only(
        {
            names.ISSUER: wish.issuer,
            names.CLIENT_ID: wish.client_id,
            names.BEARER: wish.bearer.value,
            names.PUBLIC_URL: wish.public_url,
            **wish.environment,
        }
    )
    service: dict[str, Any] = {
        "name": SERVICE_NAME,
        "url": wish.service_url,
        "command": [sys.executable, "-m", "micromegas_jupyter.hub"],
        "environment": environment,
        "oauth_no_confirm": True,
        "display": False,
    }
    config.JupyterHub.services = [*services, service]


def _add_roles(config: Config) -> None:
    roles = [dict(role) for role in read_list(config, "JupyterHub", "load_roles")]
    people = next((role for role in roles if role.get("name") == "user"), None)
    if people is None:
        people = {"name": "user", "scopes": ["self"]}
        roles.append(people)
    people["scopes"] = [*people.get("scopes", ()), _ACCESS]
    own = {
        "name": SERVICE_ROLE,
        "description": "Gives each person's kernels that person's own token",
        "scopes": list(SERVICE_SCOPES),
        "services": [SERVICE_NAME],
    }
    config.JupyterHub.load_roles = [*roles, own]


def _add_variable(config: Config, kernel_url: str) -> None:
    """Tell kernels where the service is, in each section that sets variables: a subclass's hides its base's."""
    for section in {"Spawner", *sections_with(config, "Spawner", "environment")}:
        variables = read_value(config, section, "environment") or {}
        config[section].environment = {**variables, KERNEL_VARIABLE: kernel_url}


def _make_hub_renew(config: Config, wish: _Wish) -> None:
    # A look-up comes at most this much after the last one that could renew, so as much more must be left then.
    age_seconds = max(1, min(MOST_AGE_SECONDS, wish.margin_seconds // 2))
    config.Authenticator.enable_auth_state = True
    for section in {"Authenticator", *sections_with(config, "Authenticator", "auth_refresh_age")}:
        config[section].auth_refresh_age = age_seconds
    config.OAuthenticator.refresh_user_hook = SignInRefresher(
        wish.bearer, margin_seconds=wish.margin_seconds + age_seconds
    )


def _application(config: Config, name: str) -> str:
    """Return what the authenticator's own section, or a base's, sets; the first in the order of the classes."""
    spec = read_value(config, "JupyterHub", "authenticator_class")
    found = (read_value(config, section, name) for section in class_names(spec, group=AUTHENTICATORS))
    value = next((value for value in found if isinstance(value, str) and value), None)
    if value is None:
        raise ConfigurationError(
            f"The authenticator's {name} is not set in this configuration.",
            key=f"OAuthenticator.{name}",
            remedy=f"Set it before configure is called, such as c.GenericOAuthenticator.{name}.",
        )
    return value


def _checked_bearer(text: str) -> Bearer:
    try:
        return Bearer(text)
    except ValueError:
        raise ConfigurationError("bearer is neither id_token nor access_token.", key="bearer") from None


def _checked_margin(seconds: object) -> int:
    if (
        not isinstance(seconds, int)
        or isinstance(seconds, bool)
        or not LEAST_MARGIN_SECONDS <= seconds <= MOST_MARGIN_SECONDS
    ):
        raise ConfigurationError(
            f"margin_seconds is no whole number from {LEAST_MARGIN_SECONDS} to {MOST_MARGIN_SECONDS}.",
            key="margin_seconds",
        )
    return seconds


def _checked_url(url: object, *, key: str) -> str | None:
    if not url:
        return None
    base = public_base(url) if isinstance(url, str) else None
    if base is None:
        raise ConfigurationError(f"{key} is no http or https address without user, query and fragment.", key=key)
    return base


def _kernel_url(config: Config, wanted: str | None, *, service_url: str) -> str:
    if wanted is not None:
        return _checked_url(wanted, key="kernel_url") or ""
    bind_url = read_value(config, "JupyterHub", "bind_url")
    parts = urlsplit(bind_url if isinstance(bind_url, str) else "")
    host = parts.hostname or ""
    port = parts.port or read_value(config, "JupyterHub", "port") or _DEFAULT_PORT
    base = parts.path.strip("/") or str(read_value(config, "JupyterHub", "base_url") or "").strip("/")
    path = f"{f'{base}/' if base else ''}{SERVICE_PATH}"
    if read_value(config, "JupyterHub", "subdomain_host"):
        return f"{service_url.rstrip('/')}/{path}"
    shown = "127.0.0.1" if host in _ANY_HOST else host
    scheme = parts.scheme or "http"
    return f"{scheme}://{f'[{shown}]' if ':' in shown else shown}:{port}/{path}"


def _set_only(values: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}
