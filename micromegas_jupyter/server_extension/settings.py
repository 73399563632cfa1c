"""What an administrator can set about sign-ins by redirect, and the addresses that follow from it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from traitlets import Bool, Dict, TraitError, Unicode, validate
from traitlets.config import Configurable

from micromegas_jupyter.auth.flows.messages import public_base

if TYPE_CHECKING:
    from collections.abc import Mapping

    from traitlets import Bunch

HUB_VARIABLE = "JUPYTERHUB_PUBLIC_URL"

_LOOPBACK_ORIGIN = re.compile(r"http://(?:127\.0\.0\.1|\[::1\]|localhost):[1-9][0-9]{0,4}", re.ASCII)
_PATH = re.compile(r"[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*", re.ASCII)


class MicromegasRelay(Configurable):
    """Sign-in by redirect through this server: `c.MicromegasRelay.…` in `jupyter_server_config.py`."""

    public_url = Unicode(
        "",
        help=(
            "The address at which browsers reach this server, its base URL included, such as "
            "https://lab.example.com/base/. Without it, JUPYTERHUB_PUBLIC_URL or each request's own address is used."
        ),
    ).tag(config=True)
    per_user_redirect = Bool(
        default_value=False,
        help=(
            "Offer sign-in by redirect in a server that JupyterHub started. Users of a Hub could then take each "
            "other's tokens: only for a Hub whose users trust each other."
        ),
    ).tag(config=True)

    provider_paths = Dict(
        key_trait=Unicode(),
        value_trait=Unicode(),
        help=(
            "Where browsers find the pages of an identity provider that only this machine reaches: its address and "
            'the path below the base URL at which a proxy shows them, such as {"http://127.0.0.1:9300": "provider"}.'
        ),
    ).tag(config=True)

    @validate("provider_paths")
    def _check_provider_paths(self, proposal: Bunch) -> dict[str, str]:
        paths: dict[str, str] = proposal["value"]
        if not all(_LOOPBACK_ORIGIN.fullmatch(origin) and _PATH.fullmatch(path) for origin, path in paths.items()):
            raise TraitError(
                "MicromegasRelay.provider_paths: each key is http://, a loopback address and a port; each value is a "
                "path of letters, digits, '-', '_' and '/'."
            )
        return paths

    @validate("public_url")
    def _check_public_url(self, proposal: Bunch) -> str:
        url: str = proposal["value"]
        base = public_base(url) if url else ""
        if base is None:
            raise TraitError(
                "MicromegasRelay.public_url is not an http or https address without user, query and fragment."
            )
        return base


def configured_base(public_url: str, environ: Mapping[str, str]) -> str:
    """Return what was configured, by this extension's setting or by a Hub; empty when nothing usable was."""
    return public_url or public_base(environ.get(HUB_VARIABLE, "")) or ""


def base_of_request(*, protocol: str, host: str, base_url: str) -> str | None:
    """Return the address that a request was sent to; None when it is malformed.

    Args:
        protocol: `http` or `https`; a proxy's word is taken only where the server is configured to (`trust_xheaders`).
        host: The Host header, which has passed Jupyter's check.
        base_url: The server's base URL.
    """
    base = public_base(f"{protocol}://{host}{base_url}")
    return base if base is not None and urlsplit(base).netloc == host else None


def address_for_browsers(url: str, *, paths: Mapping[str, str], base_url: str) -> str:
    """Return where to send a browser instead of to a provider's own address; `url` itself where browsers reach it.

    For a provider of `paths` it has neither scheme nor host, so it holds at whichever host the browser is (RFC 9110
    section 10.2.2 allows such a `Location`).
    """
    parts = urlsplit(url)
    path = paths.get(f"{parts.scheme}://{parts.netloc}")
    return url if path is None else f"{base_url}{path}{parts.path}?{parts.query}"
