"""The Jupyter server's part in a sign-in by redirect: sends browsers off, and passes on what they bring back.

It stores nothing: verifier, state, nonce and tokens stay in the kernel (`auth.flows.jupyter`). Loading this module
loads no handler before a server asks for them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from jupyter_server.serverapp import ServerApp

__all__: list[str] = []


def _load_jupyter_server_extension(serverapp: ServerApp) -> None:
    """Jupyter calls this when it starts."""
    load(serverapp)


def load(serverapp: ServerApp, environ: MutableMapping[str, str] = os.environ) -> None:
    """Add the sign-in addresses to a server, and tell the kernels that it starts from now on through `environ`.

    Raises:
        TraitError: The configured address is malformed.
    """
    from micromegas_jupyter.auth.flows.select import HUB_TOKEN_VARIABLE, REDIRECT_VARIABLE
    from micromegas_jupyter.server_extension.handlers import KernelClient, MicromegasRelay, configured_base, relay_rules

    relay = MicromegasRelay(parent=serverapp)
    if environ.get(HUB_TOKEN_VARIABLE) and not relay.per_user_redirect:
        # On a shared Hub, per-user redirects let users take each other's tokens.
        environ.pop(REDIRECT_VARIABLE, None)
        serverapp.log.info(
            "micromegas_jupyter: no sign-in by redirect in a server that JupyterHub started: per-user redirects let "
            "people take each other's tokens."
        )
        return
    rules = relay_rules(serverapp.base_url, relay=relay, kernels=KernelClient(serverapp.kernel_manager))
    serverapp.web_app.add_handlers(".*$", rules)  # type: ignore[no-untyped-call]  # tornado
    environ[REDIRECT_VARIABLE] = configured_base(relay.public_url, environ) or serverapp.base_url
    serverapp.log.info("micromegas_jupyter: sign-in by redirect at %smicromegas/", serverapp.base_url)
