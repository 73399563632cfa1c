"""`configure`: adds the sign-in service to a Hub's configuration, in one call from `jupyterhub_config.py`.

The configuration is a traitlets `Config`, as filled by `jupyterhub_config.py` and Zero to JupyterHub. A configuration
in which a kernel could read another user's stored sign-in is rejected. The service checks everything else at run time.
"""

import functools
import importlib
import inspect
import logging
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from difflib import get_close_matches
from importlib.metadata import entry_points
from ipaddress import ip_address
from typing import Any, Final, ParamSpec
from urllib.parse import urlsplit

from traitlets import TraitError
from traitlets.config import Config

from micromegas_jupyter.auth.flows.jupyter import public_base
from micromegas_jupyter.auth.provider_connection import ProviderConnection
from micromegas_jupyter.config.client import CLIENT_PRESETS, Bearer, recognize_preset
from micromegas_jupyter.core.http import ProviderHttp
from micromegas_jupyter.core.system import SYSTEM_CLOCK
from micromegas_jupyter.core.text import LOOPBACK_HOSTS, as_issuer
from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.hub.callers import SERVICE_SCOPES, find_dangerous_scope
from micromegas_jupyter.hub.settings import check_resource, parse_service_url
from micromegas_jupyter.hub.tokens import AuthStateRefresher

MIN_MARGIN_SECONDS: Final = 2
MAX_MARGIN_SECONDS: Final = 3600
MAX_AUTH_STATE_AGE_SECONDS: Final = 5
"""How long the Hub uses a user's record without checking it. A check is cheap, and tokens may be short-lived."""

SERVICE_NAME: Final = "micromegas"
SERVICE_ROLE: Final = "micromegas-sign-in"
SERVICE_PATH: Final = f"services/{SERVICE_NAME}/"
KERNEL_VARIABLE: Final = "KERNEL_MICROMEGAS_HUB"
DEFAULT_SERVICE_URL: Final = "http://127.0.0.1:8190"

_LOG: Final = logging.getLogger("micromegas_jupyter.hub")
_ACCESS: Final = f"access:services!service={SERVICE_NAME}"
_AUTHENTICATORS: Final = "jupyterhub.authenticators"
_SPAWNERS: Final = "jupyterhub.spawners"
_CRYPT_KEY: Final = "JUPYTERHUB_CRYPT_KEY"
# Their servers run as a single system user, which is also the Hub's.
_SHARING_SPAWNERS: Final = frozenset({"SimpleLocalProcessSpawner"})
_LOCAL_SPAWNER: Final = "LocalProcessSpawner"  # the Hub's default; its servers run on the Hub's machine
# Roles that all users, servers, or user tokens have.
_COMMON_ROLES: Final = frozenset({"user", "server", "token"})
_TOKEN_SCOPES: Final = ("server_token_scopes", "oauth_client_allowed_scopes")
# All permissions of the user; an administrator may read all users' auth state.
_ALL_RIGHTS: Final = frozenset({"inherit", "all"})
# With these, anyone who visits another user's shared server hands over access to their own server, and thus a token.
_VISITOR_RIGHTS: Final = frozenset({"self", "tokens", "access:servers"})
# The authenticator's settings for the provider's endpoints, and the environment variables that it also reads.
_ENDPOINTS: Final = {
    "authorize_url": "OAUTH2_AUTHORIZE_URL",
    "token_url": "OAUTH2_TOKEN_URL",
    "userdata_url": "OAUTH2_USERDATA_URL",
}
_OPENID: Final = "openid"
_OFFLINE: Final = "offline_access"
_GETS_ID_TOKENS: Final = frozenset({"AzureAdOAuthenticator"})  # from Entra ID's older endpoints, without the scope
_ANY_HOST: Final = frozenset({"", "0.0.0.0", "::", "*"})  # noqa: S104 - compared only

Arguments = ParamSpec("Arguments")


def _refusing_unknown_arguments(function: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Reject an unknown argument as an administrator's mistake, not as a bug."""
    known = [name for name, one in inspect.signature(function).parameters.items() if one.kind is one.KEYWORD_ONLY]

    @functools.wraps(function)
    def checked(*config: Arguments.args, **arguments: Arguments.kwargs) -> None:
        unknown = next((name for name in arguments if name not in known), None)
        if unknown is not None:
            nearest = get_close_matches(unknown, known, n=1)
            raise ConfigurationError(
                f"configure doesn't accept the argument {unknown}.",
                key=unknown,
                remedy=f"Did you mean {nearest[0]}?" if nearest else f"It accepts {', '.join(known)}.",
            )
        function(*config, **arguments)

    return checked


@_refusing_unknown_arguments
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
    ca_bundle: str | None = None,
    margin_seconds: int = 60,
    allow_shared_system_user: bool = False,
) -> None:
    """Add the sign-in service to a Hub's configuration; call it last in `jupyterhub_config.py`.

    Provider URLs that are missing in `GenericOAuthenticator` are read from the issuer's discovery document.

    Args:
        config: `c`, which must already contain the authenticator's settings.
        issuer: The identity provider's issuer, exactly as in its discovery document.
        bearer: The kind of user token that kernels get: `id_token` or `access_token`.
        public_url: The Hub's URL in browsers, including the base URL; by default `c.JupyterHub.public_url`. Required
            for redirect sign-in.
        kernel_url: The service's URL for kernels. By default it is derived from the Hub's `bind_url`; with
            `subdomain_host`, which gives the service a host name that kernels may be unable to resolve, it is the
            service itself.
        service_url: Where the service listens, `http://host:port`. If the host is not this machine, it listens on all
            addresses.
        redirect_client_id: The client ID of a public application. Kernels that do not use the Hub's token can sign in
            with it and one redirect URI for the whole Hub. By default there is no such application.
        exchange_audience: Exchange each token (RFC 8693) for one with this audience.
        exchange_resource: Exchange each token for one with this URI as `resource`.
        exchange_scope: The scope of the exchanged token.
        ca_bundle: A PEM file of the CAs that the Hub and the service trust for the provider, instead of the default
            ones.
        margin_seconds: The minimum remaining lifetime of a token that a kernel gets.
        allow_shared_system_user: Accept a spawner that runs all servers as one system user, so that each user can read
            every other user's tokens.

    Raises:
        ConfigurationError: The configuration cannot or must not give tokens to kernels; the error has reason and
            remedy.
        ProviderUnavailable: The discovery document is needed and cannot be read.
        ProviderMisbehaved: The discovery document is another issuer's or incomplete.
    """
    _check_authenticator(config)
    _check_crypt_key(config)
    _check_spawner(config, allow_shared_system_user=allow_shared_system_user)
    _check_roles(config)
    # None if it comes from an unset variable in the Hub's environment.
    issuer = _parse_line(issuer, key="issuer") or ""
    as_issuer(issuer, "issuer")
    service_url = _parse_line(service_url, key="service_url") or ""
    parse_service_url(service_url, key="service_url")
    resource = _parse_line(exchange_resource, key="exchange_resource")
    check_resource(resource, key="exchange_resource")
    if kernel_url is None:
        kernel_url = kernel_address(config, service_url=service_url, path=SERVICE_PATH)
    public_url = public_url or _read(config, "JupyterHub", "public_url")
    kernel_bearer = next((known for known in Bearer if known.value == bearer), None)
    if kernel_bearer is None:
        raise ConfigurationError("bearer must be id_token or access_token.", key="bearer")
    _check_scope(config, issuer, kernel_bearer)
    if type(margin_seconds) is not int or not MIN_MARGIN_SECONDS <= margin_seconds <= MAX_MARGIN_SECONDS:
        raise ConfigurationError(
            f"margin_seconds must be an integer from {MIN_MARGIN_SECONDS} to {MAX_MARGIN_SECONDS}.",
            key="margin_seconds",
        )
    ca_bundle = _parse_line(ca_bundle, key="ca_bundle")
    environment = {
        "MICROMEGAS_HUB_ISSUER": issuer,
        "MICROMEGAS_HUB_CA_BUNDLE": ca_bundle,
        "MICROMEGAS_HUB_CLIENT_ID": _read_application(config, "client_id"),
        "MICROMEGAS_HUB_BEARER": kernel_bearer.value,
        "MICROMEGAS_HUB_PUBLIC_URL": _parse_address(public_url, key="public_url") if public_url else None,
        "MICROMEGAS_HUB_REDIRECT_CLIENT_ID": _parse_line(redirect_client_id, key="redirect_client_id"),
        "MICROMEGAS_HUB_EXCHANGE_AUDIENCE": _parse_line(exchange_audience, key="exchange_audience"),
        "MICROMEGAS_HUB_EXCHANGE_RESOURCE": resource,
        "MICROMEGAS_HUB_EXCHANGE_SCOPE": _parse_line(exchange_scope, key="exchange_scope"),
    }
    if redirect_client_id and not (public_url or _read(config, "JupyterHub", "subdomain_host")):
        raise ConfigurationError(
            "redirect_client_id requires the Hub's public URL, which is not set.",
            key="public_url",
            remedy="Pass a public_url to configure, such as https://hub.example.com.",
        )
    if exchange_audience or exchange_resource or exchange_scope:
        environment["MICROMEGAS_HUB_CLIENT_SECRET"] = _read_application(config, "client_secret")
    kernel_url = _parse_address(kernel_url, key="kernel_url")
    _set_endpoints(config, issuer, ca_bundle)
    if _read(config, "JupyterHub", "shutdown_on_logout") is None:
        _LOG.warning(
            "Servers keep running after their user has signed out of the Hub, and their kernels still get tokens. "
            "Set c.JupyterHub.shutdown_on_logout: True stops the servers; False keeps them running and "
            "suppresses this warning."
        )
    _add_service(config, service_url, {name: value for name, value in environment.items() if value})
    _add_roles(config)
    _set_kernel_variable(config, kernel_url)
    _set_refresh_hook(config, kernel_bearer, margin_seconds=margin_seconds)


def _set_endpoints(config: Config, issuer: str, ca_bundle: str | None) -> None:
    """Set the provider URLs that `GenericOAuthenticator` lacks, and the CAs that the authenticator trusts."""
    http = ProviderHttp(ca_bundle=ca_bundle)
    classes = _class_names(config, "authenticator_class")
    if ca_bundle is not None:
        name = "http_request_kwargs"
        for section in {"OAuthenticator", *_sections_with(config, "OAuthenticator", name, classes=classes)}:
            given = _read(config, section, name) or {}
            config[section].http_request_kwargs = {"ca_certs": ca_bundle, **given}
    is_in_id_token = any(_read(config, section, "userdata_from_id_token") for section in classes)
    missing = [
        name
        for name, variable in _ENDPOINTS.items()
        if not (os.environ.get(variable) or any(_read(config, section, name) for section in classes))
        and not (name == "userdata_url" and is_in_id_token)
    ]
    # A subclass may define its own URLs.
    if classes[:1] != ["GenericOAuthenticator"] or not missing:
        return
    client_id = _read_application(config, "client_id")
    metadata = ProviderConnection(issuer, client_id, None, http=http, clock=SYSTEM_CLOCK).metadata()
    found = {
        "authorize_url": metadata.authorization_endpoint,
        "token_url": metadata.token_endpoint,
        "userdata_url": metadata.userinfo_endpoint,
    }
    for name in missing:
        if found[name]:
            config.GenericOAuthenticator[name] = found[name]
        elif name == "userdata_url":  # OpenID Connect Discovery 1.0 does not require one
            config.GenericOAuthenticator.userdata_from_id_token = True


def _add_service(config: Config, service_url: str, environment: dict[str, str]) -> None:
    services = _read_list(config, "JupyterHub", "services")
    if any(service.get("name") == SERVICE_NAME for service in services if isinstance(service, dict)):
        raise ConfigurationError(
            f"A service named {SERVICE_NAME} already exists.",
            key="JupyterHub.services",
            remedy="Call configure once, and don't use that name for another service.",
        )
    service: dict[str, Any] = {
        "name": SERVICE_NAME,
        "url": service_url,
        "command": [sys.executable, "-m", "micromegas_jupyter.hub"],
        "environment": environment,
        "oauth_no_confirm": True,
        "display": False,
    }
    config.JupyterHub.services = [*services, service]


def _add_roles(config: Config) -> None:
    roles = [dict(role) for role in _read_list(config, "JupyterHub", "load_roles")]
    people = next((role for role in roles if role.get("name") == "user"), None)
    if people is None:
        people = {"name": "user"}
        roles.append(people)
    # A built-in role without scopes keeps the Hub's default ones.
    people["scopes"] = [*people.get("scopes", ("self",)), _ACCESS]
    own = {
        "name": SERVICE_ROLE,
        "description": "Gives each user's kernels that user's token",
        "scopes": list(SERVICE_SCOPES),
        "services": [SERVICE_NAME],
    }
    config.JupyterHub.load_roles = [*roles, own]


def _set_kernel_variable(config: Config, kernel_url: str) -> None:
    """Give kernels the service's URL in each section that sets variables; a subclass's section hides its base's."""
    spawner = _class_names(config, "spawner_class")
    for section in {"Spawner", *_sections_with(config, "Spawner", "environment", classes=spawner)}:
        environment = _read(config, section, "environment") or {}
        if not isinstance(environment, Mapping):
            raise ConfigurationError(f"c.{section}.environment is not a mapping.", key=f"{section}.environment")
        config[section].environment = {**environment, KERNEL_VARIABLE: kernel_url}


def _set_refresh_hook(config: Config, bearer: Bearer, *, margin_seconds: int) -> None:
    # A lookup may come this long after the last one that could refresh, so the token needs this additional margin.
    age_seconds = max(1, min(MAX_AUTH_STATE_AGE_SECONDS, margin_seconds // 2))
    config.Authenticator.enable_auth_state = True
    classes = _class_names(config, "authenticator_class")
    for section in {"Authenticator", *_sections_with(config, "Authenticator", "auth_refresh_age", classes=classes)}:
        config[section].auth_refresh_age = age_seconds
    config.OAuthenticator.refresh_user_hook = AuthStateRefresher(bearer, margin_seconds=margin_seconds + age_seconds)


def _parse_line(value: object, *, key: str) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not value.isprintable() or not value.strip():
        raise ConfigurationError(f"{key} must be a single line of text.", key=key)
    return value


def _parse_address(url: object, *, key: str) -> str:
    base = public_base(url) if isinstance(url, str) else None
    try:
        has_port = base is not None and urlsplit(base).port != 0
    except ValueError:
        has_port = False
    if base is None or not has_port:
        raise ConfigurationError(
            f"{key} must be an http or https URL without a user name, query, or fragment.", key=key
        )
    return base


def kernel_address(config: Config, *, service_url: str, path: str) -> str:
    """Return the service's URL for kernels; its `path` is below the Hub's base URL.

    Normally it is behind the Hub's proxy. If kernels could not call it there, the URL is that of the service itself.
    That is the case with a separate host name for each server, with an IP address and TLS (no certificate covers it),
    and with plain http to a host other than the Hub's, because programs on this machine never send a token there.
    """
    host, port, base = _proxy_address(config)
    path = f"{f'{base}/' if base else ''}{path}"
    is_tls = bool(_read(config, "JupyterHub", "ssl_cert"))
    is_unreachable = _is_ip(host) if is_tls else _is_refused_over_http(config, host)
    if _read(config, "JupyterHub", "subdomain_host") or is_unreachable:
        return f"{service_url.rstrip('/')}/{path}"
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if is_tls else 'http'}://{shown}:{port or (443 if is_tls else 80)}/{path}"


def _proxy_address(config: Config) -> tuple[str, int | None, str]:
    """Return the host, port, and base URL as the Hub derives them from its settings."""
    from jupyterhub.app import JupyterHub
    from traitlets.config import Config as HubConfig

    given = {name: _read(config, "JupyterHub", name) for name in ("ip", "port", "base_url", "bind_url")}
    hub = HubConfig({"JupyterHub": {name: value for name, value in given.items() if value is not None}})
    try:
        parts = urlsplit(JupyterHub(config=hub).bind_url)
        host, port, scheme, base = parts.hostname or "", parts.port, parts.scheme, parts.path
    except (TraitError, ValueError):
        host, port, scheme, base = "", None, "", ""
    if scheme not in {"http", "https"}:
        raise ConfigurationError(
            "c.JupyterHub.bind_url is not an http or https URL, so kernels cannot use it to reach the service.",
            key="JupyterHub.bind_url",
            remedy="Correct it, or pass a kernel_url to configure.",
        )
    return "127.0.0.1" if host in _ANY_HOST else host, port, base.strip("/")


def _is_refused_over_http(config: Config, host: str) -> bool:
    hub = {_read(config, "JupyterHub", name) for name in ("hub_ip", "hub_connect_ip")}
    if host in LOOPBACK_HOSTS or host in hub:
        return False
    return _LOCAL_SPAWNER in (_class_names(config, "spawner_class") or [_LOCAL_SPAWNER])


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return host == "localhost"
    return True


def _check_authenticator(config: Config) -> None:
    """Check that users sign in with OAuthenticator and that their tokens are stored."""
    spec = _read(config, "JupyterHub", "authenticator_class")
    names = _class_names(config, "authenticator_class")
    if "OAuthenticator" not in names or not hasattr(_load_class(spec, _AUTHENTICATORS), "refresh_user_hook"):
        raise ConfigurationError(
            "This Hub does not use OAuthenticator 17.3 or later, so it doesn't store its users' tokens.",
            key="JupyterHub.authenticator_class",
            remedy="Set an authenticator from oauthenticator, such as generic-oauth, before calling configure; "
            "without one, kernels sign in with a device code and don't need the service.",
        )
    for section in _sections_with(config, "Authenticator", "enable_auth_state", classes=names):
        if _read(config, section, "enable_auth_state") is False:
            raise ConfigurationError(
                f"{section}.enable_auth_state is False, so the Hub doesn't store any tokens for kernels.",
                key=f"{section}.enable_auth_state",
                remedy="Remove the line; configure enables auth state.",
            )
    for section in _sections_with(config, "Authenticator", "refresh_user_hook", classes=names):
        raise ConfigurationError(
            f"{section}.refresh_user_hook is already set, and two hooks would use up each other's refresh tokens.",
            key=f"{section}.refresh_user_hook",
            remedy="Remove it; configure sets the hook that refreshes users' sign-ins.",
        )


def _check_scope(config: Config, issuer: str, bearer: Bearer) -> None:
    """Check that the Hub requests ID tokens, and warn if it doesn't request refresh tokens."""
    classes = _class_names(config, "authenticator_class")
    scope, parameters = (_read_authenticator(config, name) for name in ("scope", "extra_authorize_params"))
    scope = " ".join(scope or [str(parameters.get("scope", ""))]).split()  # as sent to the provider
    preset = CLIENT_PRESETS.get(recognize_preset(issuer) or "")
    asks_otherwise = preset if preset is not None and preset.scope is not None else None  # without this scope
    if bearer is Bearer.ID_TOKEN and _OPENID not in scope and _GETS_ID_TOKENS.isdisjoint(classes):
        complete = dict.fromkeys((_OPENID, *scope, *([] if asks_otherwise else [_OFFLINE])))
        raise ConfigurationError(
            f"The Hub does not request the {_OPENID} scope; without it, the provider doesn't issue ID tokens.",
            key=f"{classes[0]}.scope",
            remedy=f"Set c.{classes[0]}.scope = {list(complete)}.",
        )
    if asks_otherwise is None:
        missing = None if _OFFLINE in scope else f"scope = {[*scope, _OFFLINE]}"
    else:
        wanted = {**dict(asks_otherwise.authorize_params), **parameters}
        missing = None if wanted == parameters else f"extra_authorize_params = {wanted}"
    if missing is not None:
        _LOG.warning(
            "The Hub does not request refresh tokens. Unless the provider issues them anyway, users have to sign in to "
            "the Hub again whenever a token expires. To request them, set c.%s.%s",
            classes[0],
            missing,
        )


def _check_crypt_key(config: Config) -> None:
    if not os.environ.get(_CRYPT_KEY) and not _read_list(config, "CryptKeeper", "keys"):
        raise ConfigurationError(
            f"{_CRYPT_KEY} is not set, so the Hub cannot encrypt the sign-ins that it stores.",
            key=_CRYPT_KEY,
            remedy="Set it in the Hub's environment to the output of `openssl rand -hex 32`, and keep it out of files "
            "that users can read.",
        )


def _check_spawner(config: Config, *, allow_shared_system_user: object) -> None:
    """Check that each user's servers run as a separate system user."""
    # Strings are rejected: a variable with the value "false" must not turn anything on.
    if not isinstance(allow_shared_system_user, bool):
        key = "allow_shared_system_user"
        raise ConfigurationError(f"{key} must be True or False.", key=key)
    names = set(_class_names(config, "spawner_class"))
    is_shared = _read(config, "JupyterHub", "spawner_class") == "simple" or bool(_SHARING_SPAWNERS & names)
    if is_shared and not allow_shared_system_user:
        raise ConfigurationError(
            "This spawner runs all users' servers as one system user, who can read the memory and environment of "
            "each, so any user could take other users' tokens.",
            key="JupyterHub.spawner_class",
            remedy="Use a spawner that isolates users, such as LocalProcessSpawner, DockerSpawner, or KubeSpawner. "
            "For a trial only, use configure(…, allow_shared_system_user=True).",
        )


def _check_roles(config: Config) -> None:
    """Check that no role lets users or their servers read stored sign-ins."""
    for role in _read_list(config, "JupyterHub", "load_roles"):
        if not isinstance(role, dict) or not isinstance(role.get("scopes", []), list | tuple | set):
            raise ConfigurationError(
                "c.JupyterHub.load_roles must contain only roles with a list of scopes.",
                key="JupyterHub.load_roles",
            )
        # The Hub's own administrator role may do anything; no server's token has it.
        is_chosen = role.get("name") != "admin" and bool(role.get("users") or role.get("groups"))
        if role.get("name") in _COMMON_ROLES or is_chosen:
            scopes = [str(scope) for scope in role.get("scopes", ())]
            what = f"The role {role.get('name')} gives users or their servers"
            _check_scopes(scopes, what=what, key="JupyterHub.load_roles", may_be_all=role.get("name") != "server")
    spawner = _class_names(config, "spawner_class")
    for name in _TOKEN_SCOPES:
        for section in _sections_with(config, "Spawner", name, classes=spawner):
            found, key = _read(config, section, name), f"{section}.{name}"
            if callable(found):
                continue  # known only when a server starts
            scopes = [str(scope) for scope in (found if isinstance(found, set) else _read_list(config, section, name))]
            _check_scopes(scopes, what=f"{key} gives servers", key=key, may_be_all=False)
            if name == "oauth_client_allowed_scopes":
                _check_visitor_rights(scopes, key=key)


def _check_scopes(scopes: Collection[str], *, what: str, key: str, may_be_all: bool) -> None:
    scope, whose = find_dangerous_scope(scopes), "a kernel"
    if scope is None and not may_be_all:
        scope, whose = next(iter(sorted(_ALL_RIGHTS.intersection(scopes))), None), "an administrator's kernel"
    if scope is not None:
        raise ConfigurationError(
            f"{what} the scope {scope}. Code in {whose} could use it to read refresh tokens.",
            key=key,
            remedy="Remove the scope; kernels get their tokens from the service and don't need it.",
        )


def _check_visitor_rights(scopes: Collection[str], *, key: str) -> None:
    for scope in sorted(scopes):
        right, _, of = scope.partition("!")
        if right in _VISITOR_RIGHTS and not of.startswith("server"):
            raise ConfigurationError(
                f"{key} gives servers the scope {scope} for every user who visits them, so a server's owner could use "
                "a visitor's own server to get the visitor's token.",
                key=key,
                remedy="Remove the scope, or limit it to the visited server (access:servers!server).",
            )


def _read(config: Config, section: str, name: str) -> Any:
    """Return the value that a section sets, or None."""
    if section not in config or name not in config[section]:
        return None
    value = config[section][name]
    # A list that was only extended (`c.JupyterHub.services.append`) is stored as changes until the class is
    # instantiated.
    changes = getattr(value, "get_value", None)
    return value if changes is None else changes({} if value.to_dict().get("update") else [])


def _read_list(config: Config, section: str, name: str) -> list[Any]:
    value = _read(config, section, name) or []
    if not isinstance(value, list | tuple):
        raise ConfigurationError(f"c.{section}.{name} is not a list.", key=f"{section}.{name}")
    return list(value)


def _read_application(config: Config, name: str) -> str:
    """Return a setting from the authenticator's own section or a base's; the first in class order wins."""
    found = (_read(config, section, name) for section in _class_names(config, "authenticator_class"))
    value = next((value for value in found if isinstance(value, str) and value), None)
    if value is None:
        raise ConfigurationError(
            f"The authenticator's {name} is not set in this configuration.",
            key=f"OAuthenticator.{name}",
            remedy=f"Set it before calling configure, for example with c.GenericOAuthenticator.{name}.",
        )
    return value


def _read_authenticator(config: Config, name: str) -> Any:
    """Return an authenticator setting as completed by its class, or the class's default if not set."""
    found: Any = _load_class(_read(config, "JupyterHub", "authenticator_class"), _AUTHENTICATORS)
    sections = [one for one in _class_names(config, "authenticator_class") if name in config.get(one, ())]
    authenticator = found.__new__(found)  # without calling the constructor, which may do anything
    try:
        authenticator.update_config(Config({section: {name: config[section][name]} for section in sections}))
    except TraitError as error:
        key = f"{sections[0]}.{name}"
        raise ConfigurationError(f"c.{key} is invalid: {error}", key=key) from None
    return getattr(authenticator, name)


def _sections_with(config: Config, suffix: str, name: str, *, classes: Collection[str]) -> Iterator[str]:
    """Yield the sections of these classes that set a value; a subclass's wins over its base's."""
    for section in list(config):
        if (section.endswith(suffix) or section in classes) and name in config[section]:
            yield section


def _class_names(config: Config, setting: str) -> list[str]:
    """Return the names of the configured class and its bases, the class first; empty if none is configured."""
    spec = _read(config, "JupyterHub", setting)
    if spec is None:
        return []
    found = _load_class(spec, _SPAWNERS if setting == "spawner_class" else _AUTHENTICATORS)
    if found is None:
        return [str(spec).rpartition(".")[2]]
    return [base.__name__ for base in found.__mro__ if base is not object]


@functools.cache
def _registered(group: str) -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=group)}


def _load_class(spec: object, group: str) -> type | None:
    """Return a class, given as a class, dotted name, or entry point name; None if it is not installed."""
    if isinstance(spec, type):
        return spec
    module, _, name = _registered(group).get(str(spec).lower(), str(spec)).replace(":", ".").rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None) if module else None
    except ImportError:
        return None
    return found if isinstance(found, type) else None
