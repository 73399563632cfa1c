"""The address that a provider sends browsers back to when they belong to a Jupyter server: which are acceptable.

Finding out what a server is reached at is `relay`'s.
"""

import re
from urllib.parse import urlsplit

from micromegas_jupyter.redirect.messages import MAX_ADDRESS_CHARACTERS
from micromegas_jupyter.redirect.routing import CALLBACK_PATH

# RFC 3986 section 3.2: a name, an IPv4 or a bracketed IPv6 address, and a port; no user.
_AUTHORITY = re.compile(r"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?", re.ASCII)
_UNSAFE = re.compile(r"[^\x21-\x7e]")


def public_base(url: str) -> str | None:
    """Return the address that a Jupyter server's pages lie below, with a slash at its end; None when it cannot be one.

    It is `http` or `https`, names a host, and has no user, query or fragment.
    """
    if len(url) > MAX_ADDRESS_CHARACTERS or _UNSAFE.search(url) or "\\" in url or "?" in url or "#" in url:
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or _AUTHORITY.fullmatch(parts.netloc) is None:
        return None
    return url if url.endswith("/") else f"{url}/"


def callback_address(base: str) -> str:
    """Return the redirect URI of a server whose pages lie below `base`, an answer of `public_base`."""
    return f"{base}{CALLBACK_PATH}"


def is_callback_address(url: str) -> bool:
    """Whether a redirect URI is a Jupyter server's."""
    return url.endswith(f"/{CALLBACK_PATH}") and public_base(url.removesuffix(CALLBACK_PATH)) is not None


def is_web_address(url: str) -> bool:
    """Whether a browser may be sent there at all: `http` or `https`, in printable ASCII."""
    return re.fullmatch(r"https?://[\x21-\x7e]+", url) is not None and "\\" not in url
