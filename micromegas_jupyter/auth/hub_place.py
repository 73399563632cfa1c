"""Where the sign-in service of a JupyterHub is, and what this server proves itself to it with.

Both come from the environment that the Hub starts a person's server with. Asking the service is `hub_service`'s job.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from micromegas_jupyter.auth.hub_variables import HUB_TOKEN_VARIABLE, HUB_VARIABLE, is_below_hub
from micromegas_jupyter.core.protocols import Secret
from micromegas_jupyter.core.urls import is_loopback_url
from micromegas_jupyter.errors import ConfigurationError

MAX_URL_CHARACTERS = 2048
MAX_TOKEN_CHARACTERS = 4096

_API_VARIABLE = "JUPYTERHUB_API_URL"
_ADMIN = "Ask the Hub's administrator to correct it (docs/jupyterhub.md, kernel_url)."


@dataclass(frozen=True, slots=True, kw_only=True)
class HubPlace:
    """The service and the credential for it.

    Attributes:
        url: What the service's addresses lie below; ends with a slash.
        token: This server's token at the Hub.
    """

    url: str
    token: Secret = field(repr=False)


def find_hub(environ: Mapping[str, str]) -> HubPlace | None:
    """Return where the service is; None outside a Hub that has one.

    Raises:
        ConfigurationError: The token may not be sent to the address, or one of the two cannot be used.
    """
    if not is_below_hub(environ):
        return None
    url, token = environ[HUB_VARIABLE], Secret(environ[HUB_TOKEN_VARIABLE])
    check_hub_url(url, hub_api_url=environ.get(_API_VARIABLE, ""))
    text = token.reveal()
    if len(text) > MAX_TOKEN_CHARACTERS or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigurationError(
            "This server's token at the Hub cannot be used.",
            key=HUB_TOKEN_VARIABLE,
            remedy="Stop your server in the Hub's control panel and start it again.",
        )
    return HubPlace(url=url, token=token)


def check_hub_url(url: str, *, hub_api_url: str) -> None:
    """Check that this server's token may be sent there.

    Args:
        url: The service.
        hub_api_url: Where the Hub itself takes that token; empty when unknown.

    Raises:
        ConfigurationError: It is neither https nor http to this machine or the Hub's own host, has a user, a query or a
            fragment, does not end with a slash, or can be read in two ways.
    """
    is_plain = len(url) <= MAX_URL_CHARACTERS and url.isascii() and url.isprintable() and not set(url) & set(' \\"<>')
    host = _host(url)
    if not is_plain or not host or not url.endswith("/") or set(url) & set("@?#"):
        raise ConfigurationError(f"{HUB_VARIABLE} is not the address of a service.", key=HUB_VARIABLE, remedy=_ADMIN)
    scheme = urlsplit(url).scheme
    if scheme == "https" or (scheme == "http" and (is_loopback_url(url) or host == _host(hub_api_url))):
        return
    raise ConfigurationError(
        f"{HUB_VARIABLE} leads over plain http to {host}, which is not the Hub's own host: this server's token is not "
        "sent there.",
        key=HUB_VARIABLE,
        remedy=_ADMIN,
    )


def _host(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        has_port_zero = parts.port == 0
    except ValueError:
        return None
    return None if has_port_zero else parts.hostname
