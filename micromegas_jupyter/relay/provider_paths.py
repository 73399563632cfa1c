"""Where browsers find the pages of a provider that only this machine reaches: below the Jupyter server's base URL.

Showing them there is a proxy's job, such as jupyter-server-proxy's; which providers there are is configuration.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOOPBACK_ORIGIN = re.compile(r"http://(?:127\.0\.0\.1|\[::1\]|localhost):[1-9][0-9]{0,4}", re.ASCII)
_PATH = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*", re.ASCII)


def is_loopback_origin(text: str) -> bool:
    """Whether a text is `http://`, a loopback address and a port, and nothing behind it."""
    return _LOOPBACK_ORIGIN.fullmatch(text) is not None


def is_path(text: str) -> bool:
    """Whether a text can be a path below the base URL: no slash at its ends, nothing that leads elsewhere."""
    return _PATH.fullmatch(text) is not None


def address_for_browsers(url: str, *, paths: Mapping[str, str], base_url: str) -> str:
    """Return where to send a browser instead of to a provider's own address; the same where browsers reach that.

    What it returns for a provider of `paths` has neither scheme nor host, so it holds at whichever host the browser
    is (RFC 9110 section 10.2.2 allows such a `Location`).

    Args:
        url: The provider's page.
        paths: The path below the base URL for each provider's scheme, host and port.
        base_url: The path of the server's base URL; ends with a slash.
    """
    parts = urlsplit(url)
    path = paths.get(f"{parts.scheme}://{parts.netloc}")
    return url if path is None else f"{base_url}{path}{parts.path}?{parts.query}"
