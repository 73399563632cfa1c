"""The proxy that the environment names for a URL.

When a proxy is used at all, and a proxy that was set instead, is `provider_http`'s to say.
"""

from importlib.util import find_spec
from urllib.parse import urlsplit

from requests.utils import get_environ_proxies, select_proxy

from micromegas_jupyter.contracts import Secret
from micromegas_jupyter.errors import ConfigurationError

_NAMES = "https_proxy, HTTPS_PROXY, all_proxy or ALL_PROXY, or unset it"


def environment_proxy(url: str) -> Secret | None:
    """Return the proxy that `requests` would use for a URL; its address may hold a password. None for none.

    Raises:
        ConfigurationError: Its address is malformed, or it speaks SOCKS and the package for that is not installed. The
            address is not shown.
    """
    found = select_proxy(url, get_environ_proxies(url))
    if not found:
        return None
    # Libraries fail on these in ways that show the address, or say nothing of use.
    if not _is_address(found):
        raise ConfigurationError(
            "The environment names a proxy whose address is malformed.", key="https_proxy", remedy=f"Correct {_NAMES}."
        )
    if found.lower().startswith("socks") and find_spec("socks") is None:
        raise ConfigurationError(
            "The environment names a SOCKS proxy, which needs the package PySocks.",
            key="https_proxy",
            remedy=f"Install PySocks, or correct {_NAMES}.",
        )
    return Secret(found)


def _is_address(proxy: str) -> bool:
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
