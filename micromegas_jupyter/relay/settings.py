"""What an administrator can set about sign-ins by redirect, in Jupyter's own configuration.

What follows from it is `public_address`'s and the extension's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from traitlets import Bool, Dict, TraitError, Unicode, validate
from traitlets.config import Configurable

from micromegas_jupyter.redirect.redirect_address import public_base
from micromegas_jupyter.relay.provider_paths import is_loopback_origin, is_path

if TYPE_CHECKING:
    from traitlets import Bunch


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
        if not all(is_loopback_origin(origin) and is_path(path) for origin, path in paths.items()):
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
