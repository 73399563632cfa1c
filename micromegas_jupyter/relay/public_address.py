"""Under which address browsers reach this server, which the identity provider has to know, too.

Reading configuration, environment and request is the handlers'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from micromegas_jupyter.redirect.redirect_address import public_base

if TYPE_CHECKING:
    from collections.abc import Mapping

HUB_VARIABLE = "JUPYTERHUB_PUBLIC_URL"


def configured_base(public_url: str, environ: Mapping[str, str]) -> str:
    """Return what was configured, by this extension's setting or by a Hub; empty when nothing usable was."""
    return public_url or public_base(environ.get(HUB_VARIABLE, "")) or ""


def base_of_request(*, protocol: str, host: str, base_url: str) -> str | None:
    """Return the address that a request was sent to, as far as the server believes it; None when it is malformed.

    Args:
        protocol: `http` or `https`, a proxy's word taken only where the server is configured to (`trust_xheaders`).
        host: The Host header, which has passed Jupyter's check.
        base_url: The server's base URL.
    """
    base = public_base(f"{protocol}://{host}{base_url}")
    return base if base is not None and urlsplit(base).netloc == host else None
