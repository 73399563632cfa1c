"""The headers of every page and redirect of a sign-in.

Sending them is left to the receivers.
"""

from collections.abc import Mapping
from types import MappingProxyType

from micromegas_jupyter.redirect.style import STYLE_HASH

# Source: RFC 9700 sections 4.2.4 and 4.16 (the address holds code and state: no referrer, no caches, no framing).
SECURITY_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": (
            f"default-src 'none'; style-src '{STYLE_HASH}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
        ),
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
)
