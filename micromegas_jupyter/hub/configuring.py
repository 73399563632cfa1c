"""`configure`: what `jupyterhub_config.py` needs so that kernels get tokens, in one call.

It fills traitlets' configuration and starts nothing; what it refuses to fill is `configuration_checks`'s.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from micromegas_jupyter.auth.flows.messages import public_base
from micromegas_jupyter.config.client import Bearer
from micromegas_jupyter.config.decoding import (
    check_issuer_url,
)
from micromegas_jupyter.core.urls import LOOPBACK_HOSTS
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.hub import settings as names
from micromegas_jupyter.hub.configuration_checks import (
    AUTHENTICATORS,
    SPAWNERS,
    check_authenticator,
    check_crypt_key,
    check_roles,
    check_spawner,
    class_names,
    read_list,
    read_mapping,
    read_value,
    sections_with,
)
from micromegas_jupyter.hub.refreshing import SignInRefresher
from micromegas_jupyter.hub.rights import SERVICE_SCOPES

if TYPE_CHECKING:
    from traitlets.config import Config

LEAST_MARGIN_SECONDS: Final = 2
MOST_MARGIN_SECONDS: Final = 3600
_ANY_HOST: Final = frozenset({"", "0.0.0.0", "::", "*"})  # noqa: S104 - compared only
_LOCAL_SPAWNER: Final = "LocalProcessSpawner"
"""The Hub's default, whose servers run on the Hub's machine."""

_DEFAULT_URL: Final = "http://:8000"
_DEFAULT_PARTS: Final = {"ip": "", "port": 8000, "base_url": "/"}
"""What the Hub has for the settings that `bind_url` replaced; one that is set to something else wins over it.

The path of `bind_url` stays where `base_url` is not set, also when another one is.
"""

SERVICE_NAME: Final = "micromegas"
SERVICE_ROLE: Final = "micromegas-sign-in"
SERVICE_PATH: Final = f"services/{SERVICE_NAME}/"
KERNEL_VARIABLE: Final = "KERNEL_MICROMEGAS_HUB"
DEFAULT_SERVICE_URL: Final = "http://127.0.0.1:8190"
MOST_AGE_SECONDS: Final = 5
"""How long the Hub takes a person's record as it is. The look costs little, and tokens may be short-lived."""

_LOG: Final = logging.getLogger("micromegas_jupyter.hub")
_ACCESS: Final = f"access:services!service={SERVICE_NAME}"


def text_wish(value: object, *, key: str) -> str | None:
    """Return a line of text; None when it is left out or empty."""
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not value.isprintable() or not value.strip():
        raise ConfigurationError(f"{key} is no line of text.", key=key)
    return value


def switch_wish(value: object, *, key: str) -> bool:
    """Return a switch. A text is none: a variable that says "false" must not switch anything on."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{key} is neither True nor False.", key=key)
    return value


def bearer_wish(value: object) -> Bearer:
    """Return which token is wanted."""
    found = next((bearer for bearer in Bearer if bearer.value == value), None)
    if found is None:
        raise ConfigurationError("bearer is neither id_token nor access_token.", key="bearer")
    return found


def margin_wish(seconds: object) -> int:
    """Return how much of a token is left at least."""
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


def address_wish(url: object, *, key: str) -> str:
    """Return an address with a slash at its end."""
    base = public_base(url) if isinstance(url, str) else None
    try:
        has_port = base is not None and urlsplit(base).port != 0
    except ValueError:
        has_port = False
    if base is None or not has_port:
        raise ConfigurationError(f"{key} is no http or https address without user, query and fragment.", key=key)
    return base


def kernel_address(config: Config, *, service_url: str, path: str) -> str:
    """Return where kernels find the service.

    That is behind the Hub's proxy. Where kernels could not call there, it is the service itself: with host names for
    each server, where no certificate is for an IP address, and where programs of this machine would send a token in
    plain http to a host that is not the Hub's own, which they do not.

    Args:
        config: The Hub's configuration.
        service_url: Where the service listens.
        path: Of the service, below the Hub's base URL.
    """
    host, port, base = _proxy_place(config)
    below = f"{f'{base}/' if base else ''}{path}"
    is_tls = bool(read_value(config, "JupyterHub", "ssl_cert"))
    is_closed = _is_ip(host) if is_tls else _is_refused_in_plain(config, host)
    if read_value(config, "JupyterHub", "subdomain_host") or is_closed:
        return f"{service_url.rstrip('/')}/{below}"
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if is_tls else 'http'}://{shown}:{port or (443 if is_tls else 80)}/{below}"


def _proxy_place(config: Config) -> tuple[str, int | None, str]:
    """Return host, port and base URL as the Hub makes them of its settings."""
    found = {name: read_value(config, "JupyterHub", name) for name in _DEFAULT_PARTS}
    changed = {name: value for name, value in found.items() if value is not None}
    bind_url = read_value(config, "JupyterHub", "bind_url")
    try:
        parts = urlsplit(_DEFAULT_URL if bind_url is None else bind_url)
        host, port, scheme, base = parts.hostname, parts.port, parts.scheme, parts.path
    except (ValueError, AttributeError, TypeError):
        host, port, scheme, base = None, None, "", ""
    if scheme not in {"http", "https"}:
        raise ConfigurationError(
            "c.JupyterHub.bind_url is no http or https address, so it does not say where kernels find the service.",
            key="JupyterHub.bind_url",
            remedy="Correct it, or give configure a kernel_url.",
        )
    if any(_is_other(changed.get(name, value), value) for name, value in _DEFAULT_PARTS.items()):
        place = {**_DEFAULT_PARTS, **changed}
        host, port = str(place["ip"]), int(str(place["port"]))
    return _shown_host(host or ""), port, str(changed.get("base_url", base)).strip("/")


def _is_other(value: object, default: object) -> bool:
    return str(value).strip("/") != str(default).strip("/")


def _shown_host(host: str) -> str:
    return "127.0.0.1" if host in _ANY_HOST else host


def _is_refused_in_plain(config: Config, host: str) -> bool:
    hub = {read_value(config, "JupyterHub", name) for name in ("hub_ip", "hub_connect_ip")}
    if host in LOOPBACK_HOSTS or host in hub:
        return False
    spawner = read_value(config, "JupyterHub", "spawner_class") or _LOCAL_SPAWNER
    return _LOCAL_SPAWNER in class_names(spawner, group=SPAWNERS)


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return host == "localhost"
    return True


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
    is_shared = switch_wish(allow_shared_system_user, key="allow_shared_system_user")
    check_spawner(config, allow_shared_system_user=is_shared)
    check_roles(config)
    issuer = text_wish(issuer, key="issuer") or ""  # None: a variable of the Hub's environment that is not set
    check_issuer_url(issuer, key="issuer")
    service_url = text_wish(service_url, key="service_url") or ""
    names.listening_address(service_url, key="service_url")
    resource = text_wish(exchange_resource, key="exchange_resource")
    names.check_resource(resource, key="exchange_resource")
    shown_url = public_url or read_value(config, "JupyterHub", "public_url")
    wish = _Wish(
        issuer=issuer,
        client_id=_application(config, "client_id"),
        bearer=bearer_wish(bearer),
        public_url=address_wish(shown_url, key="public_url") if shown_url else None,
        kernel_url=(
            kernel_address(config, service_url=service_url, path=SERVICE_PATH)
            if kernel_url is None
            else address_wish(kernel_url, key="kernel_url")
        ),
        service_url=service_url,
        margin_seconds=margin_wish(margin_seconds),
        environment=_set_only(
            {
                names.REDIRECT_CLIENT_ID: text_wish(redirect_client_id, key="redirect_client_id"),
                names.EXCHANGE_AUDIENCE: text_wish(exchange_audience, key="exchange_audience"),
                names.EXCHANGE_RESOURCE: resource,
                names.EXCHANGE_SCOPE: text_wish(exchange_scope, key="exchange_scope"),
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
        people = {"name": "user"}
        roles.append(people)
    # A role of the Hub's own that says nothing of scopes keeps those that the Hub gives it.
    people["scopes"] = [*people.get("scopes", ("self",)), _ACCESS]
    own = {
        "name": SERVICE_ROLE,
        "description": "Gives each person's kernels that person's own token",
        "scopes": list(SERVICE_SCOPES),
        "services": [SERVICE_NAME],
    }
    config.JupyterHub.load_roles = [*roles, own]


def _add_variable(config: Config, kernel_url: str) -> None:
    """Tell kernels where the service is, in each section that sets variables: a subclass's hides its base's."""
    spawner = class_names(read_value(config, "JupyterHub", "spawner_class"), group=SPAWNERS)
    for section in {"Spawner", *sections_with(config, "Spawner", "environment", classes=spawner)}:
        variables = read_mapping(config, section, "environment")
        config[section].environment = {**variables, KERNEL_VARIABLE: kernel_url}


def _make_hub_renew(config: Config, wish: _Wish) -> None:
    # A look-up comes at most this much after the last one that could renew, so as much more must be left then.
    age_seconds = max(1, min(MOST_AGE_SECONDS, wish.margin_seconds // 2))
    config.Authenticator.enable_auth_state = True
    authenticator = class_names(read_value(config, "JupyterHub", "authenticator_class"), group=AUTHENTICATORS)
    for section in {
        "Authenticator",
        *sections_with(config, "Authenticator", "auth_refresh_age", classes=authenticator),
    }:
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


def _set_only(values: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}
