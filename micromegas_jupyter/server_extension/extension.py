"""Joins the relay to a Jupyter server: reads its configuration, adds its addresses, tells the kernels to come.

Jupyter calls it through the package (`relay`); what the addresses do is the handlers'.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from micromegas_jupyter.auth.surroundings import REDIRECT_VARIABLE
from micromegas_jupyter.server_extension.handlers import relay_rules
from micromegas_jupyter.server_extension.kernel_calls import KernelCalls
from micromegas_jupyter.server_extension.settings import MicromegasRelay, configured_base

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from jupyter_server.serverapp import ServerApp

_HUB_VARIABLE = "JUPYTERHUB_API_TOKEN"


def load(serverapp: ServerApp, environ: MutableMapping[str, str] = os.environ) -> None:
    """Add the sign-in addresses to a server, and tell the kernels that it starts from now on.

    Args:
        serverapp: The server.
        environ: What kernels inherit.

    Raises:
        TraitError: The configured address cannot be one.
    """
    relay = MicromegasRelay(parent=serverapp)
    if environ.get(_HUB_VARIABLE) and not relay.per_user_redirect:
        # On a shared Hub, redirects that are each user's own let users take each other's tokens.
        environ.pop(REDIRECT_VARIABLE, None)
        serverapp.log.info(
            "micromegas_jupyter: no sign-in by redirect in a server that JupyterHub started: a redirect of each "
            "person's own lets people take each other's tokens."
        )
        return
    calls = KernelCalls(serverapp.kernel_manager)
    rules = relay_rules(serverapp.base_url, relay=relay, calls=calls)
    serverapp.web_app.add_handlers(".*$", rules)  # type: ignore[no-untyped-call]  # tornado
    environ[REDIRECT_VARIABLE] = configured_base(relay.public_url, environ) or serverapp.base_url
    serverapp.log.info("micromegas_jupyter: sign-in by redirect at %smicromegas/", serverapp.base_url)
