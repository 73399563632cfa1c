"""Where a Jupyter server shows the provider's pages to browsers, when nobody knows by which name they reach it.

Showing them is a proxy's job in that server; what a page looks like is the pages'.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PAGES = "micromegas-demo"
CALLBACK = "micromegas/callback"

# RFC 3986 section 3.2: a name, an IPv4 or a bracketed IPv6 address, and a port; no user.
_ORIGIN = r"https?://(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"


@dataclass(frozen=True, slots=True, kw_only=True)
class BehindJupyter:
    """A Jupyter server's base URL; its host is whatever the browser has in its address bar.

    Attributes:
        base_url: The path below which the server answers, with a slash at both ends.
    """

    base_url: str

    @property
    def cookie_path(self) -> str:
        """Below which path cookies hold: other servers of the same host, as on a Hub, do not get them."""
        return f"{self.base_url}{PAGES}/"

    def is_callback(self, redirect_uri: str) -> bool:
        """Whether a redirect URI is this server's, at any host.

        The path is compared as a whole. The host cannot be: the provider's own process never learns it.
        """
        return re.fullmatch(_ORIGIN + re.escape(f"{self.base_url}{CALLBACK}"), redirect_uri, re.ASCII) is not None
