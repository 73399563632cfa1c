"""At which address kernels reach the service, where the administrator names none: what the Hub's own proxy listens at.

Checking an address that the administrator names is `wishes`'s job.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from micromegas_jupyter.errors import ConfigurationError
from micromegas_jupyter.hub.config_sections import class_names, read_value
from micromegas_jupyter.hub.configuration_checks import SPAWNERS
from micromegas_jupyter.settings import LOOPBACK_HOSTS

if TYPE_CHECKING:
    from traitlets.config import Config

_ANY_HOST: Final = frozenset({"", "0.0.0.0", "::", "*"})  # noqa: S104 - compared only
_LOCAL_SPAWNER: Final = "LocalProcessSpawner"
"""The Hub's default, whose servers run on the Hub's machine."""
_DEFAULT_URL: Final = "http://:8000"
_DEFAULT_PARTS: Final = {"ip": "", "port": 8000, "base_url": "/"}
"""What the Hub has for the settings that `bind_url` replaced; one that is set to something else wins over it.

The path of `bind_url` stays where `base_url` is not set, also when another one is.
"""


def kernel_address(config: Config, *, service_url: str, path: str) -> str:
    """Return where kernels find the service.

    That is behind the Hub's proxy. Where kernels could not call there, it is the service itself: with host names for
    each server, where no certificate is for an IP address, and where programs of this machine would send a token in
    plain http to a host that is not the Hub's own, which they do not.

    Args:
        config: The Hub's configuration.
        service_url: Where the service listens.
        path: Of the service, below the Hub's base URL.

    Raises:
        ConfigurationError: The configuration does not say where the proxy listens.
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
